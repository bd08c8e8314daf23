"""Files are whole or absent, damaged chunks are never used, and records survive a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables import make_run, make_table

from corobench.benchmark.errors import OutputError, ResultError
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.records.encoding import encode_outcomes, encode_result
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.scoring import score as scoring


def test_outcomes_survive_a_round_trip_and_give_the_same_result_bytes(tmp_path: Path) -> None:
    run = make_run()
    table = make_table(run)
    path = tmp_path / "x.outcomes.parquet"
    path.write_bytes(encode_outcomes(table, run))
    again, run_again = read_outcomes(path)
    pd.testing.assert_frame_equal(again, table)
    first, second = scoring.score(table, run), scoring.score(again, run_again)
    assert encode_result(first) == encode_result(second)


def test_result_survives_a_round_trip(tmp_path: Path) -> None:
    run = make_run()
    result = scoring.score(make_table(run), run)
    path = tmp_path / "x.json"
    write_atomic(path, encode_result(result))
    assert read_result(path) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 7}, "schema: expected 1, but found 7"),
        ({"n": 9}, "expected counts that add up to n = 9, found 8"),
        ({"clean": 2}, "pgd50: expected at most clean = 2, found 6"),
        ({"clean": "many"}, "clean: .*found 'many'"),
    ],
)
def test_a_faulty_result_names_file_and_key(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    run = make_run()
    payload = json.loads(encode_result(scoring.score(make_table(run), run)))
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**payload, **change}))
    with pytest.raises(ResultError, match=message) as caught:
        read_result(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_not_a_result_is_one_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=r"x\.json"):
        read_result(path)


def test_what_is_not_an_outcome_table_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "x.outcomes.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(ResultError, match="expected an outcome table"):
        read_outcomes(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(ResultError, match="no run record inside"):
        read_outcomes(path)


def test_chunks_of_another_identity_are_never_reused(tmp_path: Path) -> None:
    first = ChunkStore(tmp_path, {"weights": "a"})
    first.save("c", {"x": np.arange(3)})
    assert ChunkStore(tmp_path, {"weights": "b"}).load("c") is None
    loaded = ChunkStore(tmp_path, {"weights": "a"}).load("c")
    assert loaded is not None
    assert loaded["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-3], lambda b: b[:40] + b"!" + b[41:], lambda _: b""]
)
def test_a_damaged_chunk_counts_as_missing(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    chunks = ChunkStore(tmp_path, {"weights": "a"})
    chunks.save("c", {"x": np.arange(100)})
    (path,) = chunks.folder.glob("*.chunk")
    path.write_bytes(damage(path.read_bytes()))
    assert chunks.load("c") is None


def test_discarded_chunks_leave_nothing(tmp_path: Path) -> None:
    chunks = ChunkStore(tmp_path / ".chunks", {"weights": "a"})
    chunks.save("c", {"x": np.arange(3)})
    chunks.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("corobench.benchmark.files.atomic.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_an_output_folder_that_is_a_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder with --out"):
        write_atomic(tmp_path / "file" / "x.json", b"")
