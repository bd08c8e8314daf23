"""What a public site may hold: no quick result, however it calls itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from leaderboard_factory import make_compactness, make_raw, make_score

from corobench.benchmark.cli import quickstart
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.ranking import may_rank, rank_key, why_unpublished
from corobench.leaderboard.boards import group_results
from corobench.leaderboard.citation import bibtex, latex_row


def _write(folder: Path, **more: object) -> Path:
    raw = make_raw(**more)
    stem = raw["entry"] if raw["n"] == 500 else f"{raw['entry']}@{raw['n']}"
    path = folder / "1.0" / "digits" / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"quick": True}, "quick: true"),
        ({"n": 100, "quick": False}, "n: expected a ranked subset (500), but found 100"),
        ({"settings": {"pgd_steps": 10}}, "settings: not those of protocol 1.0"),
    ],
)
def test_quick_results_stay_off_a_public_site(
    tmp_path: Path,
    more: dict,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _write(tmp_path / "results", entry="fine")
    path = _write(tmp_path / "results", entry="hasty", **more)
    site = tmp_path / "site"
    command = ["render", str(tmp_path / "results"), "--out", str(site)]
    assert invoke(command) == 2
    message = capsys.readouterr().err
    assert f"{path}: {said}" in message and "fine" not in message and "--quick" in message
    assert not site.exists()

    assert invoke([*command, "--quick"]) == 0, "for a look of one's own it stands apart"
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "This site is not to be published" in text and "noindex" in text, page
    tables = [pd.read_csv(file).set_index("entry") for file in site.glob("boards/*.csv")]
    told = pd.concat(tables)["quick"]
    assert told["hasty"].all() and not told["fine"].any()
    result = Result.model_validate_json(path.read_text())
    fine = Result.model_validate_json(_write(tmp_path / "results", entry="fine").read_text())
    assert not may_rank(result) and may_rank(fine)
    groups = group_results([result, fine])
    assert [group.ranked for group in groups] == [True, False]
    path.unlink()
    assert invoke([*command, "--quick"]) == 0, "the same bytes as without the option"
    before = {file: file.read_bytes() for file in site.rglob("*") if file.is_file()}
    assert invoke(command) == 0
    assert before == {file: file.read_bytes() for file in site.rglob("*") if file.is_file()}
    assert "not to be published" not in (site / "index.html").read_text()


def test_a_report_takes_no_quick_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "results", entry="hasty", n=100)
    assert invoke(["report", str(tmp_path / "results"), "--out", str(tmp_path / "r.md")]) == 2
    assert f"{path}: quick: true" in capsys.readouterr().err
    assert not (tmp_path / "r.md").exists()


def test_citations_of_a_quick_result_say_so() -> None:
    (group,) = group_results([Result.model_validate(make_raw(n=100))])
    row = group.boards[0].rows[0]
    assert "(quick, n = 100)" in latex_row(row)
    assert "n = 100, quick, not ranked" in bibtex(row)
    (group,) = group_results([Result.model_validate(make_raw())])
    assert "quick" not in latex_row(group.boards[0].rows[0]) + bibtex(group.boards[0].rows[0])


def test_no_two_results_of_an_entry_share_a_key() -> None:
    raws = [make_raw(), make_raw(n=100), make_raw() | {"protocol": "1.1"}]
    groups = group_results([Result.model_validate(raw) for raw in raws])
    keys = [bibtex(group.boards[0].rows[0]).splitlines()[0] for group in groups]
    assert len(set(keys)) == 3
    assert all(key.startswith("@misc{corobench:1.") for key in keys)


def test_the_workflow_that_publishes_does_not_ask_for_quick_results() -> None:
    workflow = Path(__file__).parents[3] / ".github" / "workflows" / "pages.yml"
    (call,) = [line for line in workflow.read_text().splitlines() if "corobench render" in line]
    assert "--quick" not in call


def test_the_quickstart_shows_what_an_earlier_quick_run_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "results", entry="fine")
    _write(tmp_path / "results", entry="fine", n=100)
    monkeypatch.setattr(quickstart, "plan", lambda *_: [])
    page = quickstart.run(tmp_path)
    assert "This site is not to be published" in page.read_text()


def test_a_result_of_the_tracks_setting_may_be_published() -> None:
    assert why_unpublished(Result.model_validate(make_raw())) == []


@pytest.mark.parametrize("protocol", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "other",
    [
        {"plain_attacks": True},
        {"plain_attacks": None},
        {"max_subdomains": 4000},
        {"of_tomorrow": 1},
        {"pgd_steps": 50.5},
        {"pgd_steps": 50.0},  # equal for Python, and another text in the file
        {"version": "0.9"},
    ],
)
def test_a_setting_that_no_round_has_keeps_a_result_from_the_board(
    protocol: str, other: dict[str, Any]
) -> None:
    raw = make_raw(protocol=protocol)
    raw["settings"] = raw["settings"] | other
    raw["identity"] = identity_of(Result.model_validate(raw))
    (reason,) = why_unpublished(Result.model_validate(raw))
    assert reason == f"settings: not those of protocol {protocol}: {next(iter(other))}"


def test_a_result_has_the_identity_of_its_run() -> None:
    for other in ({"identity": ""}, {"identity": "0" * 64}, {"device": "a faster one"}):
        raw = make_raw() | other
        (reason,) = why_unpublished(Result.model_validate(raw))
        assert reason.startswith("identity: not that of its protocol, track, n,")


def test_every_published_result_has_the_settings_of_its_round() -> None:
    """Those of 1.0, and the first of 1.1, name a limit that a budget replaced."""
    paths = sorted((Path(__file__).parents[3] / "leaderboard" / "results").glob("1.?/*/*.json"))
    for path in paths:
        assert why_unpublished(read_result(path)) == [], path
    assert len(paths) > 150


def test_the_stated_order_of_a_board() -> None:
    """More proven, then more unbroken, then fewer non-zeros; not asked comes last."""

    def made(certified: int, attacked: int, keep: float = 0.1, asked: bool = True) -> Result:
        score = make_score(500, 480, certified=certified, attacked=attacked)
        if not asked:
            score["certified_by"] = dict.fromkeys(score["certified_by"])
        raw = make_raw(epsilons={"1/16": score}, compactness=make_compactness(keep_ratio=keep))
        return Result.model_validate(raw)

    ordered = [
        made(300, 100),
        made(200, 50),
        made(200, 60, keep=0.1),
        made(200, 60, keep=0.2),
        made(0, 10),
        made(0, 5, asked=False),
    ]
    keys = [rank_key(result, "1/16") for result in ordered]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
