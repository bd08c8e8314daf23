"""Result files, tables and images from strangers: each rule that refuses one."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_run, make_table

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.encoding import encode_outcomes, encode_result
from corobench.benchmark.records.reading.arrays_file import read_arrays
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import MAX_TABLE_ROWS, read_outcomes
from corobench.benchmark.records.result import MAX_RESULT_BYTES
from corobench.benchmark.scoring.score import score
from corobench.leaderboard.loading import read_result as read_on_page


def _result(folder: Path) -> Path:
    run = make_run()
    path = folder / "test-entry@8.json"
    path.write_bytes(encode_result(score(make_table(run), run)))
    return path


@pytest.mark.parametrize("reader", [read_result, read_on_page])
def test_a_key_that_is_there_twice(tmp_path: Path, reader) -> None:
    path = _result(tmp_path)
    path.write_text(path.read_text().replace('"clean": 7', '"clean": 7, "clean": 8'))
    with pytest.raises(ResultError, match="a name is listed twice"):
        reader(path)


@pytest.mark.parametrize("reader", [read_result, read_on_page])
def test_a_result_that_is_too_large_is_refused_unread(tmp_path: Path, reader) -> None:
    path = _result(tmp_path)
    with path.open("r+b") as stream:
        stream.truncate(MAX_RESULT_BYTES + 1)
    with pytest.raises(ResultError, match=f"{MAX_RESULT_BYTES} bytes"):
        reader(path)


@pytest.mark.parametrize("reader", [read_result, read_on_page])
@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[" * 100_000, b"9" * 10_000, b"null"])
def test_what_is_no_result(tmp_path: Path, reader, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=r"x\.json"):
        reader(path)


def test_a_table_that_unpacks_to_too_many_rows(tmp_path: Path) -> None:
    """Two million equal rows are a few kilobytes in parquet."""
    path = tmp_path / "bomb.outcomes.parquet"
    zeros = pa.array(np.zeros(MAX_TABLE_ROWS + 1, dtype=np.int32))
    pq.write_table(pa.table({"image": zeros}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(ResultError, match=f"at most {MAX_TABLE_ROWS} rows"):
        read_outcomes(path)


def test_columns_of_other_types(tmp_path: Path) -> None:
    run = make_run()
    table = make_table(run)
    path = tmp_path / "t.outcomes.parquet"
    path.write_bytes(encode_outcomes(table.assign(image=["x"] * len(table)), run))
    with pytest.raises(ResultError, match="columns of unexpected types"):
        read_outcomes(path)


def _npz(path: Path, name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)


def _array(array: np.ndarray, claims: str | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    content = buffer.getvalue()
    if claims is not None:
        header = content[:128].replace(str(array.shape).encode(), claims.encode())
        content = header[: content.index(b"\n") + 1].ljust(128) + content[128:]
    return content


@pytest.mark.parametrize(
    ("content", "method", "message"),
    [
        (_array(np.zeros((2, 3)), "(99999999999, 3)"), 8, "bytes|header"),
        (_array(np.zeros((2, 3)), "(4, 3)"), 8, "but the file is shorter|header"),
        (_array(np.zeros(2)), zipfile.ZIP_LZMA, "compressed by method 14"),
        (b"\x93NUMPY\x09\x00" + bytes(100), 8, "array format .* is not supported"),
        (b"nothing", 8, "magic"),
    ],
)
def test_arrays_that_claim_more_than_they_hold(
    tmp_path: Path, content: bytes, method: int, message: str
) -> None:
    path = tmp_path / "a.npz"
    _npz(path, "images.npy", content, method)
    with pytest.raises(ResultError, match=message):
        read_arrays(path, ("images",))


def test_an_array_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of zeros is a kilobyte in the archive; the limit is on what is unpacked."""
    monkeypatch.setattr("corobench.benchmark.records.reading.arrays_file.MAX_ARRAY_BYTES", 100_000)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros(125_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(ResultError, match="1000000 bytes; at most 100000 are allowed"):
        read_arrays(path, ("images",))


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = tmp_path / "a.npz"
    np.savez(path, images=np.array([Evil()], dtype=object))
    with pytest.raises(ResultError, match="contains objects"):
        read_arrays(path, ("images",))
    assert not (tmp_path / "ran").exists()


def test_a_manifest_in_a_result_is_checked_like_a_submission(tmp_path: Path) -> None:
    path = _result(tmp_path)
    payload = json.loads(path.read_text())
    payload["submission"]["links"] = ["javascript:alert(1)"]
    path.write_text(json.dumps(payload))
    for reader in (read_result, read_on_page):
        with pytest.raises(ResultError, match="links"):
            reader(path)
