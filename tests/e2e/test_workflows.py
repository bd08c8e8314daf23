"""The workflows of pull requests and of the pages, and the GitLab template, run step by step.

Somebody else's actions (checkout, setup-python) are done by the tests; every ``run`` and ``script``
is the file's own text.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from pull_requests import PUBLISHED, RESULTS, ROOT, git, pull_request
from workflow_runner import EXPRESSION, Ran, recording_python, run_shell, run_steps

from corobench.benchmark.evaluation.evaluate import evaluate
from corobench.benchmark.evaluation.settings import Settings

OLD = Path("leaderboard") / "results" / "1.0" / "digits"
NEW = "digits-ibp-lwm-10x"
ENDINGS = ("json", "outcomes.parquet", "adversarial.npz")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the new entry's result, as `evaluate` writes it today."""
    out = tmp_path_factory.mktemp("evaluated")
    return evaluate(ROOT / "submissions" / NEW, Settings(out=out)).path.parent


def hand_in(workspace: Path, results: Path | None = None) -> None:
    """Add an entry with its result, as a stranger would.

    Args:
        workspace: of the two checkouts.
        results: folder of the result; by default the old one, where nothing of it is read.
    """
    request = workspace / "request"
    shutil.copytree(ROOT / "submissions" / NEW, request / "submissions" / NEW)
    for ending in ENDINGS:
        shutil.copy((results or PUBLISHED) / f"{NEW}.{ending}", request / RESULTS)


def test_no_code_of_a_pull_request_can_run_in_the_workflow_that_judges_it() -> None:
    """The file is the base branch's, and so is all that it checks out, installs and calls."""
    text = (ROOT / ".github/workflows/intake.yml").read_text()
    workflow = yaml.safe_load(text)
    assert list(workflow[True]) == ["pull_request_target"], "else a request brings its own file"
    assert workflow[True]["pull_request_target"]["branches"] == ["main"]
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets" not in yaml.safe_dump(workflow) and "github.token" not in text
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job and "cache" not in yaml.safe_dump(workflow)
    used = [step for step in job["steps"] if "uses" in step]
    assert [step["uses"].split("@")[0] for step in used] == [
        "actions/checkout",
        "actions/setup-python",
    ]
    assert used[0]["with"] == {
        "ref": "${{ github.event.pull_request.base.sha }}",
        "path": "base",
        "fetch-depth": 0,
        "persist-credentials": False,
    }
    of_the_request = {
        one for one in EXPRESSION.findall(text) if "pull_request.head" in one or "title" in one
    }
    assert of_the_request == {"github.event.pull_request.head.sha"}
    for step in job["steps"]:
        script = step.get("run", "")
        assert "${{" not in script, "an expression in a script could run as code"
        assert "checkout" not in script and "submodule update" not in script
        for line in script.splitlines():
            if line.startswith("python"):
                assert "./base" in line or " base/ci/" in line or "auto_LiRPA" in line
            assert "request/" not in line.split(" ")[0]


def test_a_new_entry_by_pull_request(workspace: Path, results: Path) -> None:
    hand_in(workspace, results)
    ran = pull_request(workspace)
    assert ran.code == 0, ran.said
    assert f"corobench: {NEW} on digits, n = 100" in ran.summary
    assert f"{NEW}.json is confirmed: all 500 predictions" in ran.summary
    assert "agrees with it on 100 images" in ran.summary
    (line,) = [line for line in ran.summary.splitlines() if line.startswith("+ ")]
    assert line.startswith(f"+ {NEW}")
    installed = (workspace.parent / "tools" / "pip.txt").read_text()
    assert installed.splitlines()[0] == "-m pip install ./base[evaluate]"
    assert git(workspace / "base", "status", "--porcelain") == ""
    taken = {path.relative_to(workspace / "request") for path in _files(workspace / "request")}
    board = {path.relative_to(workspace / "base") for path in _files(workspace / "base")}
    own = {f"{NEW}.{ending}" for ending in ENDINGS} | {"submission.toml", "model.safetensors"}
    assert {path.name for path in taken - board} == own | {"changed.txt"}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]


