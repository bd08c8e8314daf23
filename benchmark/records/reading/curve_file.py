"""A file with a security curve -> :class:`Curve`, or one error that names every fault."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from corobench.benchmark.errors import ConfigError, ResultError
from corobench.benchmark.records.curve import Curve, faults_of_curve
from corobench.benchmark.records.reading.faults import describe
from corobench.benchmark.records.reading.result_file import parse_object
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
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        parse_object(text)
        curve = Curve.model_validate_json(text, strict=True)
        for epsilon in curve.points:
            parse_epsilon(epsilon)
    except ValidationError as error:
        faults = [describe(fault, Curve) for fault in error.errors()]
    except (OSError, ValueError, ConfigError, RecursionError) as error:
        faults = [str(error)]
    else:
        faults = faults_of_curve(curve, result)
        if not faults:
            return curve
    raise ResultError("\n".join([f"{path}: is no curve of {result.entry}", *faults, _AGAIN]))
