"""Images from a third party: judged, counted, and never believed."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import load_adversarial, read_arrays
from corobench.benchmark.evaluation.outcomes import drop_unused
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.records.result_set import verify_set
from corobench.benchmark.review.contest import contest
from corobench.benchmark.scoring.ranking import bracket
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.scoring.scored import scored

ROOT = Path(__file__).parents[2]
ENTRY = "digits-adv-lwm-10x"
EPSILON = "2/16"


@dataclass(frozen=True)
class Weakened:
    """A published result as a weaker attack would have left it, and what it missed."""

    path: Path
    images: np.ndarray
    indices: np.ndarray
    pretended: Outcome

    def save(self, **changes: np.ndarray) -> Path:
        path = self.path.with_name("found.npz")
        np.savez(path, **({"images": self.images, "indices": self.indices} | changes))
        return path

    def contest(self, images: Path, *, write: bool = False):
        return contest(self.path, images, ROOT / "submissions" / ENTRY, write=write)


@pytest.fixture(params=[Outcome.UNDECIDED, Outcome.CERTIFIED], ids=str)
def weakened(request: pytest.FixtureRequest, tmp_path: Path) -> Weakened:
    source = ROOT / "leaderboard" / "results" / "1.0" / "digits" / f"{ENTRY}.json"
    path = tmp_path / source.name
    for file in (source, beside(source, "outcomes.parquet"), beside(source, "adversarial.npz")):
        shutil.copy(file, tmp_path / file.name)
    table, run = read_outcomes(beside(path, "outcomes.parquet"))
    at = table["epsilon"] == EPSILON
    first = table["carried_from"] == ""
    rows = table.index[at & first & (table["outcome"] == Outcome.ATTACKED)][:5]
    stored = load_adversarial(path)
    images = stored[table.loc[rows, "adversarial"].to_numpy()]
    table.loc[rows, ["outcome", "decided_by", "adversarial"]] = [str(request.param), "", -1]
    table.loc[rows, ["pgd50", "autoattack"]] = True
    if request.param == Outcome.CERTIFIED:
        _call_proven(table, table.loc[rows, "image"])
    table, kept = drop_unused(table, list(stored))
    write_set(path, table, run, kept)
    return Weakened(path, images, table.loc[rows, "image"].to_numpy(), request.param)


def _call_proven(table: pd.DataFrame, images: pd.Series) -> None:
    """Images proven by CROWN at the radius, in place, and so in every smaller ball."""
    rows = table["image"].isin(images)
    proofs = {"ibp": False, "crown_ibp": False, "crown": True, "alpha_crown": True, "bab": True}
    planted = {"outcome": Outcome.CERTIFIED.value, "decided_by": "CROWN", "margin": 0.5, **proofs}
    for column, value in planted.items():
        table.loc[rows, column] = value
    table.loc[rows, "carried_from"] = EPSILON
    table.loc[rows & (table["epsilon"] == EPSILON), "carried_from"] = ""


def test_what_holds_tightens_the_upper_end_and_a_false_proof_freezes(weakened: Weakened) -> None:
    before = read_result(weakened.path)
    found = weakened.contest(weakened.save(), write=True)
    after = read_result(weakened.path)
    assert after == found.after
    assert (found.num_confirmed, found.broken[EPSILON]) == (5, 5)
    high = bracket(before.epsilons[EPSILON]).high
    assert bracket(after.epsilons[EPSILON]).high == high - 5
    assert after.epsilons[EPSILON].autoattack == before.epsilons[EPSILON].autoattack
    assert after.epsilons[EPSILON].decided_by["contest"] == 5
    assert after.contests[0].num_confirmed == 5
    num_contradictions = 5 if weakened.pretended == Outcome.CERTIFIED else 0
    assert len(after.audit.contradictions) == num_contradictions
    assert after.is_frozen == bool(num_contradictions)
    verify_set(weakened.path, after)
    recomputed = scored(beside(weakened.path, "outcomes.parquet"))
    assert encode_result(recomputed) == weakened.path.read_bytes()
    assert invoke(["recheck", str(weakened.path), "--submission", str(_entry())]) == 0


def _entry() -> Path:
    return ROOT / "submissions" / ENTRY


def test_exit_codes_and_nothing_is_written_unasked(
    weakened: Weakened, capsys: pytest.CaptureFixture[str]
) -> None:
    content = weakened.path.read_bytes()
    command = ["contest", str(weakened.path), str(weakened.save()), "--submission", str(_entry())]
    assert invoke(command) == (3 if weakened.pretended == Outcome.CERTIFIED else 0)
    assert "5 of 5 images are confirmed" in capsys.readouterr().out
    assert weakened.path.read_bytes() == content


def test_the_first_adversarial_image_of_a_result(weakened: Weakened) -> None:
    table, run = read_outcomes(beside(weakened.path, "outcomes.parquet"))
    attacked = table["outcome"] == Outcome.ATTACKED
    table.loc[attacked, ["outcome", "decided_by", "carried_from"]] = ["undecided", "", ""]
    table.loc[attacked, "adversarial"] = -1
    table.loc[attacked, ["pgd50", "autoattack"]] = True
    write_set(weakened.path, table, run, np.array([], dtype=np.float32))
    assert weakened.contest(weakened.save(), write=True).broken[EPSILON] == 5
    stored = load_adversarial(weakened.path)
    assert stored.shape == (5, 1, 8, 8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: {"images": w.images + np.float32(0.2)}, "not in the ball of any epsilon"),
        (lambda w: {"images": np.full_like(w.images, np.nan)}, "not in the ball of any epsilon"),
        (lambda w: {"indices": w.indices * 0 + 10**6}, "not among the 500 images"),
    ],
    ids=["outside", "nan", "unknown-image"],
)
def test_what_does_not_hold_counts_for_nothing(weakened: Weakened, change, reason: str) -> None:
    found = weakened.contest(weakened.save(**change(weakened)), write=True)
    assert found.num_confirmed == 0
    assert len(found.rejected) == 5
    assert all(reason in line for line in found.rejected)
    assert not any(found.broken.values())


def test_an_image_that_nobody_predicted_is_not_broken(weakened: Weakened) -> None:
    """A row without a prediction says nothing of the model; broken, no reader would take it."""
    table, run = read_outcomes(beside(weakened.path, "outcomes.parquet"))
    rows = table["image"] == weakened.indices[0]
    for column in ("ibp", "crown_ibp", "crown", "alpha_crown", "bab", "pgd50", "autoattack"):
        table.loc[rows, column] = pd.NA
    table.loc[rows, ["outcome", "decided_by", "carried_from"]] = ["error", "", ""]
    table.loc[rows, ["predicted", "adversarial"]] = -1
    table.loc[rows, "margin"] = pd.NA
    write_set(weakened.path, table, run)
    found = weakened.contest(weakened.save(), write=True)
    assert (found.num_confirmed, found.broken[EPSILON]) == (4, 4)
    assert "no prediction of the clean image" in found.rejected[0]
    assert scored(beside(weakened.path, "outcomes.parquet")) == read_result(weakened.path)


def test_clean_images_fool_nobody(weakened: Weakened) -> None:
    from corobench.benchmark.data import load_test

    clean = load_test("digits").take(weakened.indices)
    found = weakened.contest(weakened.save(images=clean))
    assert found.rejected[0].endswith("the model classifies it correctly")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"images": w.images.astype(np.float64)}, "expected float32"),
        (lambda w: {"images": w.images[:, :, :4]}, "expected float32"),
        (lambda w: {"images": w.images[:0], "indices": w.indices[:0]}, "at least one image"),
        (lambda w: {"indices": w.indices[:2]}, "5 integers"),
        (lambda w: {"indices": w.indices.astype(np.float32)}, "5 integers"),
        (lambda w: {"images": np.array([{"a": 1}], dtype=object)}, "objects"),
    ],
    ids=["float64", "shape", "empty", "too-few", "float-index", "pickle"],
)
def test_a_file_of_another_kind_is_refused_by_name(weakened: Weakened, change, message) -> None:
    path = weakened.save(**change(weakened))
    with pytest.raises(ResultError, match=message) as error:
        weakened.contest(path)
    assert str(path) in str(error.value)


def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 1, 8, 8)}
    )
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
    with pytest.raises(ResultError, match="at most 2147483648 are allowed"):
        read_arrays(path, ("images",))
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 1, 8, 8)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
    with pytest.raises(ResultError, match="but the file is shorter"):
        read_arrays(path, ("images",))
    with pytest.raises(ResultError, match="no array named indices"):
        read_arrays(path, ("indices",))
