"""Outcome parquet -> an outcome table and its run, or one error that names the file.

Limits are compared before anything is unpacked: the size of the file and of its footer, rows, the
unpacked size of every column and page, kinds of columns, compression and encodings. Columns of text
are read as dictionaries, so that a long text that is repeated a million times stays one text, and
its length is looked at before it is copied.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from corobench.benchmark.errors import ResultError, printable
from corobench.benchmark.files.regular import open_regular
from corobench.benchmark.records.reading import parquet_pages
from corobench.benchmark.records.reading.belonging import require_belonging
from corobench.benchmark.records.reading.columns import ANSWERS, TEXTS, Columns
from corobench.benchmark.records.reading.faults import describe
from corobench.benchmark.records.reading.radii import require_rows
from corobench.benchmark.records.reading.result_file import parse_object
from corobench.benchmark.records.result import (
    DECIDED_BY,
    MAX_RESULT_BYTES,
    OUTCOME_COLUMNS,
    Outcome,
    Run,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

RUN_KEY = b"corobench.run"
#: What pyarrow and pandas write beside it; nothing is read from there.
_LIBRARY_KEYS = (b"ARROW:schema", b"pandas")
#: Largest outcome table that is read, as a file and once unpacked.
MAX_TABLE_FILE_BYTES = 64 * 1024**2
MAX_TABLE_ROWS = 1_000_000
MAX_TABLE_BYTES = 128 * 1024**2
#: Longest text in a table, and how many different ones a column may hold.
MAX_TEXT = 40
MAX_TEXTS = 64

#: What libraries raise on files that are no parquet, or a damaged one.
_NO_TABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RecursionError,
)
_NULLABLE = {"margin", *ANSWERS}
_KINDS = {
    "int32": ("INT32", "INT64"),
    "int16": ("INT32", "INT64"),
    "string": ("BYTE_ARRAY",),
    "Float32": ("FLOAT", "DOUBLE"),
    "float32": ("FLOAT", "DOUBLE"),
    "boolean": ("BOOLEAN",),
}


def read_outcomes(path: Path) -> tuple[pd.DataFrame, Run]:
    """An outcome table and the run it belongs to, as a data frame.

    Raises:
        ResultError: see :func:`read_columns`.
    """
    arrow, record = read_raw_outcomes(path)
    _, run = typed_columns(arrow, record, path)
    return as_frame(arrow), run


def read_columns(path: Path) -> tuple[Columns, Run]:
    """The same as arrays, which is faster.

    Raises:
        ResultError: not an outcome table of corobench, larger than the limits, columns missing or
            of other types, texts that no table holds, rows that are not the published images
            its run names, in order, or that contradict their columns or each other.
    """
    return typed_columns(*read_raw_outcomes(path), path)


def read_raw_outcomes(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """An outcome table with those columns that it has, and its run as a JSON object.

    Raises:
        ResultError: not an outcome table of corobench, or larger than the limits.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_TABLE_FILE_BYTES + 1)
        if len(content) > MAX_TABLE_FILE_BYTES:
            raise ValueError(f"more than {MAX_TABLE_FILE_BYTES} bytes")
        parquet_pages.check_footer(content, MAX_RESULT_BYTES)
        metadata = pq.read_metadata(io.BytesIO(content))
        if metadata.num_rows > MAX_TABLE_ROWS:
            raise ValueError(
                f"at most {MAX_TABLE_ROWS} rows are allowed, but it claims {metadata.num_rows} rows"
            )
        record = (metadata.metadata or {}).get(RUN_KEY)
        text = _decoded(record)
        if strangers := sorted(set(metadata.metadata or {}) - {RUN_KEY, *_LIBRARY_KEYS}):
            raise ValueError(f"unknown key {strangers[0][:40]!r} beside the run record")
        present = [name for name in OUTCOME_COLUMNS if name in metadata.schema.names]
        texts = [name for name in TEXTS if name in present]
        source = io.BytesIO(content)
        with pq.ParquetFile(source, metadata=metadata, read_dictionary=texts) as file:
            _check_shape(file)
            parquet_pages.check_pages(content, file, present, MAX_TABLE_BYTES)
            arrow = file.read(columns=present, use_threads=False)
        run = parse_object(text)
        arrow = _plain(arrow)
        _check_one_reading(arrow, content, texts)
    except (*_NO_TABLE, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultError(f"{path}: expected an outcome table (parquet): {reason}") from error
    return arrow, run


def typed_columns(arrow: pa.Table, record: dict[str, Any], path: Path) -> tuple[Columns, Run]:
    """The columns and the run of a table that must have all of today's.

    Raises:
        ResultError: see :func:`read_columns`.
    """
    missing = sorted(set(OUTCOME_COLUMNS) - set(arrow.column_names))
    if missing:
        raise ResultError(
            f"{path}: not an outcome table of corobench (columns missing: {', '.join(missing)}); "
            "if an earlier corobench wrote it, `corobench migrate` on its result file adds them"
        )
    run = run_of(record, path)
    for name in OUTCOME_COLUMNS:
        if name not in _NULLABLE and arrow.column(name).null_count:
            raise ResultError(
                f"{path}: {name}: expected a value in every row, but one row has none"
            )
    columns = Columns.of_arrow(arrow)
    _check_texts(columns, run, path)
    require_belonging(columns, run, str(path))
    require_rows(columns, run, str(path))
    if unknown := sorted({*run.flags} - {*run.epsilons}):
        raise ResultError(f"{path}: run record: flags: {unknown[0]!r} is none of its radii")
    return columns, run


def run_of(record: dict[str, Any], path: Path) -> Run:
    """The run inside a table.

    Raises:
        ResultError: a key at fault.
    """
    import json

    try:
        return Run.model_validate_json(json.dumps(record), strict=True)
    except ValidationError as error:
        faults = "; ".join(describe(fault, Run) for fault in error.errors())
        raise ResultError(f"{path}: run record: {faults}") from error


def as_frame(arrow: pa.Table) -> pd.DataFrame:
    """A table whose texts were looked at, as a data frame of today's columns and types."""
    import pyarrow as pa

    for name in TEXTS:
        place = arrow.column_names.index(name)
        arrow = arrow.set_column(place, name, arrow.column(name).cast(pa.string()))
    table = arrow.replace_schema_metadata(None).to_pandas()  # no word of the file on what it is
    for column, (dtype, _) in OUTCOME_COLUMNS.items():
        table[column] = table[column].astype(dtype)
    return table[list(OUTCOME_COLUMNS)]


def _decoded(record: bytes | None) -> str:
    if record is None:
        raise ValueError("not an outcome table of corobench (no run record inside)")
    return record.decode()


def _check_shape(file: Any) -> None:
    """Compare the columns with what corobench writes, before they are unpacked."""
    names = [file.schema.column(place).path for place in range(len(file.schema))]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"column {twice[0]}: is there twice")
    for place, name in enumerate(names):
        column = file.schema.column(place)
        if name not in OUTCOME_COLUMNS:
            if name.split(".")[0] in OUTCOME_COLUMNS:
                raise ValueError(f"columns of unexpected types ({name}: is nested)")
            raise ValueError(f"unknown column {printable(name[:MAX_TEXT])!r}")
        dtype = OUTCOME_COLUMNS[name][0]
        if column.physical_type not in _KINDS[dtype] or column.max_repetition_level:
            raise ValueError(
                f"columns of unexpected types ({name}: expected {dtype}, "
                f"found {column.physical_type})"
            )


