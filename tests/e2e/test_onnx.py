"""The same network by name and as ONNX has the same result."""

from __future__ import annotations

from pathlib import Path

import pytest
from reissue import ROUND

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.submission import load_submission

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_an_entry_and_its_onnx_export_have_the_same_outcomes(tmp_path: Path) -> None:
    named = ROOT / "submissions" / "_template"
    exported = tmp_path / "exported"
    assert invoke(["convert", str(named), "--out", str(exported)]) == 0
    options = ["--subset", "20", "--out", str(tmp_path / "results")]
    for folder in (named, exported):
        assert invoke(["evaluate", str(folder), *options]) == 0
    place = tmp_path / "results" / ROUND / "digits"
    first, second = (
        read_outcomes(place / f"{n}@20.outcomes.parquet")[0] for n in ("template", "exported")
    )
    assert first["outcome"].equals(second["outcome"])
    assert first["decided_by"].equals(second["decided_by"])
    result = read_result(place / "exported@20.json")
    assert result.compactness.format == "onnx"
    assert result.submission.model.architecture is None
    assert result.weights_sha256 != load_submission(named).weights_sha256
