"""Tables from strangers: small files that would unpack to gigabytes are refused before they do."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_run, make_table

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading import parquet_pages, table_file
from corobench.benchmark.records.reading.columns import MISSING, Columns
from corobench.benchmark.records.reading.table_file import RUN_KEY, read_columns, read_outcomes
from corobench.benchmark.records.result import OUTCOME_COLUMNS

ROWS = 400_000


def _arrow(**columns: object) -> pa.Table:
    """A table of eight rows with other columns."""
    run = make_run()
    arrow = pq.read_table(io.BytesIO(encode_outcomes(make_table(run), run)))
    for name, column in columns.items():
        arrow = arrow.set_column(arrow.column_names.index(name), name, column)
    return arrow


def _many(text: str) -> pa.Table:
    """Many rows of which one column repeats one text."""
    texts = {"epsilon": "1/16", "outcome": "certified", "decided_by": "IBP", "carried_from": ""}
    texts["decided_by"] = text
    columns: dict[str, pa.Array] = {}
    for name, (dtype, _) in OUTCOME_COLUMNS.items():
        if dtype == "string":
            indices = pa.array(np.zeros(ROWS, dtype=np.int32))
            columns[name] = pa.DictionaryArray.from_arrays(indices, [texts[name]])
        else:
            kind = {"Float32": "float32", "boolean": "bool"}.get(dtype, dtype)
            columns[name] = pa.array(np.zeros(ROWS, dtype=kind))
    record = make_run().model_dump_json(by_alias=True).encode()
    return pa.table(columns).replace_schema_metadata({RUN_KEY: record})


def _write(path: Path, arrow: pa.Table, **more: object) -> Path:
    pq.write_table(arrow, path, compression=more.pop("compression", "zstd"), **more)
    return path


def _peak_bytes(read: Callable[[], object]) -> int:
    """Most that arrow and Python hold at once while something is refused."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        with pytest.raises(ResultError):
            read()
        return int(tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0))
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


@pytest.mark.parametrize("length", [41, 10_000, 60_000, 5_000_000])
def test_a_long_text_that_is_repeated_takes_no_room(tmp_path: Path, length: int) -> None:
    """400,000 times 10,000 bytes would be 4 GB; the file has some kilobytes."""
    path = _write(tmp_path / "t.parquet", _many("a" * length))
    assert path.stat().st_size < 100_000
    with pytest.raises(ResultError, match="column decided_by: ") as caught:
        read_outcomes(path)
    assert str(path) in caught.value.message
    assert _peak_bytes(lambda: read_outcomes(path)) < 256 * 1024**2


def test_texts_that_are_too_many(tmp_path: Path) -> None:
    many = _many("").set_column(6, "decided_by", pa.array([f"{row}" for row in range(ROWS)]))
    path = _write(tmp_path / "t.parquet", many)
    with pytest.raises(ResultError, match=r"column decided_by: expected at most 64 texts"):
        read_outcomes(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"use_dictionary": False, "column_encoding": {"decided_by": "DELTA_BYTE_ARRAY"}}, "in a"),
        ({"use_dictionary": False, "column_encoding": {"image": "DELTA_BINARY_PACKED"}}, "in a"),
        ({"compression": "gzip"}, "compressed or encoded in an unsupported way"),
        ({"row_group_size": 1000}, "at most 256 row groups"),
    ],
)
def test_ways_of_storing_that_are_not_read(
    tmp_path: Path, more: dict[str, object], message: str
) -> None:
    arrow = _many("IBP")
    for place, name in enumerate(arrow.column_names):
        if pa.types.is_dictionary(arrow.schema.field(name).type):
            arrow = arrow.set_column(place, name, arrow.column(name).cast(pa.string()))
    path = _write(tmp_path / "t.parquet", arrow, **more)
    with pytest.raises(ResultError, match=message):
        read_outcomes(path)


@pytest.mark.parametrize(
    "more",
    [
        {"compression": "none"},
        {"compression": "snappy"},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"row_group_size": 3},
        {"write_statistics": False},
        {"version": "1.0"},
    ],
    ids=str,
)
def test_a_table_by_another_writer_is_read_all_the_same(
    tmp_path: Path, more: dict[str, object]
) -> None:
    path = _write(tmp_path / "t.parquet", _arrow(), **more)
    table, run = read_outcomes(path)
    pd.testing.assert_frame_equal(table, make_table(make_run()))
    assert run == make_run()