def _spoil(workspace: Path, spoil: str) -> None:
    request = workspace / "request"
    random = request / "submissions" / "digits-ibp-random-10x"
    if spoil == "result only":
        shutil.copy(PUBLISHED / f"{NEW}.json", request / RESULTS)
        return
    if spoil == "taken":
        source = ROOT / "submissions" / NEW / "model.safetensors"
        shutil.copy(source, random / "model.safetensors")
        return
    if spoil == "copied":
        shutil.copytree(random, request / "submissions" / "mine")
        path = request / "submissions" / "mine" / "submission.toml"
        path.write_text(path.read_text().replace('id = "digits-ibp-random-10x"', 'id = "mine"'))
        return
    hand_in(workspace)
    if spoil == "code":
        (request / "benchmark").mkdir()
        (request / "benchmark" / "__init__.py").write_text("print('owned')")
    elif spoil == "workflow":
        (request / ".github" / "workflows").mkdir(parents=True)
        (request / ".github" / "workflows" / "intake.yml").write_text("on: push")
    elif spoil == "script":
        (request / "ci" / "request.py").write_text("print('owned')")
    elif spoil == "another result":
        shutil.copy(request / RESULTS / f"{NEW}.json", request / RESULTS / "digits-ibp-dense.json")
    elif spoil == "a new result of another":
        target = request / RESULTS / "digits-ibp-dense@500.json"
        shutil.copy(request / RESULTS / f"{NEW}.json", target)
    elif spoil == "removed":
        (request / RESULTS / "digits-ibp-dense.json").unlink()
    elif spoil == "symlink":
        (request / "submissions" / NEW / "notes.md").symlink_to("/etc/passwd")
    elif spoil == "symlinked result":
        (request / RESULTS / f"{NEW}.json").unlink()
        (request / RESULTS / f"{NEW}.json").symlink_to("digits-ibp-dense.json")
    elif spoil == "attributes":
        (request / "submissions" / NEW / ".gitattributes").write_text("* filter=owned")
    elif spoil == "two entries":
        shutil.copytree(ROOT / "submissions" / "digits-adv-dense", request / "submissions" / "b")
    else:
        assert spoil == "executable"
        (request / "submissions" / NEW / "submission.toml").chmod(0o755)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("code", "benchmark/__init__.py: is not part of the entry"),
        ("workflow", ".github/workflows/intake.yml: is not part of the entry"),
        ("script", "ci/request.py: is not part of the entry"),
        ("another result", "digits-ibp-dense.json: already exists and is changed"),
        ("a new result of another", f"is a result of another entry than '{NEW}'"),
        ("removed", "digits-ibp-dense.json: already exists and is changed (D)"),
        ("symlink", "expected a regular file (mode 100644), but found 120000"),
        ("symlinked result", "expected a regular file (mode 100644), but found 120000"),
        ("attributes", ".gitattributes: is not part of the entry"),
        ("two entries", f"expected one entry, but found b, {NEW}"),
        ("executable", "expected a regular file (mode 100644), but found 100755"),
        ("result only", "results change without an entry"),
        ("taken", "already exists"),
        ("copied", "the same effective weights as digits-ibp-random-10x"),
    ],
)
def test_what_a_pull_request_may_not_do(workspace: Path, spoil: str, said: str) -> None:
    """Each is refused before anything is evaluated, and all but a copy before anything is read."""
    _spoil(workspace, spoil)
    ran = pull_request(workspace)
    assert ran.code in (1, 2), ran.said
    assert said in ran.said and "owned" not in ran.said
    assert ran.summary == "" and not (workspace / "build").exists()
    if spoil != "copied":
        assert not (workspace / "request" / "submissions").exists()


