"""``submission.toml`` to a :class:`~corobench.benchmark.records.result.Manifest`, with every fault
named at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from corobench.benchmark.errors import SubmissionError, nearest
from corobench.benchmark.files.text import byte_order_mark
from corobench.benchmark.files.toml import read_toml
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission.files import FileFaultError, read_plain_file

MANIFEST = "submission.toml"
#: Largest manifest that is read.
MAX_MANIFEST_BYTES = 64 * 1024
MAX_SHOWN = 80
#: Pattern of a key -> what it asks for, in words.
_PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]{0,79}$": "at most 80 letters a-z, digits, dots, underscores and dashes, "
    "beginning with a letter or a digit",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "the name of a file of letters, digits, dots, underscores and "
    "dashes",
    r"^https?://[^\s<>\"']+$": "an address that begins with http:// or https://",
}


def load_manifest(folder: Path) -> Manifest:
    """Read and validate the manifest of a submission folder.

    Args:
        folder: that holds ``submission.toml``.

    Raises:
        SubmissionError: no folder, no manifest, not TOML, or values that break rules.
    """
    folder = Path(folder)
    if folder.is_file():
        raise SubmissionError(
            folder,
            [
                "expected a submission folder, but this is a file; name the folder that holds it, "
                "or make one of a model with `corobench import`"
            ],
        )
    if not folder.is_dir():
        raise SubmissionError(folder, ["expected a submission folder, but there is none"])
    try:
        content = read_plain_file(folder, MANIFEST, MAX_MANIFEST_BYTES)
    except FileFaultError as error:
        raise SubmissionError(folder, [str(error)]) from error
    try:
        return parse_manifest(content)
    except SubmissionError as error:
        raise SubmissionError(folder, error.faults) from error


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in the bytes of a ``submission.toml``.

    Raises:
        SubmissionError: not UTF-8, not TOML (a repeated key, say), or values that break rules.
    """
    if (mark := byte_order_mark(content)) is not None:
        raise SubmissionError(MANIFEST, [f"{MANIFEST}: {mark}"])
    try:
        table = read_toml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        fault = f"{MANIFEST}: expected UTF-8, but byte {error.start} is not"
        raise SubmissionError(MANIFEST, [fault]) from error
    except (RecursionError, ValueError) as error:
        fault = f"{MANIFEST}: expected valid TOML with every key once, but found: {error}"
        raise SubmissionError(MANIFEST, [fault]) from error
    return check_manifest(table)


def check_manifest(table: Mapping[str, Any]) -> Manifest:
    """A manifest from its TOML table; nothing is converted: "10" is not 10.

    Raises:
        SubmissionError: one fault per key that is unknown, missing or wrong.
    """
    try:
        text = json.dumps(table, default=_not_json)
    except (RecursionError, ValueError) as error:
        fault = f"{MANIFEST}: expected tables that are nested less deeply, but found: {error}"
        raise SubmissionError(MANIFEST, [fault]) from error
    try:
        # JSON's strict mode takes lists for tuples and nothing else for what it is not.
        return Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        details = error.errors()
        # A list whose items are at fault counts as too short as well, which tells nothing.
        inner = {detail["loc"][:-1] for detail in details}
        faults = [
            _translate(dict(detail), table)
            for detail in details
            if detail["type"] != "too_short" or detail["loc"] not in inner
        ]
        unique = list(dict.fromkeys(f"{MANIFEST}: {fault}" for fault in faults))
        raise SubmissionError(MANIFEST, unique) from error


def format_manifest(manifest: Manifest) -> bytes:
    """The manifest as TOML that :func:`parse_manifest` reads back to the same record."""
    table = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return tomli_w.dumps(table).encode("utf-8")


def _not_json(value: object) -> dict[str, str]:
    """Dates and times, which no key takes."""
    return {type(value).__name__: str(value)}


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys of the table that holds the last part of `location`."""
    record: type[BaseModel] = Manifest
    for part in location[:-1]:
        field = record.model_fields.get(str(part))
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        inner = [
            item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)
        ]
        if not inner:
            return []
        record = inner[0]
    return [field.alias or name for name, field in record.model_fields.items()]


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _translate(detail: dict[str, Any], table: Mapping[str, Any]) -> str:
    """One line for one fault pydantic found: the key, what was expected, what was found."""
    location = tuple(detail["loc"])
    if not location:
        return f"expected tables that are nested less deeply, but found: {detail['msg']}"
    if location[:2] == ("model", "arguments") and len(location) > 2:
        return (
            f"`model.arguments.{location[2]}`: expected true or false, a number, text or a list "
            f"of numbers, but found {_show(table['model']['arguments'][location[2]])}"
        )
    key = ".".join(str(part) for part in location)
    kind, found = detail["type"], _show(detail["input"])
    if kind == "extra_forbidden":
        return f"unknown key `{key}`: {nearest(str(location[-1]), _known_keys(location))}"
    if kind == "missing":
        return f"missing key `{key}`: expected it in the manifest, but it is not there"
    context = detail.get("ctx", {})
    expected = {
        "string_pattern_mismatch": _PATTERNS.get(
            str(context.get("pattern")), f"text that matches {context.get('pattern')}"
        ),
        "literal_error": f"{context.get('expected')}",
        "string_too_short": f"text of at least {context.get('min_length')} character(s)",
        "string_too_long": f"text of at most {context.get('max_length')} characters",
        "too_short": f"at least {context.get('min_length')} item(s)",
        "greater_than_equal": f"at least {context.get('ge')}",
        "less_than_equal": f"at most {context.get('le')}",
        "string_type": "text",
        "int_type": "an integer",
        "float_type": "a number",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "list_type": "a list",
        "dict_type": "a table",
        "model_type": "a table",
        "value_error": str(context.get("error", "")),
    }.get(kind, detail["msg"])
    return f"`{key}`: expected {expected}, but found {found}"
