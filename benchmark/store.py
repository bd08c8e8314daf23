"""Atomic, versioned files: result files, outcome tables and chunks.

A file is written beside its place and renamed, so that a reader sees the old one or the new one and
never half of it; `benchmark.result_writing` does that for the three files of a result together.
What reads result files and tables is in `benchmark.reading`; the names are here, too. Chunks carry
a checksum and live in a folder named after everything that identifies the result, so that a changed
weight, setting, library or engine never reuses one.
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

from benchmark.errors import OutputError
from benchmark.reading.places import beside as beside
from benchmark.reading.places import result_stem as result_stem
from benchmark.reading.result_file import read_payload as read_payload
from benchmark.reading.result_file import read_result as read_result
from benchmark.reading.result_file import read_scorecard as read_scorecard
from benchmark.reading.result_file import require_schema as require_schema
from benchmark.reading.table_file import RUN_KEY
from benchmark.reading.table_file import read_outcomes as read_outcomes
from benchmark.records import OUTCOME_COLUMNS, Result, Run

if TYPE_CHECKING:
    import pandas as pd

#: Keys of the result file that are left out where they are null.
ADDED_LATER = ("recognition", "constants", "files", "earlier")
_DIGEST_BYTES = 32


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


def encode_result(result: Result) -> bytes:
    """The bytes of a result file; equal results give equal bytes."""
    payload = result.model_dump(mode="json", by_alias=True)
    for key in ADDED_LATER:  # older results keep their bytes
        if payload[key] is None:
            del payload[key]
    return (json.dumps(payload, indent=1, ensure_ascii=False) + "\n").encode()


# -------------------------------------------------------------------------- outcome tables


def encode_outcomes(table: pd.DataFrame, run: Run) -> bytes:
    """An outcome table as parquet; the run's record travels in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table[list(OUTCOME_COLUMNS)], preserve_index=False)
    record = run.model_dump_json(by_alias=True).encode()
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), RUN_KEY: record})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    return buffer.getvalue()


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
