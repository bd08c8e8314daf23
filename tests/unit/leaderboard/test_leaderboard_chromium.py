"""The page in a real browser, where one is installed: scripts run and nothing complains."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from leaderboard_factory import make_result, write_result

from leaderboard.build import build_site

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--enable-logging=stderr",
)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_the_page_opens_from_a_file_without_a_console_error(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_result(tmp_path / "results", make_result(name))
    index = build_site([tmp_path / "results"], tmp_path / "site").index
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    run = subprocess.run(
        [str(CHROMIUM), *FLAGS, profile, "--dump-dom", index.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if run.returncode != 0 or "</html>" not in run.stdout:
        pytest.skip(f"chromium does not run here: {run.stderr[-300:]}")
    assert "CONSOLE" not in run.stderr
    assert '<button type="button" class="sort">' in run.stdout
