"""A file of :mod:`benchmark.records.aside` -> its record, or one error that names every fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from corobench.benchmark.errors import ConfigError, ResultError
from corobench.benchmark.records.aside import Aside
from corobench.benchmark.records.reading.faults import describe
from corobench.benchmark.records.reading.result_file import parse_object

A = TypeVar("A", bound=Aside)


def read_aside(
    path: Path,
    kind: type[A],
    faults_of: Callable[[A], list[str]],
    max_bytes: int,
    what: str,
    way_out: str,
) -> A | None:
    """A record, or None where there is no file.

    Args:
        path: of the file.
        kind: class of the record.
        faults_of: why a record is not that of its result, one line each.
        max_bytes: of the file.
        what: what a file with a fault is told to be.
        way_out: what to do about it.

    Raises:
        ResultError: unreadable, damaged, or of another result; names all faults.
    """
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > max_bytes:
            raise ValueError(f"expected at most {max_bytes} bytes")
        text = path.read_text(encoding="utf-8")
        parse_object(text)
        record = kind.model_validate_json(text, strict=True)
        faults = faults_of(record)
        if not faults:
            return record
    except ValidationError as error:
        faults = [describe(fault, kind) for fault in error.errors()]
    except (OSError, ValueError, ConfigError, RecursionError) as error:
        faults = [str(error)]
    raise ResultError("\n".join([f"{path}: {what}", *faults, way_out]))