def test_arrays_and_frame_hold_the_same(tmp_path: Path) -> None:
    table = make_table(make_run())
    table.loc[2, ["crown", "bab"]] = pd.NA
    path = tmp_path / "t.parquet"
    path.write_bytes(encode_outcomes(table, make_run()))
    read, _ = read_columns(path)
    made = Columns.of_frame(table)
    for name, column in made.numbers.items():
        np.testing.assert_array_equal(read.numbers[name], column)
    for name, answers in made.answers.items():
        np.testing.assert_array_equal(read.answers[name], answers)
    for name, text in made.texts.items():
        assert read.texts[name].counts() == text.counts()
        assert [read.texts[name].at(row) for row in range(8)] == table[name].tolist()
    assert read.answers["crown"][2] == MISSING
    assert np.isnan(read.numbers["margin"][0])


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("image", pa.array([1.5] * 8), r"image: expected int32, found DOUBLE"),
        ("image", pa.array([[1]] * 8), r"image: is nested|image"),
        ("image", pa.array([2**40] * 8), "not in range|out of bounds"),
        ("label", pa.array([2**20] * 8), "not in range|out of bounds"),
        ("margin", pa.array(["x"] * 8), "margin: expected Float32"),
        ("ibp", pa.array([1] * 8), "ibp: expected boolean"),
        ("outcome", pa.array([1] * 8), "outcome: expected string"),
        ("outcome", pa.array([b"\xff"] * 8), "outcome: expected string, found"),
        ("outcome", pa.array(["certified", None] * 4), "outcome: expected a value in every row"),
        ("image", pa.array([1, None] * 4), "image: expected a value in every row"),
        ("epsilon", pa.array([{"a": "1/16"}] * 8), "nested|epsilon"),
    ],
)
def test_columns_of_other_kinds(tmp_path: Path, name: str, column: pa.Array, message: str) -> None:
    path = _write(tmp_path / "t.parquet", _arrow(**{name: column}))
    with pytest.raises(ResultError, match=message) as caught:
        read_outcomes(path)
    assert str(path) in caught.value.message


def test_the_record_inside_is_read_as_strictly_as_a_result(tmp_path: Path) -> None:
    record = make_run().model_dump_json(by_alias=True)
    for old, new, message in (
        ('"seed":0', '"seed":0,"seed":1', "listed twice"),
        ('"seed":0', '"seed":NaN', "found NaN"),
        ('"seed":0', '"seed":"0"', "run record: seed: expected an integer"),
        ('"n":8', f'"n":8,"x":{"[" * 70}{"]" * 70}', "nested deeper"),
        (
            '"epsilons":["1/16"]',
            '"epsilons":["1/16","1/16"]',
            "expected at least one, without repetition",
        ),
        ('"epsilons":["1/16"]', '"epsilons":[]', "epsilon: expected one of"),
        ('"track":"digits"', '"track":"x"', "track: expected one of"),
    ):
        assert old in record
        changed = record.replace(old, new).encode()
        path = _write(tmp_path / "t.parquet", _arrow().replace_schema_metadata({RUN_KEY: changed}))
        with pytest.raises(ResultError, match=message):
            read_outcomes(path)


# ------------------------------------------------------------------- pages that lie


def _zigzag(value: int) -> bytes:
    value, content = value << 1, b""
    while True:
        byte, value = value & 0x7F, value >> 7
        content += bytes([byte | (0x80 if value else 0)])
        if not value:
            return content


def _claiming(content: bytes, size: int) -> bytes:
    """The file with the first page's own header claiming to unpack to `size` bytes.

    The footer goes on saying what it said: offsets behind it stay where they are, because the page
    that follows is cut by as many bytes as its header grew.
    """
    chunk = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page:
        begin = min(begin, chunk.dictionary_page_offset)
    header, end = parquet_pages._Compact(content, begin, len(content)).struct()
    old = b"\x15" + _zigzag(header[1]) + b"\x15" + _zigzag(header[2]) + b"\x15"
    assert content[begin:end].startswith(old)
    new = b"\x15" + _zigzag(header[1]) + b"\x15" + _zigzag(size) + b"\x15"
    grown = len(new) - len(old)
    cut = begin + chunk.total_compressed_size
    return content[:begin] + new + content[begin + len(old) : cut - grown] + content[cut:]


