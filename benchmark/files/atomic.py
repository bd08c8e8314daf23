"""Files that are there whole or not at all, and JSON that is the same for the same values.

A file is written beside its place and renamed, so that a reader sees the old one or the new one and
never half of it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from corobench.benchmark.errors import OutputError


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
        "choose another folder with --out, or fix its permissions or free space"
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
