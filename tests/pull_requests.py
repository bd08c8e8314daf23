"""Pull requests in folders of a test: the two checkouts, and the job that looks at them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from reissue import ROUND, reissue
from workflow_runner import EXPRESSION, Ran, recording_python, run_steps

ROOT = Path(__file__).parents[1]
RESULTS = Path("leaderboard") / "results" / ROUND / "digits"
PUBLISHED = ROOT / "leaderboard" / "results" / "1.0" / "digits"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=example", "-c", "user.email=example@example.org")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()


def make_workspace(tmp_path: Path) -> Path:
    """What the two checkouts leave: ``base`` and, with a branch for the request, ``request``."""
    base = tmp_path / "workspace" / "base"
    (base / RESULTS).mkdir(parents=True)
    for name in ("digits-ibp-dense", "digits-ibp-random-10x"):
        shutil.copytree(ROOT / "submissions" / name, base / "submissions" / name)
        reissue(PUBLISHED / f"{name}.json", base / RESULTS.parents[1])
    shutil.copy(ROOT / ".gitignore", base)
    shutil.copytree(ROOT / "ci", base / "ci")
    git(base, "init", "--quiet", "--initial-branch=main")
    commit(base, "The board")
    request = base.parent / "request"
    git(base.parent, "clone", "--quiet", str(base), str(request))
    git(request, "checkout", "--quiet", "-b", "entry")
    return base.parent


def pull_request(workspace: Path, full: bool = False) -> Ran:
    """Run the job "intake" on what the request's branch holds, which is a fork to the base."""
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/intake.yml").read_text())
    fork = workspace.parent / "fork"
    if fork.is_dir():  # asked before: what the job took out of it goes
        shutil.rmtree(workspace / "request")
        fork.rename(workspace / "request")
    head = commit(workspace / "request", "A new entry")
    job = workflow["jobs"]["intake"]
    (label,) = EXPRESSION.findall(str(job["steps"][-1]["env"]))
    assert "full evaluation" in label
    (workspace / "request").rename(fork)  # the runner has no checkout of it
    values = {
        "github.event.pull_request.base.sha": git(workspace / "base", "rev-parse", "HEAD").strip(),
        "github.event.pull_request.head.sha": head,
        "github.server_url": str(fork.parent),
        "github.repository": fork.name,
        label: "--full" if full else "",
    }
    tools = recording_python(workspace.parent / "tools")
    return run_steps(job["steps"], workspace, values, [tools])
