"""A file with the classes of adversarial images -> :class:`Taken`, or an error with every fault."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.faults import describe
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import parse_object
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
    path = taken_path(result_path.absolute())
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        parse_object(text)
        taken = Taken.model_validate_json(text, strict=True)
        images = sha256_of(beside(result_path, ADVERSARIAL))
    except ValidationError as error:
        faults = [describe(fault, Taken) for fault in error.errors()]
    except (OSError, ValueError, RecursionError) as error:
        faults = [str(error)]
    else:
        faults = faults_of_taken(taken, result, images)
        if not faults:
            return taken
    raise ResultError(
        "\n".join([f"{path}: does not belong to the images of {result.entry}", *faults, _AGAIN])
    )
