"""`corobench measure --results`: published results agree with their weights, and get new keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Compactness
from corobench.benchmark.review.remeasure import remeasure
from corobench.benchmark.scoring.result_writing import write_set

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "submissions" / "digits-ibp-lwm-10x"
NEW = {
    "format",
    "bytes_packed_zstd",
    "bytes_coded",
    "peak_activation_bytes",
    "equivalent",
    "magnitudes",
    "num_live",
}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A published result without the optional keys."""
    source = ROOT / "leaderboard" / "results" / "1.0" / "digits" / f"{ENTRY.name}.json"
    for path in source.parent.glob(f"{ENTRY.name}.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / source.name
    table, run = read_outcomes(beside(path, "outcomes.parquet"))
    old = Compactness.model_validate(run.compactness.model_dump(exclude=NEW))
    write_set(path, table, run.model_copy(update={"compactness": old}))
    return path


def test_new_keys_are_added_and_nothing_else_changes(result: Path) -> None:
    before = json.loads(result.read_text())
    assert not NEW & before["compactness"].keys()
    assert set(remeasure(result, ENTRY).added) == NEW
    assert json.loads(result.read_text()) == before
    remeasure(result, ENTRY, write=True)
    after = json.loads(result.read_text())
    assert after["compactness"].keys() >= NEW
    assert {k: v for k, v in after["compactness"].items() if k not in NEW} == before["compactness"]
    changed = ("compactness", "files")  # another table has another digest
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    assert invoke(["score", str(beside(result, "outcomes.parquet"))]) == 0
    assert remeasure(result, ENTRY).added == ()


def test_a_result_that_claims_another_size_is_refused(result: Path) -> None:
    text = result.read_text().replace('"num_nonzero": 2384', '"num_nonzero": 1384')
    result.write_text(text)
    with pytest.raises(ResultError, match=r"compactness\.num_nonzero: the result says 1384"):
        remeasure(result, ENTRY, write=True)


def test_results_of_other_weights_are_refused(result: Path) -> None:
    with pytest.raises(ResultError, match="does not belong to the weights of"):
        remeasure(result, ROOT / "submissions" / "digits-ibp-dense")
