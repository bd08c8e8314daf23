"""A researcher's whole way: from the template to a place on the board, as the README tells it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pull_requests import PUBLISHED, RESULTS, git, pull_request
from reissue import ROUND

from corobench.benchmark.records.reading.result_file import read_result

ROOT = Path(__file__).parents[2]
ENTRY = "newcomer"
CLI = [sys.executable, "-m", "corobench"]

#: What a newcomer writes: eight epochs against one step in the larger ball.
TRAIN = """
import sys
import torch
from torch.nn.functional import cross_entropy
from corobench.benchmark.data import load_train
from corobench.benchmark.submission.architectures import build

torch.manual_seed(1)
train = load_train("digits")
images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
model = build("cnn-small", (1, 8, 8), 10, {"width": 0.25})
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(8):
    for batch in torch.randperm(len(labels)).split(64):
        x, y = images[batch], labels[batch]
        start = (x + (2 * torch.rand_like(x) - 1) / 8).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(start), y), start)
        moved = (start + 0.15 * gradient.sign()).detach()
        attacked = torch.max(torch.min(moved, x + 1 / 8), x - 1 / 8).clamp(0, 1)
        loss = cross_entropy(model(attacked), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
torch.save(model.state_dict(), sys.argv[1])
"""


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([*CLI, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_templates_readme_leads_there() -> None:
    """The commands below are those the documents name."""
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    for command in ("import", "validate", "evaluate", "render", "intake"):
        assert f"corobench {command} " in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_the_template_to_the_board(workspace: Path, tmp_path: Path) -> None:
    request = workspace / "request"
    checkpoint, folder = tmp_path / "model.pt", request / "submissions" / ENTRY
    subprocess.run([sys.executable, "-c", TRAIN, str(checkpoint)], check=True)
    known = ["--architecture", "cnn-small", "--track", "digits", "--width", "0.25"]
    run(request, "import", str(checkpoint), *known, "--out", str(folder))
    assert "valid" in run(request, "validate", str(folder))

    # The manifest still says "unknown"; the template says what belongs there.
    said = run(request, "intake", str(folder), code=2)
    assert all(key in said for key in ("`licence`", "`method.pretrain_objective`"))
    template = (ROOT / "submissions" / "_template" / "submission.toml").read_text()
    for key in ("schema", "id", "title", "authors", "licence", "track"):
        assert re.search(rf"^{key} = ", template, re.MULTILINE)
    manifest = template.replace('id = "template"', f'id = "{ENTRY}"').replace(
        'pretrain_objective = "natural"', 'pretrain_objective = "fast-at"'
    )
    (folder / "submission.toml").write_text(manifest)
    assert "valid" in run(request, "validate", str(folder))

    quick = run(request, "evaluate", str(folder), "--subset", "100", "--out", str(tmp_path / "q"))
    assert "quick, not ranked" in quick
    run(request, "evaluate", str(folder), "--out", "leaderboard/results")
    site = tmp_path / "site"
    run(request, "render", "leaderboard/results", "--out", str(site))
    assert ENTRY in (site / "index.html").read_text()

    ran = pull_request(workspace)
    assert ran.code == 0, ran.said
    assert "agrees with it on 100 images" in ran.summary and f"+ {ENTRY}" in ran.summary

    # The label of a maintainer, then the merge, and the board as everybody sees it.
    ran = pull_request(workspace, full=True)
    assert ran.code == 0, ran.said
    assert "agrees with it on 500 images" in ran.summary
    base = workspace / "base"
    git(
        base,
        "merge",
        "--quiet",
        git(base, "fetch", "--quiet", str(workspace.parent / "fork"), "entry") or "FETCH_HEAD",
    )
    run(base, "render", "leaderboard/results", "--out", str(site))
    result = read_result(base / RESULTS / f"{ENTRY}.json")
    assert not result.quick and result.n == 500
    assert (site / "entries" / ROUND / "digits" / f"{ENTRY}.n500.html").is_file()


@pytest.mark.slow
def test_what_the_workflow_installs_works(tmp_path: Path) -> None:
    """``pip install ./base`` without an index: the wheel holds commands, templates and recipes."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    target = tmp_path / "site-packages"
    source = tmp_path / "base"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(source))
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(target), str(source)], check=True
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import corobench.benchmark;"
        "print(corobench.benchmark.__file__); from corobench.benchmark.cli.main import invoke;"
        "sys.exit(invoke(sys.argv[1:]))"
    )
    results = str(ROOT / "leaderboard" / "results")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(target), "render", results, "--out", "site"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target))
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_working_folder_may_have_a_leaderboard_folder_of_its_own(tmp_path: Path) -> None:
    """Python then takes it for a part of the package, where that is installed as editable."""
    own = tmp_path / "leaderboard" / "results" / "1.0" / "digits"
    own.mkdir(parents=True)
    for entry in ("digits-adv-dense", "digits-adv-lwm-10x"):
        for file in PUBLISHED.glob(f"{entry}.*"):
            shutil.copy(file, own / file.name)
    run(tmp_path, "render", "leaderboard/results", "--out", "site")
    run(tmp_path, "report", "leaderboard/results", "--out", "report.md")
    assert (tmp_path / "site" / "assets" / "style.css").is_file()
    assert "digits-adv-dense" in (tmp_path / "report.md").read_text()
