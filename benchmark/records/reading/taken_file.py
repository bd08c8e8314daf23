"""A file with the classes of adversarial images -> :class:`Taken`, or an error with every fault."""

from __future__ import annotations

from pathlib import Path

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.aside_file import read_aside
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result
from corobench.benchmark.records.result_set import ADVERSARIAL, sha256_of
from corobench.benchmark.records.taken import Taken, faults_of_taken, taken_path

MAX_BYTES = 8 * 1024 * 1024
_AGAIN = "remove it, or write it again with `corobench pictures RESULTS --submissions DIR`"


def read_taken(result_path: Path, result: Result) -> Taken | None:
    """The classes that a result's adversarial images are taken for, or None without such a file.

    Args:
        result_path: of the result file.
        result: as read from it.

    Raises:
        ResultError: unreadable, damaged, or of another result or other images; names all faults.
    """
    return read_aside(
        taken_path(result_path.absolute()),
        Taken,
        lambda taken: faults_of_taken(taken, result, sha256_of(beside(result_path, ADVERSARIAL))),
        MAX_BYTES,
        f"does not belong to the images of {result.entry}",
        _AGAIN,
    )


def is_named(result_path: Path) -> bool:
    """Whether the classes of a result's images are there whole; others are to be written anew."""
    try:
        return read_taken(result_path, read_result(result_path)) is not None
    except ResultError:
        return False
