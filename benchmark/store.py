"""Atomic, versioned files: result files, outcome tables and chunks.

A file is written beside its place and renamed, so that a reader sees the old one or the new one and
never half of it; `benchmark.result_writing` does that for the three files of a result together.
Chunks carry a checksum and live in a folder named after everything that identifies the result, so
that a changed weight, setting, library or engine never reuses one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from benchmark.errors import OutputError, ResultError
from benchmark.records import MAX_RESULT_BYTES, OUTCOME_COLUMNS, SCHEMA, Result, Run
from benchmark.result_set import beside as beside
from benchmark.result_set import staged, verify_set
from benchmark.safe_json import check_depth, no_repeats

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

#: Keys of the result file that are left out where they are null.
ADDED_LATER = ("recognition", "constants", "files")
_RUN_KEY = b"corobench.run"
_DIGEST_BYTES = 32
#: Largest outcome table that is read, once unpacked.
MAX_TABLE_ROWS = 1_000_000
MAX_TABLE_BYTES = 256 * 1024**2


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, making its folder where it is missing.

    Raises:
        OSError: the folder or file cannot be written; then an old file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """Write a result so that it is there whole or not at all.

    Raises:
        OutputError: the folder or file cannot be written.
    """
    try:
        replace_whole(path, content)
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def _cannot_be_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); "
        "choose another folder with --out, or mend its permissions or free space"
    )


def prepare_folder(folder: Path) -> None:
    """Make sure before hours of work that the result can be written.

    Raises:
        OutputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # leaves nothing, whatever ends this process
            pass
    except OSError as error:
        raise _cannot_be_written(folder, error) from error


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


# ---------------------------------------------------------------------------- result files


def result_stem(entry: str, n: int, standard_n: int) -> str:
    """File name of a result without its ending: another n than the standard one is named.

    >>> result_stem("lwm-10x", 1000, 1000), result_stem("lwm-10x", 100, 1000)
    ('lwm-10x', 'lwm-10x@100')
    """
    return entry if n == standard_n else f"{entry}@{n}"


def encode_result(result: Result) -> bytes:
    """The bytes of a result file; equal results give equal bytes."""
    payload = result.model_dump(mode="json", by_alias=True)
    for key in ADDED_LATER:  # older results keep their bytes
        if payload[key] is None:
            del payload[key]
    return (json.dumps(payload, indent=1, ensure_ascii=False) + "\n").encode()


def read_result(path: Path) -> Result:
    """Read a result file, and compare those of its set that lie beside it with their digests.

    Raises:
        ResultError: unreadable, not JSON, of another schema, or a key at fault; names it. Or a file
            beside it belongs to another result (`benchmark.result_set`).
    """
    result = read_scorecard(path)
    verify_set(path, result, missing_ok=True)
    return result


def read_scorecard(path: Path) -> Result:
    """Read a result file alone, whatever lies beside it.

    Raises:
        ResultError: unreadable, not JSON, of another schema, or a key at fault; names it.
    """
    payload = read_payload(path)
    require_schema(payload, path)
    try:
        result = Result.model_validate(payload)
    except ValidationError as error:
        raise ResultError(f"{path}: {describe_validation(error)}") from error
    check_counts(result, path)
    return result


def read_payload(path: Path) -> dict[str, Any]:
    """The JSON object of a result file, of whatever schema.

    Raises:
        ResultError: unreadable, not JSON, or no object.
    """
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise ValueError(f"more than {MAX_RESULT_BYTES} bytes")
        text = path.read_bytes().decode()
        check_depth(text)
        payload = json.loads(text, object_pairs_hook=no_repeats)
    except OSError as error:
        hint = ""
        if staged(path, "json").exists():
            hint = "; its writing was interrupted, and the same command again finishes it"
        raise ResultError(f"{path}: cannot be read ({error.strerror or error}){hint}") from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: not JSON ({error}); expected a result file") from error
    if not isinstance(payload, dict):
        found = type(payload).__name__
        raise ResultError(f"{path}: expected a result file, but found a JSON {found}")
    return payload


def require_schema(payload: Mapping[str, Any], path: Path) -> None:
    """Refuse a schema that this corobench does not read.

    Raises:
        ResultError: says whether it is newer, older or none.
    """
    found = payload.get("schema")
    if type(found) is int and found == SCHEMA:
        return
    hint = "was it written by `corobench evaluate`?"
    if type(found) is int:
        hint = "it was written by a newer corobench, so update this one"
        if found < SCHEMA:
            hint = "there is no way from it to today's"
    raise ResultError(f"{path}: schema: expected {SCHEMA}, but found {found!r}; {hint}")


def check_counts(result: Result, path: Path) -> None:
    """Refuse a result whose counts contradict each other.

    Raises:
        ResultError: counts that do not add up to n, or more images right under attack than
            without.
    """
    for epsilon, score in result.epsilons.items():
        total = sum(score.counts.values())
        if total != result.n:
            raise ResultError(
                f"{path}: epsilons.{epsilon}.counts: expected to add up to n = {result.n}, "
                f"but they add up to {total}"
            )
        numbers = [score.pgd50, score.autoattack, *score.certified_by.values()]
        if any(number is not None and number > result.clean for number in numbers):
            raise ResultError(
                f"{path}: epsilons.{epsilon}: more images right under attack than without "
                f"({result.clean})"
            )


