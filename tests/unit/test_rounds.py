"""Frozen rounds: what may be frozen, and that a frozen round does not change unnoticed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from reissue import reissue

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import OutputError, ResultError
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.scoring import ranking, rounds
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.tracks import PROTOCOL, round_of
from corobench.leaderboard.build import build_site

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "leaderboard" / "results"
ENTRY = "digits-ibp-random-10x"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A round with one published result."""
    place = tmp_path / "results" / "1.0" / "digits"
    place.mkdir(parents=True)
    for path in (RESULTS / "1.0" / "digits").glob(f"{ENTRY}.*"):
        shutil.copy(path, place)
    return place.parent


def _change(path: Path, **more: object) -> None:
    """Write a result and its outcome table again, with other keys; both agree."""
    table, run = read_outcomes(beside(path, "outcomes.parquet"))
    write_set(path, table, run.model_copy(update=more))


def test_a_frozen_round_that_is_untouched(folder: Path) -> None:
    assert invoke(["freeze", str(folder)]) == 0
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 3
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert invoke(["freeze", str(folder), "--check"]) == 0
    build_site([folder.parent], folder.parent.parent / "site")


@pytest.mark.parametrize("how", ["changed", "added", "removed"])
def test_a_frozen_round_does_not_change_unnoticed(
    folder: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["freeze", str(folder)]) == 0
    images = folder / "digits" / f"{ENTRY}.adversarial.npz"
    result = folder / "digits" / f"{ENTRY}.json"
    if how == "changed":
        result.write_text(result.read_text().replace('"attack": ', '"attack": 1'))
        said = f"{ENTRY}.json: differs from the frozen round"
    elif how == "added":
        shutil.copy(result, folder / "digits" / f"{ENTRY}-2.json")
        said = f"{ENTRY}-2.json: was added"
    else:
        images.unlink()
        said = f"{ENTRY}.adversarial.npz: is missing"
    capsys.readouterr()
    assert invoke(["freeze", str(folder), "--check"]) == 2
    assert said in capsys.readouterr().err
    if how != "added":
        with pytest.raises(ResultError, match="frozen round"):
            build_site([folder.parent], folder.parent.parent / "site")
        assert not (folder.parent.parent / "site").exists()


def test_nothing_is_written_into_a_frozen_round(folder: Path, tmp_path: Path) -> None:
    result = folder / "digits" / f"{ENTRY}.json"
    rounds.freeze(folder)
    today = reissue(result, folder.parent).parents[1]
    rounds.freeze(today)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    entry = str(ROOT / "submissions" / ENTRY)
    outcomes = str(beside(result, "outcomes.parquet"))
    for command in (
        ["evaluate", entry, "--subset", "20", "--out", str(folder.parent)],
        ["contest", str(result), str(tmp_path / "x.npz"), "--submission", entry, "--write"],
        ["score", outcomes, "--write"],
    ):
        assert invoke(command) == 2, command
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert sorted(path.name for path in today.iterdir()) == ["SHA256SUMS", "digits"]
    assert rounds.changes(today) == []
    with pytest.raises(OutputError, match=r"remove .*SHA256SUMS to open it again"):
        rounds.require_open(folder / "digits")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"quick": True}, "quick: true"),
        ({"protocol": "1.1"}, "protocol: expected '1.0' as in the file's path, found '1.1'"),
        ({"settings": {"pgd_steps": 10}}, "settings: not those of protocol"),
    ],
)
def test_what_may_not_be_ranked_is_not_frozen(
    folder: Path, more: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(folder / "digits" / f"{ENTRY}.json", **more)
    assert invoke(["freeze", str(folder)]) == 2
    assert said in capsys.readouterr().err
    assert not rounds.is_frozen(folder)


def test_a_result_that_is_not_its_table_is_not_frozen(folder: Path) -> None:
    path = folder / "digits" / f"{ENTRY}.json"
    result = read_result(path)
    path.write_bytes(encode_result(result.model_copy(update={"seed": 5})))
    with pytest.raises(ResultError, match="differs from the scorecard") as caught:
        rounds.freeze(folder)
    assert "seed: 5 in the result, 0 in the table" in caught.value.message


@pytest.mark.parametrize("name", ["results", "1.0", "one"])
def test_a_folder_that_is_no_round(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ResultError, match="expected"):
        rounds.freeze(tmp_path / name)
    with pytest.raises(ResultError, match="not frozen"):
        rounds.changes(tmp_path / name)


def test_broken_checksums_are_named(folder: Path) -> None:
    (folder / rounds.SUMS).write_text("nonsense\n")
    with pytest.raises(ResultError, match="line 1"):
        rounds.changes(folder)


def test_published_rounds_are_as_they_were_frozen_and_old_ones_are_frozen() -> None:
    folders = {path.parent.parent for path in RESULTS.glob("*/*/*.json")}
    assert len(folders) > 1
    for one in folders:
        assert rounds.is_frozen(one) or one.name == round_of(PROTOCOL), f"corobench freeze {one}"
        assert not rounds.is_frozen(one) or rounds.changes(one) == []


def test_a_third_number_of_the_protocol_changes_no_round(folder: Path, tmp_path: Path) -> None:
    """1.0.1 stands on the board of 1.0, and is compared with it; 1.1 is not."""
    from corobench.benchmark.gate.rule import Rule
    from corobench.benchmark.gate.run import compare_with_baseline

    path = folder / "digits" / f"{ENTRY}.json"
    published = RESULTS / "1.0" / "digits" / path.name
    _change(path, protocol="1.0.1")
    _change(path, identity=identity_of(read_result(path)))
    assert compare_with_baseline(path, published, Rule(), even_if_equal=True).n == 500
    assert ranking.why_unpublished(read_result(path)) == []
    build_site([folder.parent], tmp_path / "site")
    _change(path, protocol="1.1")
    with pytest.raises(ResultError, match=r"protocol: expected '1\.0'"):
        compare_with_baseline(path, published, Rule())
