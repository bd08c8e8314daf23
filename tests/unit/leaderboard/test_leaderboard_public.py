"""What a public site may hold: no quick result, however it calls itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from leaderboard_factory import make_compactness, make_raw, make_score

from benchmark.cli import invoke
from benchmark.records import Result
from benchmark.scoring import may_rank, rank_key, why_unpublished
from leaderboard.boards import group_results


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
    tmp_path: Path, more: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "results", entry="fine")
    path = _write(tmp_path / "results", entry="hasty", **more)
    command = ["render", str(tmp_path / "results"), "--out", str(tmp_path / "site")]
    assert invoke([*command, "--public"]) == 2
    message = capsys.readouterr().err
    assert str(path) in message and said in message and "fine" not in message
    assert not (tmp_path / "site").exists()

    assert invoke(command) == 0, "for a look of one's own it stands apart"
    result = Result.model_validate_json(path.read_text())
    fine = Result.model_validate_json(_write(tmp_path / "results", entry="fine").read_text())
    assert not may_rank(result) and may_rank(fine)
    groups = group_results([result, fine])
    assert [group.ranked for group in groups] == [True, False]
    path.unlink()
    assert invoke([*command, "--public"]) == 0


def test_a_result_of_the_tracks_setting_may_be_published() -> None:
    assert why_unpublished(Result.model_validate(make_raw())) == []


def test_the_stated_order_of_a_board() -> None:
    """More certified, then more not attacked, then fewer non-zeros; not asked comes last."""

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
