"""The example project: one commit breaks robustness, and the gate goes red for the right reason.

The steps of the action run as a workflow runner would run them: the shell script of the step, the
inputs as variables, GitHub's variables set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from reissue import reissue

from corobench.benchmark.records.result_set import OUTCOMES, beside

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "leaderboard" / "results" / "1.0" / "digits"
ENTRIES = ROOT / "submissions"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example as its README makes it, as a repository with one commit."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "gate", folder)
    shutil.copytree(ENTRIES / "digits-adv-lwm-10x", folder / "model")
    made = reissue(RESULTS / "digits-adv-lwm-10x.json", tmp_path / "results")
    path = folder / "robustness.json"
    shutil.copy(made, path)
    shutil.copy(beside(made, OUTCOMES), beside(path, OUTCOMES))
    _git(folder, "init", "--quiet")
    _commit(folder, "The shipped model and its robustness")
    return folder


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=example", "-c", "user.email=example@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def _commit(folder: Path, message: str) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", message)


def _run_action(project: Path, inputs: dict[str, str]) -> tuple[int, str, str]:
    """Run the step "Check" of action.yml: exit code, output, job summary."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [step for step in action["runs"]["steps"] if step["name"] == "Check"]
    values = {name: str(spec.get("default", "")) for name, spec in action["inputs"].items()}
    values |= inputs
    summary = project.parent / "summary.md"
    variables = {
        name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: values[found[1]], text)
        for name, text in step["env"].items()
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
        cwd=project,
        env={
            **os.environ,
            **variables,
            "PATH": path,
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(summary),
        },
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr, summary.read_text()


def test_one_commit_breaks_robustness_and_the_gate_goes_red(project: Path) -> None:
    inputs = {"candidate": "model", "baseline": "robustness.json"}
    code, said, summary = _run_action(project, inputs)
    assert code == 0, said
    assert "PASS" in summary

    shutil.copy(ENTRIES / "digits-adv-mismatch-10x" / "model.safetensors", project / "model")
    _commit(project, "Better clean accuracy on our own images")
    (project.parent / "summary.md").unlink()
    code, said, summary = _run_action(project, inputs)
    assert code == 1, said
    assert "::error title=corobench::certified 2/16" in said
    assert "clear early" in summary
    failing = [line for line in summary.splitlines() if line.endswith("| fail |")]
    assert any("autoattack 2/16" in line for line in failing)
    assert not any("clean" in line or "bytes" in line for line in failing)
    assert (project / "corobench-gate.xml").read_text().count("<failure") == len(failing)


def test_an_input_is_never_run_as_a_script(project: Path) -> None:
    path = "robustness.json; touch owned; #"
    with pytest.raises(FileNotFoundError) as done:
        _run_action(project, {"baseline": path})
    assert "summary" in str(done.value)  # it stopped before there was anything to report
    assert not (project / "owned").exists()


def test_the_hook_validates_the_folders_of_the_manifests_it_is_given() -> None:
    hook = [sys.executable, "-m", "corobench.benchmark.cli.hook"]
    manifest = str(ENTRIES / "digits-adv-dense" / "submission.toml")
    good = subprocess.run([*hook, manifest], capture_output=True, text=True, cwd=ROOT)
    assert good.returncode == 0 and "digits-adv-dense: manifest and header are valid" in good.stdout
    bad = subprocess.run([*hook, "tests/submission.toml"], capture_output=True, cwd=ROOT)
    assert bad.returncode == 2


def test_the_hook_sees_touched_weights(tmp_path: Path) -> None:
    """pre-commit calls the hook with the touched files that match its pattern."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    folder = tmp_path / "model"
    shutil.copytree(ENTRIES / "digits-adv-dense", folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "other.onnx").write_bytes(b"no entry's")
    touched = ["model/model.safetensors", "other.onnx", "notes.md"]
    matching = [file for file in touched if re.search(hook["files"], file)]
    assert matching == touched[:2]
    assert hook["entry"] == "corobench-hook"  # a console script, see pyproject.toml
    command = [sys.executable, "-m", "corobench.benchmark.cli.hook", *matching]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "model.safetensors: expected" in done.stdout, done.stdout
    nothing = subprocess.run([*command[:3], "other.onnx"], capture_output=True, cwd=tmp_path)
    assert nothing.returncode == 0


def test_the_templates_call_commands_that_exist() -> None:
    from corobench.benchmark.cli.gate import check

    known = {option for item in check.params for option in item.opts}
    for path in (ROOT / "action.yml", ROOT / "ci" / "gitlab-gate.yml"):
        (call,) = re.findall(r"corobench check [^\n]*(?:\\\n[^\n]*)*", path.read_text())
        assert set(re.findall(r"--[a-z-]+", call)) <= known, path