def describe_validation(error: ValidationError) -> str:
    """pydantic's faults as one line each: key, what was expected, what was found."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
        f", but found {str(fault['input'])[:60]!r}"
        for fault in error.errors()
    )


# -------------------------------------------------------------------------- outcome tables


def encode_outcomes(table: pd.DataFrame, run: Run) -> bytes:
    """An outcome table as parquet; the run's record travels in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table[list(OUTCOME_COLUMNS)], preserve_index=False)
    record = run.model_dump_json(by_alias=True).encode()
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _RUN_KEY: record})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    return buffer.getvalue()


def read_outcomes(path: Path) -> tuple[pd.DataFrame, Run]:
    """Read an outcome table and the run it belongs to.

    Raises:
        ResultError: not an outcome table of corobench, or columns missing.
    """
    return typed_outcomes(*read_raw_outcomes(path), path)


def read_raw_outcomes(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """An outcome table with whatever columns it has, and its run as a JSON object.

    Raises:
        ResultError: not an outcome table of corobench.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_table_size(file)
            present = [name for name in OUTCOME_COLUMNS if name in file.schema_arrow.names]
            arrow = file.read(columns=present, use_threads=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultError(f"{path}: expected an outcome table (parquet): {reason}") from error
    record = (arrow.schema.metadata or {}).get(_RUN_KEY)
    try:
        run = json.loads(record or b"")
    except (ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise ResultError(f"{path}: not an outcome table of corobench (no run record inside)")
    return arrow, run


def typed_outcomes(arrow: pa.Table, record: dict[str, Any], path: Path) -> tuple[pd.DataFrame, Run]:
    """The same with today's columns and types.

    Raises:
        ResultError: columns missing, or a key of the run at fault.
    """
    missing = sorted(set(OUTCOME_COLUMNS) - set(arrow.column_names))
    if missing:
        raise ResultError(
            f"{path}: not an outcome table of corobench (columns missing: {', '.join(missing)}); "
            "if an earlier corobench wrote it, `corobench migrate` on its result file adds them"
        )
    import pyarrow as pa

    try:
        run = Run.model_validate_json(json.dumps(record))
    except ValidationError as error:
        raise ResultError(f"{path}: run record: {describe_validation(error)}") from error
    try:
        table = arrow.to_pandas()
        for column, (dtype, _) in OUTCOME_COLUMNS.items():
            table[column] = table[column].astype(dtype)
    except (TypeError, ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        raise ResultError(f"{path}: columns of other types than expected ({error})") from error
    return table[list(OUTCOME_COLUMNS)], run


def _check_table_size(file: pq.ParquetFile) -> None:
    """Compare what a table's footer claims with the limits, before it is unpacked.

    Raises:
        ValueError: too many rows or bytes.
    """
    groups = range(file.metadata.num_row_groups)
    num_bytes = sum(file.metadata.row_group(group).total_byte_size for group in groups)
    if file.metadata.num_rows > MAX_TABLE_ROWS or num_bytes > MAX_TABLE_BYTES:
        raise ValueError(
            f"at most {MAX_TABLE_ROWS} rows and {MAX_TABLE_BYTES} bytes are read, but it claims "
            f"{file.metadata.num_rows} rows and {num_bytes} bytes"
        )


# ---------------------------------------------------------------------------------- chunks


def chunk_name(work: str, epsilon: str, number: int | None = None) -> str:
    """File name of a chunk of some work at one epsilon, without its ending.

    >>> chunk_name("certify-IBP", "1/16", 3), chunk_name("health-steps", "1/16")
    ('certify-IBP-1_16-0003', 'health-steps-1_16')
    """
    name = f"{work}-{epsilon.replace('/', '_')}"
    return name if number is None else f"{name}-{number:04d}"


class ChunkStore:
    """Finished chunks of one evaluation, kept until its result file is written.

    Args:
        root: folder that holds the chunks of all evaluations.
        identity: everything that identifies the result, JSON-able.
    """

    def __init__(self, root: Path, identity: Mapping[str, object]) -> None:
        self.key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        self.folder = root / self.key[:24]
        self.reused = 0

    def load(self, name: str) -> dict[str, Any] | None:
        """Arrays of a finished chunk, or None if it is missing or damaged."""
        path = self.folder / f"{name}.chunk"
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(self.key.encode() + body).digest() != digest:
            return None
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        self.reused += 1
        return arrays

    def save(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keep the arrays of a finished chunk; whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
        body = buffer.getvalue()
        digest = hashlib.sha256(self.key.encode() + body).digest()
        write_atomic(self.folder / f"{name}.chunk", digest + body)

    def remove(self, pattern: str) -> None:
        """Remove the chunks whose names match a pattern of the shell."""
        for path in self.folder.glob(f"{pattern}.chunk"):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the chunks, once the result they lead to is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others' chunks are there
            self.folder.parent.rmdir()