@pytest.mark.parametrize("size", [1_000_000, 2**31 - 1, 2**40])
def test_a_page_that_claims_more_than_the_footer_says(tmp_path: Path, size: int) -> None:
    run = make_run()
    content = _claiming(encode_outcomes(make_table(run), run), size)
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    footer = pq.ParquetFile(path).metadata.row_group(0)
    assert footer.total_byte_size < 10_000
    with pytest.raises(
        ResultError, match=r"column image: at most \d+ unpacked bytes are allowed, but"
    ):
        read_outcomes(path)


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1" + bytes(100) + b"PAR1",
        b"PAR1" + (2**32 - 1).to_bytes(4, "little") + b"PAR1",
        b"PAR1" + b"PAR1",
        b"PAR1PAR1" + bytes(20),
    ],
)
def test_footers_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=r"t\.parquet: expected an outcome table"):
        read_outcomes(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x15",
        b"\x15" + b"\xff" * 20,
        b"\x18\xff\xff\xff\x7f",
        b"\x1c" * 100,
        b"\x19\xf5\xff\xff\xff\x7f",
        b"\x1f",
    ],
)
def test_a_page_s_header_that_never_ends(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|more lists"):
        parquet_pages._Compact(content, 0, len(content)).struct()


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with path.open("wb") as stream:
        stream.truncate(table_file.MAX_TABLE_FILE_BYTES + 1)
    with pytest.raises(ResultError, match=f"more than {table_file.MAX_TABLE_FILE_BYTES} bytes"):
        read_outcomes(path)


def test_a_dictionary_holds_each_text_once(tmp_path: Path) -> None:
    """pyarrow drops the second of two equal texts and keeps the numbers of the rows."""
    arrow = _arrow()
    column = arrow.column("decided_by").to_pylist()
    values = sorted(set(column))
    held = ["twin1", "twin2", *values, "more1"]
    codes = [held.index(text) for text in column]
    shifted = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(held))
    arrow = arrow.set_column(arrow.column_names.index("decided_by"), "decided_by", shifted)
    path = _write(tmp_path / "t.parquet", arrow, compression="none")
    content = path.read_bytes().replace(b"twin2", b"twin1")
    path.write_bytes(content)
    bare = io.BytesIO(content.replace(b"ARROW:schema", b"------------"))
    assert pd.read_parquet(bare)["decided_by"].tolist() == column  # what others read
    assert pq.read_table(path)["decided_by"].to_pylist() != column
    with pytest.raises(ResultError, match=r"holds a text twice|out of bounds"):
        read_outcomes(path)


def test_a_table_has_our_columns_and_nothing_beside_them(tmp_path: Path) -> None:
    arrow = _arrow()
    more = arrow.append_column("hidden", pa.array(["any text"] * arrow.num_rows))
    with pytest.raises(ResultError, match="unknown column 'hidden'"):
        read_outcomes(_write(tmp_path / "column.parquet", more))
    metadata = {**arrow.schema.metadata, b"stranger": b"y" * 1000}
    with pytest.raises(ResultError, match="unknown key b'stranger'"):
        read_outcomes(_write(tmp_path / "key.parquet", arrow.replace_schema_metadata(metadata)))


def test_a_footer_of_lists_is_refused_before_a_library_reads_it(tmp_path: Path) -> None:
    """A million columns of three bytes each, which pyarrow makes an object of each."""

    def number(value: int) -> bytes:
        found = b""
        while value >= 0x80:
            found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
        return found + bytes([value])

    chunk = b"\x26\x08\x00"  # field 2: where it lies
    groups = b"\x1c\x19\xfc" + number(10**6) + chunk * 10**6 + b"\x16\x00\x16\x00\x00"
    footer = b"\x15\x04\x19\x0c\x16\x00\x19" + groups + b"\x00"
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ResultError, match="more lists than a table of outcomes"):
        read_outcomes(path)
    assert _peak_bytes(lambda: read_outcomes(path)) < 128 * 2**20


def test_every_byte_is_of_a_column_or_the_footer(tmp_path: Path) -> None:
    """Other programs may read what stands between the columns and the footer."""
    path = _write(tmp_path / "t.parquet", _arrow())
    content = path.read_bytes()
    read_outcomes(path)
    length = int.from_bytes(content[-8:-4], "little")
    end = len(content) - 8 - length
    path.write_bytes(content[:end] + b"hidden" + content[end:])
    with pytest.raises(ResultError, match="into it is something that is no column"):
        read_outcomes(path)


def test_a_run_record_is_there_once(tmp_path: Path) -> None:
    """Of two, pyarrow shows one, and other programs the other."""
    arrow = _arrow()
    own = arrow.schema.metadata[RUN_KEY]
    twice = pa.KeyValueMetadata([(RUN_KEY, own), (RUN_KEY, own.replace(b'"seed":0', b'"seed":7'))])
    path = _write(tmp_path / "t.parquet", arrow.replace_schema_metadata(twice))
    with pytest.raises(ResultError, match=r"key b'corobench\.run' .* is there twice"):
        read_outcomes(path)


@pytest.mark.parametrize("said", ["x", "[]", {"index_columns": ["image"]}, {"columns": []}])
def test_what_pandas_wrote_beside_a_table_is_not_believed(tmp_path: Path, said: object) -> None:
    """It names an index and types, and was the table that the referee saw."""
    arrow = _arrow()
    expected, _ = read_outcomes(_write(tmp_path / "honest.parquet", arrow))
    metadata = arrow.schema.metadata
    text = said if isinstance(said, str) else json.dumps(json.loads(metadata[b"pandas"]) | said)
    other = arrow.replace_schema_metadata({**metadata, b"pandas": text})
    found, _ = read_outcomes(_write(tmp_path / "other.parquet", other))
    pd.testing.assert_frame_equal(found, expected)
