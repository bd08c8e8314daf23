"""The scripts for Slurm: their syntax, and that the options they use exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from corobench.benchmark.cli.main import cli

FOLDER = Path(__file__).parents[2] / "examples" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")


def test_there_are_scripts() -> None:
    assert [script.name for script in SCRIPTS] == ["evaluate.sbatch", "ray.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    subprocess.run([bash, "-n", str(script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_options_exist(script: Path) -> None:
    text = script.read_text().replace("\\\n", " ")
    (command,) = re.findall(r"corobench evaluate .*", text[text.index("set -euo") :])
    known = {name for one in cli.get_command(None, "evaluate").params for name in one.opts}  # type: ignore[arg-type,union-attr]
    used = set(OPTION.findall(command))
    assert used
    assert used <= known


def test_each_task_of_the_array_takes_its_share(tmp_path: Path) -> None:
    """With a stand-in for the command, as a task of an array would run it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    stand_in = tmp_path / "corobench"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    for name in ("a", "b b", "_template"):
        (tmp_path / "submissions" / name).mkdir(parents=True)
    task = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "2", "SLURM_ARRAY_TASK_COUNT": "2"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    for more, share in (({"SHARES": "20"}, "3/20"), ({"SLURM_ARRAY_TASK_COUNT": "4"}, "3/4")):
        done = subprocess.run(
            [bash, str(FOLDER / "evaluate.sbatch"), "submissions", "results"],
            cwd=tmp_path,
            env={**os.environ, **task, **more, "PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        entries = "submissions/a/ submissions/b b/"
        options = f"--shard {share} --workers 2 --missing-only --out results"
        assert done.stdout == f"evaluate {entries} {options}\n"