def _plain(arrow: pa.Table) -> pa.Table:
    """Texts as one dictionary each, short and few; numbers of the written types, if they fit."""
    import pyarrow as pa

    arrow = arrow.unify_dictionaries().combine_chunks()
    for place, name in enumerate(arrow.column_names):
        dtype, kind = OUTCOME_COLUMNS[name][0], arrow.schema.field(name).type
        is_text = pa.types.is_dictionary(kind) and kind.value_type in (
            pa.string(),
            pa.large_string(),
        )
        is_kind = {
            "string": is_text,
            "boolean": pa.types.is_boolean(kind),
            "int32": pa.types.is_integer(kind),
            "int16": pa.types.is_integer(kind),
            "Float32": pa.types.is_floating(kind),
            "float32": pa.types.is_floating(kind),
        }[dtype]
        if not is_kind:
            raise ValueError(
                f"columns of unexpected types ({name}: expected {dtype}, found {kind})"
            )
        if is_text:
            _check_dictionary(name, arrow.column(name))
        elif dtype != "boolean" and str(kind) != _arrow_name(dtype):
            target = pa.type_for_alias(_arrow_name(dtype))
            column = arrow.column(name).cast(target, safe=pa.types.is_integer(kind))
            arrow = arrow.set_column(place, name, column)
    return arrow


def _check_one_reading(arrow: pa.Table, content: bytes, texts: list[str]) -> None:
    """Texts are the same for readers that look up each row and for those that keep the dictionary.

    A dictionary that holds a text twice is read by pyarrow as one that holds it once, and all later
    numbers then stand for other texts than in the file. The texts are short by now.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without the types that pyarrow kept beside the table, texts are read as texts.
    bare = content.replace(_LIBRARY_KEYS[0], b"-" * len(_LIBRARY_KEYS[0]))
    # Not pq.read_table: it starts threads of pyarrow.dataset, and a process that ends before they
    # have begun ends with SIGABRT.
    with pq.ParquetFile(io.BytesIO(bare)) as file:
        plain = file.read(columns=texts, use_threads=False)
    for name in texts:
        expected = plain.column(name).cast(pa.string()).combine_chunks()
        if not arrow.column(name).cast(pa.string()).combine_chunks().equals(expected):
            raise ValueError(f"column {name}: its dictionary holds a text twice")


def _arrow_name(dtype: str) -> str:
    return "float" if dtype.lower() == "float32" else dtype


def _check_dictionary(name: str, column: pa.ChunkedArray) -> None:
    for chunk in column.chunks:
        values = chunk.dictionary
        found = len(values)
        if found > MAX_TEXTS:
            raise ValueError(f"column {name}: expected at most {MAX_TEXTS} texts, found {found}")
        texts = values.to_pylist()
        if None in texts:
            raise ValueError(f"column {name}: expected texts, but one is missing")
        longest = max((len(text.encode()) for text in texts), default=0)
        if longest > MAX_TEXT:
            raise ValueError(
                f"column {name}: expected texts of at most {MAX_TEXT} bytes, found {longest}"
            )


def _check_texts(columns: Columns, run: Run, path: Path) -> None:
    """Refuse texts that are none of the known ones."""
    known = {
        "epsilon": set(run.epsilons),
        "outcome": {str(outcome) for outcome in Outcome},
        "decided_by": {"", *DECIDED_BY},
        "carried_from": {"", *run.epsilons},
    }
    for name, expected in known.items():
        found = sorted(set(columns.texts[name].counts()) - expected)
        if found:
            raise ResultError(
                f"{path}: {name}: expected one of {', '.join(map(repr, sorted(expected)))}, "
                f"found {found[0]!r}"
            )
