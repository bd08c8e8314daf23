"""What pydantic found wrong, in the words of corobench: key, expected, found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from corobench.benchmark.errors import nearest

_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda _: "an integer",
    "int_from_float": lambda _: "an integer",
    "float_type": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "text",
    "dict_type": lambda _: "a table of keys and values",
    "tuple_type": lambda _: "a list",
    "list_type": lambda _: "a list",
    "model_type": lambda _: "a table of keys and values",
    "greater_than_equal": lambda context: f"at least {context['ge']}",
    "less_than_equal": lambda context: f"at most {context['le']}",
    "string_too_short": lambda context: f"at least {context['min_length']} characters",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "string_pattern_mismatch": lambda context: f"text like {context['pattern']}",
    "literal_error": lambda context: f"{context['expected']}",
    "enum": lambda context: f"{context['expected']}",
}


def describe(fault: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One line on one fault.

    Args:
        fault: an item of ``ValidationError.errors()``.
        root: the record that was read, for the names of known keys.

    >>> from corobench.benchmark.records.result import Seconds
    >>> describe({"type": "int_type", "loc": ("n",), "input": "9", "msg": ""}, Seconds)
    "n: expected an integer, found '9'"
    """
    key = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "the file"
    kind = str(fault["type"])
    if kind == "missing":
        return f"{key}: missing key"
    if kind == "extra_forbidden":
        known = _known_keys(root, fault["loc"][:-1])
        return f"{key}: unknown key; {nearest(str(fault['loc'][-1]), known)}"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{key}: {fault['msg']}"
    return f"{key}: expected {expected(fault.get('ctx', {}))}, found {_found(fault['input'])}"


def _found(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _known_keys(root: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys of the record that `loc` leads to; empty where it leads into a plain table."""
    record: type[BaseModel] | None = root
    for part in loc:
        record = _child(record, str(part)) if record is not None else None
    if record is None:
        return []
    return [field.alias or name for name, field in record.model_fields.items()]


def _child(record: type[BaseModel], key: str) -> type[BaseModel] | None:
    for name, field in record.model_fields.items():
        annotation = field.annotation
        if key in (name, field.alias) and isinstance(annotation, type):
            return annotation if issubclass(annotation, BaseModel) else None
    return None
