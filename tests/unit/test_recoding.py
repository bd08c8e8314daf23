"""`corobench migrate --images`: nothing changes but the space, frozen rounds included."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from reissue import reissue

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import DatasetError, OutputError
from corobench.benchmark.evaluation.evidence import find_damage, load_adversarial
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.records.reading.coded_images import is_coded
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import (
    ADVERSARIAL,
    ENDINGS,
    OUTCOMES,
    beside,
    verify_set,
)
from corobench.benchmark.review import recoding
from corobench.benchmark.review.recoding import recode
from corobench.benchmark.scoring import rounds
from corobench.leaderboard.build import build_site

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "leaderboard" / "results"
ENTRY = "digits-ibp-random-10x"
SOURCE = RESULTS / "1.0" / "digits" / f"{ENTRY}.json"


def _plain(path: Path) -> Path:
    """The same result with its images stored whole, as every result was at first."""
    images = load_adversarial(path)
    np.savez_compressed(beside(path, ADVERSARIAL), images=images)
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A result of round 1.0, which has no digests."""
    folder = tmp_path / "results" / "1.0" / "digits"
    folder.mkdir(parents=True)
    for path in SOURCE.parent.glob(f"{ENTRY}.*"):
        shutil.copy(path, folder)
    shutil.copy(next(SOURCE.parent.glob("clean-images.*")), folder)
    return _plain(folder / SOURCE.name)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A result with digests, its images stored whole."""
    return reissue(SOURCE, tmp_path / "results")


def _bytes(path: Path) -> dict[str, bytes]:
    return {one: beside(path, one).read_bytes() for one in ("json", *ENDINGS)}


def test_a_result_without_digests_keeps_its_two_other_files(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, images = _bytes(old), load_adversarial(old)
    assert invoke(["migrate", str(old), "--images"]) == 0
    assert "nothing was written; add --write" in capsys.readouterr().out
    assert _bytes(old) == before
    assert invoke(["migrate", str(old), "--images", "--write"]) == 0
    after = _bytes(old)
    assert {one for one in after if after[one] != before[one]} == {ADVERSARIAL}
    assert is_coded(beside(old, ADVERSARIAL))
    assert load_adversarial(old).tobytes() == images.tobytes()
    assert len(after[ADVERSARIAL]) < len(before[ADVERSARIAL]) / 2
    capsys.readouterr()
    assert invoke(["migrate", str(old), "--images", "--write"]) == 0
    assert "its images are coded" in capsys.readouterr().out
    assert _bytes(old) == after
    assert invoke(["recheck", str(old), "--submission", str(ROOT / "submissions" / ENTRY)]) == 0


def test_a_result_with_digests_is_written_as_one_set(fresh: Path) -> None:
    before, images = read_result(fresh), load_adversarial(fresh)
    table, _ = read_outcomes(beside(fresh, OUTCOMES))
    assert "bytes to" in recode(fresh, write=True)
    after = read_result(fresh)
    verify_set(fresh, after)
    assert after.model_copy(update={"files": None}) == before.model_copy(update={"files": None})
    assert after.files != before.files
    assert read_outcomes(beside(fresh, OUTCOMES))[0].equals(table)
    assert load_adversarial(fresh).tobytes() == images.tobytes()
    assert recode(fresh, write=True) == ""


def test_a_frozen_round_keeps_what_its_files_were(old: Path) -> None:
    folder = old.parents[1]
    frozen = {path.name: path.read_bytes() for path in old.parent.iterdir()}
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  digits/{name}\n"
        for name, content in sorted(frozen.items())
    ]
    (folder / rounds.SUMS).write_text("".join(lines))
    assert rounds.changes(folder) == []
    images = load_adversarial(old)
    assert invoke(["migrate", str(old), "--images", "--write"]) == 0
    assert rounds.changes(folder) == []
    name = f"digits/{beside(old, ADVERSARIAL).name}"
    was, now, held = rounds.read_recoded(folder)[name]
    assert was == hashlib.sha256(frozen[beside(old, ADVERSARIAL).name]).hexdigest()
    assert now == hashlib.sha256(beside(old, ADVERSARIAL).read_bytes()).hexdigest()
    assert held == hashlib.sha256(images.tobytes()).hexdigest()
    sums = (folder / rounds.SUMS).read_text().splitlines(keepends=True)
    assert [line for line in sums if line in lines] == [line for line in lines if name not in line]
    build_site([folder.parent], folder.parent.parent / "site")
    with pytest.raises(OutputError, match="this round is frozen"):
        rounds.require_open(folder)


def test_a_frozen_round_that_was_changed_is_not_coded(old: Path) -> None:
    folder = old.parents[1]
    digest = hashlib.sha256(b"").hexdigest()
    (folder / rounds.SUMS).write_text(f"{digest}  digits/{old.name}\n")
    before = _bytes(old)
    assert invoke(["migrate", str(old), "--images", "--write"]) == 2
    assert _bytes(old) == before and not (folder / rounds.RECODED).exists()


@pytest.mark.parametrize("written", [0, 1, 2])
def test_an_interrupted_coding_of_a_frozen_round_is_finished(
    written: int, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the images, before the checksums, and after them."""
    folder = old.parents[1]
    names = sorted(old.parent.iterdir())
    (folder / rounds.SUMS).write_text(
        "".join(
            f"{hashlib.sha256(one.read_bytes()).hexdigest()}  digits/{one.name}\n" for one in names
        )
    )
    images = load_adversarial(old)
    whole = write_atomic
    told: list[Path] = []

    def dying(path: Path, content: bytes) -> None:
        if len(told) > written:
            raise KeyboardInterrupt
        told.append(path)
        whole(path, content)

    with monkeypatch.context() as patch:
        for module in (recoding, rounds):
            patch.setattr(module, "write_atomic", dying)
        if written < 2:
            with pytest.raises(KeyboardInterrupt):
                recode(old, write=True)
        else:
            recode(old, write=True)
    recode(old, write=True)
    assert rounds.changes(folder) == []
    assert len(rounds.read_recoded(folder)) == 1
    assert is_coded(beside(old, ADVERSARIAL))
    assert load_adversarial(old).tobytes() == images.tobytes()


def test_a_line_of_the_record_that_is_none_is_named(old: Path) -> None:
    folder = old.parents[1]
    (folder / rounds.RECODED).write_text("nothing\n")
    assert invoke(["migrate", str(old), "--images", "--write"]) == 0  # not frozen, not read
    (folder / rounds.SUMS).write_text("")
    assert invoke(["migrate", str(old), "--images", "--write"]) == 2


def test_without_the_dataset_all_but_pixels_is_there(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recode(old, write=True)
    recoding._dataset.cache_clear()

    def missing(*_: object) -> None:
        raise DatasetError("digits: not found")

    for module in (
        "review.recoding",
        "evaluation.evidence",
    ):
        monkeypatch.setattr(f"corobench.benchmark.{module}.load_test", missing)
    assert find_damage(old, read_result(old)) == ""
    assert recode(old, write=True) == ""
    site = old.parents[2].parent / "site"
    build_site([old.parents[2]], site)
    (page,) = (site / "entries").rglob("*.html")
    assert page.read_text().count("<img") > 6  # attacked and proven ones, from the pictures beside
    next(old.parent.glob("clean-images.*")).unlink()
    build_site([old.parents[2]], site)
    assert "<img" not in page.read_text()
    capsys.readouterr()
    entry = str(ROOT / "submissions" / ENTRY)
    assert invoke(["recheck", str(old), "--submission", entry, "--no-isolate"]) == 2
    assert "digits: not found" in capsys.readouterr().err
