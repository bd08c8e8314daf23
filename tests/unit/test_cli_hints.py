"""What a newcomer gets wrong first: the message says what to name instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from reissue import reissue

from corobench.benchmark.cli.main import invoke

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "results" / "1.0" / "digits"
RESULT = PUBLISHED / "digits-adv-dense.json"


def test_score_of_a_folder_asks_for_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["score", str(PUBLISHED)]) == 2
    said = capsys.readouterr().err
    assert (
        f"{PUBLISHED}: expected an outcome table (*.outcomes.parquet), but found a folder" in said
    )


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["recheck", str(RESULT)], "--submission"),
        (["contest", str(RESULT), "found.npz"], "--submission"),
        (["drift", str(RESULT)], "NEW"),
    ],
)
def test_a_folder_that_is_not_here_can_be_named(
    arguments: list[str],
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(arguments) == 2
    said = capsys.readouterr().err
    assert "submissions/digits-adv-dense" in said and f"name it with {option}" in said


def test_recheck_says_that_certificates_of_older_rules_are_not_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PUBLISHED.parents[3])
    assert invoke(["recheck", str(RESULT), "--no-isolate"]) == 0
    assert "follow older rules and are not checked" in capsys.readouterr().out


def test_drift_between_rounds_names_the_setting_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = reissue(RESULT, tmp_path)
    assert invoke(["drift", str(RESULT), str(newer)]) == 2
    said = capsys.readouterr().err
    assert "settings: expected {'version': '1.0', 'crown_max_hidden_units': 20000} as in" in said
    assert "'version': '1.1'};" in said