def test_the_gitlab_template(tmp_path: Path) -> None:
    """The job as GitLab runs it: variables in the environment, before_script, script."""
    job = yaml.safe_load((ROOT / "ci" / "gitlab-gate.yml").read_text())["corobench-gate"]
    project = tmp_path / "project"
    project.mkdir()
    for name in ("robustness", "candidate"):
        entry = "digits-ibp-lwm-10x" if name == "robustness" else "digits-ibp-random-10x"
        for ending in ENDINGS:
            shutil.copy(PUBLISHED / f"{entry}.{ending}", project / f"{name}.{ending}")
    variables = {key: str(value) for key, value in job["variables"].items()}
    assert variables["BASELINE"] == "robustness/model.json"
    variables |= {"CI": "true", "GITLAB_CI": "true", "CANDIDATE": "candidate.json"}
    variables |= {"BASELINE": "robustness.json", "CI_SERVER_URL": "https://git.example.org"}
    variables |= {"CI_PROJECT_DIR": str(project)}
    tools = recording_python(tmp_path / "tools")
    script = "\n".join([*job["before_script"], *job["script"]])
    done = run_shell(script, project, variables, [tools])
    assert done.returncode == 2 and "Set COROBENCH_PROJECT" in done.stderr
    assert not (tmp_path / "tools" / "pip.txt").exists(), "no package of a stranger's is installed"
    variables["COROBENCH_PROJECT"] = "group/corobench"
    done = run_shell(script, project, variables, [tools])
    assert done.returncode == 1, done.stderr
    assert "FAIL" in done.stdout
    installed = (tmp_path / "tools" / "pip.txt").read_text()
    address = "git+https://git.example.org/group/corobench.git"
    assert installed.startswith(f"-m pip install corobench[evaluate] @ {address}\n")
    for path in [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]:
        assert (project / path).stat().st_size > 0
    variables["CANDIDATE"] = "robustness.json"
    assert run_shell(script, project, variables, [tools]).returncode == 0


def publish(workspace: Path) -> Ran:
    """Run the job "publish" on what the workspace holds."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text())
    values = {
        "steps.pages.outputs.base_url": "https://example.org/board",
        "github.server_url": "https://example.com",
        "github.repository": "some/where",
    }
    tools = recording_python(workspace.parent / "tools")
    return run_steps(workflow["jobs"]["publish"]["steps"], workspace, values, [tools])


def test_the_pages_are_published(tmp_path: Path) -> None:
    """Each step in its order; what is uploaded is what was rendered, with its public address."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text())
    steps = workflow["jobs"]["publish"]["steps"]
    assert [step["uses"].split("@")[0] for step in steps if "uses" in step] == [
        "actions/checkout",
        "actions/setup-python",
        "actions/configure-pages",
        "actions/upload-pages-artifact",
        "actions/deploy-pages",
    ]
    assert workflow["permissions"] == {"contents": "read", "pages": "write", "id-token": "write"}
    assert "main" in workflow[True]["push"]["branches"]
    assert all("${{" not in step.get("run", "") for step in steps)
    workspace = tmp_path / "workspace"
    shutil.copytree(PUBLISHED, workspace / OLD)
    ran = publish(workspace)
    assert ran.code == 0, ran.said
    assert (tmp_path / "tools" / "pip.txt").read_text() == "-m pip install -e .\n"
    (uploaded,) = [step["with"]["path"] for step in steps if "upload" in step.get("uses", "")]
    site = workspace / uploaded
    assert (site / "boards" / "digits-1.0-n500-eps2-16.html").is_file()
    assert 'href="https://example.org/board/entries/' in (site / "feed.xml").read_text()
    assert "https://example.com/some/where/blob/main/" in (site / "method.html").read_text()


def test_nothing_quick_is_published(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(PUBLISHED, workspace / OLD)
    path = workspace / OLD / f"{NEW}.json"
    path.write_text(path.read_text().replace('"quick": false', '"quick": true'))
    ran = publish(workspace)
    assert ran.code == 2, ran.said
    assert "these results cannot be published" in ran.said
    assert not (workspace / "build" / "site").exists()
