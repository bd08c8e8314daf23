"""Runs the shell steps of a workflow as its runner would: bash, variables, expressions filled in.

Steps that use an action of somebody else's are left out; what they would do is the test's to do.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True)
class Ran:
    """What a job did: exit code of its last step, output, job summary."""

    code: int
    said: str
    summary: str


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """Text with every expression replaced; an unknown one is an error of the test."""
    return EXPRESSION.sub(lambda found: values[found[1]], text)


def recording_python(folder: Path) -> Path:
    """A ``python`` that notes ``-m pip`` calls in ``pip.txt`` and runs everything else.

    Nothing is installed over what runs the tests; the arguments are what a test looks at.
    """
    folder.mkdir(exist_ok=True)
    script = folder / "python"
    script.write_text(
        f"""#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then echo "$@" >> "{folder}/pip.txt"; exit 0; fi
exec "{sys.executable}" "$@"
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return folder


def run_shell(script: str, cwd: Path, variables: Mapping[str, str], tools: Sequence[Path]) -> Any:
    """One step, with the tools and the environment of these tests first on the path."""
    path = os.pathsep.join([*map(str, tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=cwd,
        env={**os.environ, **variables, "PATH": path},
        capture_output=True,
        text=True,
    )


def run_steps(
    steps: Sequence[Mapping[str, Any]],
    workspace: Path,
    values: Mapping[str, str],
    tools: Sequence[Path] = (),
) -> Ran:
    """The steps of a GitHub job that have a script, until one fails.

    Args:
        steps: as read from the YAML file.
        workspace: where the job runs.
        values: expression -> its value.
        tools: folders that come first on the path.
    """
    temporary = workspace.parent / "runner-temp"
    temporary.mkdir(exist_ok=True)
    summary = temporary / "summary.md"
    summary.write_text("")
    said, code = "", 0
    for step in steps:
        if "run" not in step:
            continue
        own = {key: fill_in(str(text), values) for key, text in step.get("env", {}).items()}
        github = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(summary),
            "RUNNER_TEMP": str(temporary),
        }
        cwd = workspace / step.get("working-directory", "")
        done = run_shell(fill_in(step["run"], values), cwd, {**own, **github}, tools)
        said, code = said + done.stdout + done.stderr, done.returncode
        if code:
            break
    return Ran(code, said, summary.read_text())
