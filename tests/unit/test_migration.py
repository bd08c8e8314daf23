"""Older result files: one of the first published ones, migrated; unknown schemas are refused.

``tests/golden/earlier`` holds a result as the first published ones were: an outcome table without
the columns of alpha-CROWN and branch and bound, a result file without ``contests``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import OutputError, ResultError
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.scoring import migration, rounds
from corobench.benchmark.scoring.ranking import why_unpublished
from corobench.benchmark.scoring.scored import scored

EARLIER = Path(__file__).parents[1] / "golden" / "earlier" / "1.0" / "digits"
TODAY = Path(__file__).parents[2] / "leaderboard" / "results" / "1.0" / "digits"
ENTRY = "digits-ibp-dense"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The result file of an earlier corobench, with its outcome table beside it."""
    folder = tmp_path / "results" / "1.0" / "digits"
    shutil.copytree(EARLIER, folder)
    return folder / f"{ENTRY}.json"


def test_an_earlier_table_is_refused_with_the_way_out(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["score", str(beside(earlier, "outcomes.parquet"))]) == 2
    said = capsys.readouterr().err
    assert "alpha_crown, bab" in said and "corobench migrate" in said


def test_migrating_keeps_every_number(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(earlier.read_text())
    assert invoke(["migrate", str(earlier)]) == 0
    said = capsys.readouterr().out
    assert "not asked: alpha-CROWN, BaB" in said and "nothing was written" in said
    assert json.loads(earlier.read_text()) == before

    assert invoke(["migrate", str(earlier), "--write"]) == 0
    after = json.loads(earlier.read_text())
    assert list(migration._changes(before, after)) == []
    recomputed = scored(beside(earlier, "outcomes.parquet"))
    assert encode_result(recomputed) == earlier.read_bytes()
    scores = after["epsilons"]["1/16"]["certified_by"]
    assert scores["alpha-CROWN"] is None and scores["BaB"] is None and scores["IBP"] > 0

    assert invoke(["migrate", str(earlier)]) == 0
    assert "is already in the current format" in capsys.readouterr().out


def test_what_was_evaluated_with_other_settings_is_not_ranked(earlier: Path) -> None:
    migration.migrate(earlier, write=True)
    (reason,) = why_unpublished(read_result(earlier))
    assert "closing_certifiers" in reason
    assert why_unpublished(read_result(TODAY / f"{ENTRY}.json")) == []


def test_todays_results_need_nothing() -> None:
    for path in sorted(TODAY.glob("*.json")):
        assert migration.migrate(path).steps == ()


def test_a_table_that_says_something_else_is_not_migrated(earlier: Path) -> None:
    payload = json.loads(earlier.read_text())
    payload["epsilons"]["1/16"]["autoattack"] += 1
    earlier.write_text(json.dumps(payload))
    content = earlier.read_bytes()
    with pytest.raises(ResultError, match=r"epsilons.1/16.autoattack: .* would become"):
        migration.migrate(earlier, write=True)
    assert earlier.read_bytes() == content


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (2, "a newer corobench"),
        (0, "it cannot be migrated"),
        ("1", "written by `corobench evaluate`"),
        (True, "written by `corobench evaluate`"),
        (None, "written by `corobench evaluate`"),
    ],
)
def test_unknown_schemas_are_refused(
    earlier: Path, schema: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier.write_text(json.dumps(json.loads(earlier.read_text()) | {"schema": schema}))
    for command in (["migrate", str(earlier)], ["migrate", str(earlier), "--write"]):
        assert invoke(command) == 2
        message = capsys.readouterr().err
        assert f"schema: expected 1, but found {schema!r}" in message and said in message
    with pytest.raises(ResultError, match="schema: expected 1"):
        read_result(earlier)


def test_a_bad_file_among_good_ones_and_nothing_is_written(earlier: Path) -> None:
    content = earlier.read_bytes()
    bad = earlier.with_name("bad.json")
    bad.write_text("[]")
    assert invoke(["migrate", str(earlier), str(bad), "--write"]) == 2
    assert earlier.read_bytes() == content


def test_a_step_between_schemas_is_taken(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain with a step of its own: schema 0 called the entry by another key."""
    payload = json.loads(earlier.read_text())
    payload |= {"schema": 0, "name": payload.pop("entry")}
    earlier.write_text(json.dumps(payload))

    def step(stored: migration.Stored) -> None:
        stored.payload["entry"] = stored.payload.pop("name")

    monkeypatch.setitem(migration.CHAIN, 0, step)
    steps = migration.migrate(earlier, write=True).steps
    assert steps[0] == "schema 0 to schema 1"
    assert read_result(earlier).entry == ENTRY


def test_a_frozen_round_is_not_migrated(earlier: Path) -> None:
    (earlier.parent.parent / rounds.SUMS).touch()
    with pytest.raises(OutputError, match="is frozen"):
        migration.migrate(earlier, write=True)
