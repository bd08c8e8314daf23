"""Three files are one set: killed at any step, a reader sees the old one, none, or the new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from killing import killed_at
from tables import make_run, make_table

from corobench.benchmark.errors import OutputError, ResultError
from corobench.benchmark.records.encoding import encode_outcomes, encode_result
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Result, Run
from corobench.benchmark.records.result_set import (
    ADVERSARIAL,
    ENDINGS,
    OUTCOMES,
    beside,
    staged,
    verify_set,
)
from corobench.benchmark.scoring.result_writing import finish_set, is_unfinished, write_set
from corobench.benchmark.scoring.score import score
from corobench.benchmark.scoring.scored import scored

OLD, NEW = np.zeros((3, 1, 8, 8), np.float32), np.ones((4, 1, 8, 8), np.float32)
#: More than a writing has; the test fails where that is not so.
MANY = 100


def _run(seed: int) -> Run:
    return make_run().model_copy(update={"seed": seed})


def _write(path: Path, seed: int, images: np.ndarray | None) -> Result:
    run = _run(seed)
    return write_set(path, make_table(run), run, images)


def _write_without_digests(path: Path, seed: int) -> None:
    """As corobench wrote results before they had digests."""
    run = _run(seed)
    table = make_table(run)
    path.write_bytes(encode_result(score(table, run)))
    beside(path, OUTCOMES).write_bytes(encode_outcomes(table, run))
    np.savez_compressed(beside(path, ADVERSARIAL), images=OLD)


@dataclass
class Place:
    """A place with a result of seed 0, or none, which is replaced by one of seed 1.

    Attributes:
        path: of the result file.
        sets: seed -> the three files, name -> content.
    """

    path: Path
    sets: dict[int, dict[str, bytes]]

    def fresh(self) -> None:
        for file in self.path.parent.iterdir():
            file.unlink()
        for name, content in self.sets[0].items():
            self.path.with_name(name).write_bytes(content)

    def replace(self) -> None:
        _write(self.path, 1, NEW)

    def seen(self) -> int | None:
        """Seed of the result that a strict reader accepts; None where there is no result file."""
        try:
            result = read_result(self.path)
        except ResultError:
            assert not self.path.exists()
            return None
        verify_set(self.path, result)
        for name, content in self.sets[result.seed].items():
            assert self.path.with_name(name).read_bytes() == content, f"{name} of another set"
        return result.seed

    def names(self) -> set[str]:
        return {file.name for file in self.path.parent.iterdir()}


PREPARED: dict[str, Callable[[Path], object]] = {
    "over a set": lambda path: _write(path, 0, OLD),
    "over a set without digests": lambda path: _write_without_digests(path, 0),
    "over nothing": lambda path: None,
}


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(params=PREPARED, ids=str)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("os.fsync", lambda handle: None)  # for time; a kill loses no written file
    path = tmp_path / "digits" / "test-entry@8.json"
    path.parent.mkdir()
    PREPARED[request.param](path)
    old = _files(path.parent)
    _write(path, 1, NEW)
    return Place(path, {0: old, 1: _files(path.parent)})


def _steps(place: Place) -> int:
    """After how many file operations the new set is there."""
    for step in range(MANY):
        place.fresh()
        if not killed_at(step, place.path.parent, place.replace):
            return step
    raise AssertionError(f"more than {MANY} file operations")


def test_killed_at_any_step_no_mixture_is_accepted(place: Place) -> None:
    num_steps = _steps(place)
    assert num_steps > 10
    seen = []
    for step in range(num_steps):
        place.fresh()
        assert killed_at(step, place.path.parent, place.replace)
        seen.append(place.seen())
        place.replace()  # the same command again
        assert place.seen() == 1
        assert len(place.names()) == 3, "a kill left files behind"
    there = [one for one in seen if one is not None]
    assert there == sorted(there), "the old set, then the new one, never back"
    assert seen[-1] == 1


def test_what_was_written_beside_its_place_is_finished(place: Place) -> None:
    """Once the old result file is gone, nothing is lost: the next writer finishes the new set."""

    place.fresh()
    before = place.seen()
    num_steps = _steps(place)
    for step in range(num_steps):
        place.fresh()
        assert killed_at(step, place.path.parent, place.replace)
        seen = place.seen()
        if finish_set(place.path):
            assert len(place.names()) == 3, "half a file was left behind"
        after = place.seen()
        assert after in (before, 1)
        if seen is None:
            assert after == 1 or before is None
        assert not is_unfinished(place.path)
        assert not finish_set(place.path)


def test_killed_while_finishing(place: Place) -> None:
    first = next(
        step
        for step in range(_steps(place))
        if place.fresh() is None
        and killed_at(step, place.path.parent, place.replace)
        and staged(place.path, "json").exists()
    )
    for step in range(MANY):
        place.fresh()
        assert killed_at(first, place.path.parent, place.replace)
        if not killed_at(step, place.path.parent, lambda: finish_set(place.path)):
            break
        assert place.seen() in (None, 0, 1)
        finish_set(place.path)
        assert place.seen() == 1 and not is_unfinished(place.path)
    assert step > 5


def test_another_writer_that_clears_away_what_is_half_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits" / "test-entry@8.json"
    _write(path, 0, OLD)

    def clear(handle: int) -> None:
        for file in path.parent.glob(".*"):
            file.unlink()

    monkeypatch.setattr("os.fsync", clear)
    with pytest.raises(OutputError, match="another process is writing the same result"):
        _write(path, 1, NEW)
    assert read_result(path).seed == 0


def test_a_full_disk_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test-entry@8.json"
    _write(path, 0, OLD)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("corobench.benchmark.files.atomic.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        _write(path, 1, NEW)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("how", ["another set's", "cut", "missing"])
def test_a_set_of_other_files_is_refused(ending: str, how: str, tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", tmp_path / "b.json"
    result = _write(path, 0, OLD)
    _write(other, 1, NEW)
    verify_set(path, result)
    file = beside(path, ending)
    if how == "missing":
        file.unlink()
        assert read_result(path) == result  # a result file may be read alone
    else:
        content = beside(other, ending).read_bytes() if how != "cut" else file.read_bytes()[:-1]
        file.write_bytes(content)
        with pytest.raises(ResultError, match="do not belong together"):
            read_result(path)
    with pytest.raises(ResultError, match="`corobench evaluate` on the entry again") as caught:
        verify_set(path, result)
    assert file.name in caught.value.message


def test_digests_are_required_from_protocol_1_1_on(tmp_path: Path) -> None:
    path = tmp_path / "test-entry@8.json"
    _write_without_digests(path, 0)
    result = read_result(path)
    assert b'"files"' not in path.read_bytes()
    verify_set(path, result)
    new = result.model_copy(update={"protocol": "1.1"})
    with pytest.raises(ResultError, match=r"files\.outcomes\.parquet: expected its sha256"):
        verify_set(path, new)
    path.write_bytes(encode_result(new))
    with pytest.raises(ResultError, match=r"files\.adversarial\.npz"):
        read_result(path)


def test_the_table_gives_the_result_file_with_its_digests(tmp_path: Path) -> None:
    path = tmp_path / "test-entry@8.json"
    result = _write(path, 0, OLD)
    assert set(result.files or {}) == set(ENDINGS)
    assert encode_result(scored(beside(path, OUTCOMES))) == path.read_bytes()


def test_images_of_another_set_are_not_covered_up(tmp_path: Path) -> None:
    """Writing the table alone keeps the images, and takes no others for its own."""
    path = tmp_path / "test-entry@8.json"
    written = _write(path, 0, OLD)
    table, run = read_outcomes(beside(path, OUTCOMES))
    assert write_set(path, table, run) == written
    np.savez_compressed(beside(path, ADVERSARIAL), images=NEW)
    with pytest.raises(ResultError, match="differs from the outcome table"):
        write_set(path, table, run)
    beside(path, ADVERSARIAL).unlink()
    with pytest.raises(ResultError, match="is missing"):
        write_set(path, table, run)


def test_an_interrupted_result_says_so(place: Place) -> None:
    for step in range(_steps(place)):
        place.fresh()
        killed_at(step, place.path.parent, place.replace)
        if not place.path.exists() and staged(place.path, "json").exists():
            break
    with pytest.raises(ResultError, match="give the same command again to finish it"):
        read_result(place.path)
