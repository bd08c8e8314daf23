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

from corobench.benchmark.records.result_set import ENDINGS, beside

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "leaderboard" / "results" / "1.0" / "digits"
ENTRIES = ROOT / "submissions"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example as its README makes it, as a repository with one commit."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "gate", folder)
    _shell(folder, *_readme_lines("mkdir", "cp -r submissions", "sed"))
    made = reissue(RESULTS / "digits-adv-lwm-10x.json", tmp_path / "results")
    for path in (made, *(beside(made, ending) for ending in ENDINGS)):
        shutil.copy(path, folder / "robustness" / path.name.replace("digits-adv-lwm-10x", "model"))
    _git(folder, "init", "--quiet")
    _commit(folder, "The shipped model and its robustness")
    return folder


def _readme_lines(*starts: str) -> list[str]:
    """Lines of the example's README that begin so; their place /tmp/gate is the project."""
    text = (ROOT / "examples" / "gate" / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith(starts)]
    assert len(lines) == len(starts)
    return [line.split(" && ")[0] for line in lines]


def _shell(project: Path, *lines: str) -> None:
    for line in lines:
        script = line.replace("/tmp/gate", str(project))
        subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, check=True)


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=example", "-c", "user.email=example@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def _commit(folder: Path, message: str) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", message)


def _run_action(
    project: Path, inputs: dict[str, str], tools: Path | None = None
) -> tuple[int, str, str]:
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
    places = [*([str(tools)] if tools else []), str(Path(sys.executable).parent)]
    path = os.pathsep.join([*places, os.environ["PATH"]])
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
    inputs = {"candidate": "model", "baseline": "robustness/model.json"}
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


def test_the_inputs_of_the_action_reach_the_command(project: Path, tmp_path: Path) -> None:
    """Data, device and the whole comparison, as a command that only notes what it is given."""
    tools = tmp_path / "tools"
    tools.mkdir()
    noting = tools / "corobench"
    noting.write_text('#!/bin/sh\nfor one in "$@"; do echo "<$one>"; done >> given.txt\n')
    noting.chmod(0o755)
    (tmp_path / "summary.md").write_text("")
    inputs = {"candidate": "model", "baseline": "robustness/model.json"}
    for more in ({}, {"data-root": "my data; touch owned", "device": "cuda", "whole": "true"}):
        code, said, _ = _run_action(project, inputs | more, tools)
        assert code == 0, said
    given = (project / "given.txt").read_text()
    first, second = given.split("<check>")[1:]
    assert "<--device>\n<cpu>" in first and "--whole" not in first and "--data-root" not in first
    assert "<--device>\n<cuda>" in second and "<--whole>" in second
    assert "<--data-root>\n<my data; touch owned>" in second
    assert not (project / "owned").exists()


def test_the_action_caches_packages_and_datasets() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [step for step in action["runs"]["steps"] if "uses" in step]
    assert step["uses"].startswith("actions/cache@")
    assert step["with"]["path"].split() == ["~/.cache/pip", "~/.cache/corobench/data"]
    names = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text()))
    assert names == set(action["inputs"])


def test_an_input_is_never_run_as_a_script(project: Path) -> None:
    path = "robustness/model.json; touch owned; #"
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
