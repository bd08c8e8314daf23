"""Result JSON -> :class:`Result`, or one error that names the file and every fault in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.regular import open_regular
from corobench.benchmark.files.safe_json import check_depth, no_repeats
from corobench.benchmark.files.text import byte_order_mark
from corobench.benchmark.records.base import visible
from corobench.benchmark.records.reading.consistency import contradictions
from corobench.benchmark.records.reading.faults import describe
from corobench.benchmark.records.reading.places import misplaced
from corobench.benchmark.records.result import MAX_RESULT_BYTES, SCHEMA, Result
from corobench.benchmark.records.result_set import staged, verify_set

#: Longest text of a result; a manifest's description is the longest that is written.
MAX_TEXT = 4000
#: Longest number that is read; ours are counts, seconds and a seed of at most 19 digits.
MAX_DIGITS = 32
#: Keys whose texts may have several lines.
_LINES = ("description", "extra_data_source")


def read_result(path: Path) -> Result:
    """Read a result file, and compare those of its set that lie beside it with their digests.

    Raises:
        ResultError: see :func:`read_scorecard`; or a file beside it belongs to another result.
    """
    result = read_scorecard(path)
    verify_set(path, result, missing_ok=True)
    return result


def read_scorecard(path: Path) -> Result:
    """Read a result file alone, whatever lies beside it.

    A file that lies where results lie, ``<protocol>/<track>/<entry>.json``, must be the one that
    its path names; elsewhere it may have any name.

    Raises:
        ResultError: unreadable, not JSON, of another schema, a key at fault, numbers that
            contradict each other, or a path that says something else; names all faults.
    """
    text, payload = _read(path)
    require_schema(payload, path)
    try:
        result = Result.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise fault_error(path, [describe(fault, Result) for fault in error.errors()]) from None
    except RecursionError:
        raise fault_error(path, ["nested too deeply for a result"]) from None
    found = contradictions(result) + misplaced(path, result)
    if found:
        raise fault_error(path, found)
    return result


def read_payload(path: Path) -> dict[str, Any]:
    """The JSON object of a result file, of whatever schema.

    Raises:
        ResultError: unreadable, not JSON, or no object.
    """
    return _read(path)[1]


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object from a stranger: no name twice, no NaN, nothing endless, not too deep.

    Raises:
        ValueError: says what is wrong.

    >>> parse_object('{"a": 1}')
    {'a': 1}
    >>> parse_object('{"a": NaN}')
    Traceback (most recent call last):
    ...
    ValueError: expected a finite number, found NaN
    """
    check_depth(text)
    payload = json.loads(
        text,
        parse_constant=_refuse_constant,
        parse_int=_parse_int,
        parse_float=_parse_float,
        object_pairs_hook=no_repeats,
    )
    if not isinstance(payload, dict):
        raise ValueError(f"found a JSON {type(payload).__name__}, and no object")
    _check_texts(payload)
    return payload


def _check_texts(payload: dict[str, Any]) -> None:
    """Refuse texts longer than any that is written, and those in which something is hidden.

    Keys and values end up on pages, in terminals and in the logs of jobs: a long one fills them, a
    control character moves the cursor or begins a line of its own, which may be a command.
    """
    todo: list[tuple[str, object]] = [("", payload)]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += [("", name) for name in value]
            todo += value.items()
        elif isinstance(value, list):
            todo += [(key, one) for one in value]
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            raise ValueError(
                f"{_place_of(payload, value)}: expected a text of at most {MAX_TEXT} characters, "
                f"found {len(value)}"
            )
        elif isinstance(value, str):
            try:
                visible(value, "\n\t" if key in _LINES else "")
            except ValueError as error:
                raise ValueError(f"{_place_of(payload, value)}: expected {error}") from None


def _place_of(payload: dict[str, Any], text: str) -> str:
    """The key under which a text stands, for a message."""
    todo: list[tuple[str, object]] = [("", payload)]
    while todo:
        key, value = todo.pop()
        if value is text:
            return key
        if isinstance(value, dict):
            todo += [(f"{key}: a key", name) for name in value]
            todo += [(f"{key}.{name[:MAX_DIGITS]}".lstrip("."), one) for name, one in value.items()]
        elif isinstance(value, list):
            todo += [(key, one) for one in value]
    return ""


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
        hint = "it was written by a newer corobench; update this one"
        if found < SCHEMA:
            hint = "it cannot be migrated to the current schema"
    raise fault_error(path, [f"schema: expected {SCHEMA}, but found {found!r}; {hint}"])


def fault_error(path: Path, faults: list[str]) -> ResultError:
    """The error of a result file with all that is wrong in it."""
    lines = "\n".join(f"  - {fault}" for fault in faults)
    return ResultError(f"{path}: not a valid result file\n{lines}")


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_RESULT_BYTES + 1)
        if len(content) > MAX_RESULT_BYTES:
            raise ValueError(f"more than {MAX_RESULT_BYTES} bytes")
        if (mark := byte_order_mark(content)) is not None:
            raise fault_error(path, [mark])
        text = content.decode()
        return text, parse_object(text)
    except OSError as error:
        hint = ""
        if staged(path, "json").exists():
            hint = "; its write was interrupted: give the same command again to finish it"
        elif path.is_dir():
            names = sorted(one.name for one in path.glob("*.json"))
            hint = "; name the result file in it" + (f", such as {names[0]}" if names else "")
        raise ResultError(f"{path}: cannot be read ({error.strerror or error}){hint}") from error
    except UnicodeDecodeError as error:
        fault = f"expected UTF-8 text, but byte {error.start} is not"
        raise fault_error(path, [fault]) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        fault = f"expected JSON, found an error at {place}: {error.msg}"
        raise fault_error(path, [fault]) from error
    except (ValueError, RecursionError) as error:
        raise fault_error(path, [f"expected JSON of a result: {error}"]) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected a finite number, found {name}")


def _parse_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits, found {text[:12]}…")
    return int(text)


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"expected a finite number, found {text[:12]}")
    return value
