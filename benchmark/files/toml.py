"""TOML of strangers: read within limits that the parser of the standard library does not have."""

from __future__ import annotations

import re
import tomllib
from typing import Any

MAX_KEY_PARTS = 16
"""Parts of a dotted key or header."""

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(
    rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*\.[ \t]*{_PART}){{{MAX_KEY_PARTS}}}", re.ASCII
)


def read_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    A dotted key of thousands of parts, 60 kB, takes gigabytes to parse and a minute.

    Raises:
        ValueError: not TOML (`tomllib.TOMLDecodeError`), a whole number of more than 64 bits, or a
            dotted key of more than `MAX_KEY_PARTS` parts; in a string as well, where words are
            joined by so many dots.
        RecursionError: values nested too deeply.

    >>> read_toml("a.b = 1")
    {'a': {'b': 1}}
    """
    found = _LONG_KEY.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"more than {MAX_KEY_PARTS} parts joined by dots (at line {line})")
    table = tomllib.loads(text)
    _refuse_long_numbers(table)
    return table


def _refuse_long_numbers(table: dict[str, Any]) -> None:
    """TOML has whole numbers of 64 bits; the parser of the standard library takes any."""
    todo: list[tuple[str, Any]] = list(table.items())
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += [(f"{key}.{name}", one) for name, one in value.items()]
        elif isinstance(value, list):
            todo += [(key, one) for one in value]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"a whole number of more than 64 bits (`{key[:80]}`)")
