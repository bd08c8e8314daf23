"""The simulation of many workers drives the scheduler to the end of every entry."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_few_entries_are_simulated_to_the_end() -> None:
    command = [sys.executable, "scale_simulation.py", "--entries", "3", "--n", "300"]
    done = subprocess.run(
        [*command, "--workers", "1", "4"], cwd=ROOT / "perf", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"3 entries, +(\d) workers: +([\d.]+) h, efficiency ([\d.]+), (\d+) jobs", done.stdout
    )
    (one, hours_1, share_1, jobs_1), (four, hours_4, share_4, jobs_4) = rows
    assert (one, four) == ("1", "4") and jobs_1 == jobs_4 and int(jobs_1) > 50
    assert float(hours_4) <= float(hours_1)
    assert 0 < float(share_4) <= float(share_1) <= 1
