"""Measuring scripts start, whatever the machine is worth; their bars are for a quiet one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PERF = Path(__file__).parents[2] / "perf"


@pytest.mark.slow
def test_the_cost_of_a_site_is_measured_on_copies_of_published_results() -> None:
    command = [sys.executable, str(PERF / "site_build.py"), "--entries", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stderr == ""
    head, line, last = done.stdout.splitlines()
    assert head.startswith("entries | build, s")
    entries, seconds, *_ = line.split(" | ")
    assert (entries, seconds) == ("2", last)
