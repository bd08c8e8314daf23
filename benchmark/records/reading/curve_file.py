"""A file with a security curve -> :class:`Curve`, or one error that names every fault."""

from __future__ import annotations

from pathlib import Path

from corobench.benchmark.records.curve import Curve, faults_of_curve
from corobench.benchmark.records.reading.aside_file import read_aside
from corobench.benchmark.records.result import Result
from corobench.benchmark.tracks import parse_epsilon

MAX_BYTES = 64 * 1024
_AGAIN = "remove it, or measure it again with `corobench evaluate --curve`"


def read_curve(path: Path, result: Result) -> Curve | None:
    """The curve of a result, or None where there is none.

    Args:
        path: of the curve.
        result: that it must belong to.

    Raises:
        ResultError: unreadable, damaged, or of another result; names all faults.
    """

    def faults_of(curve: Curve) -> list[str]:
        for epsilon in curve.points:
            parse_epsilon(epsilon)
        return faults_of_curve(curve, result)

    return read_aside(path, Curve, faults_of, MAX_BYTES, f"is no curve of {result.entry}", _AGAIN)
