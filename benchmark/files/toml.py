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
        ValueError: not TOML (`tomllib.TOMLDecodeError`), or a dotted key of more than
            `MAX_KEY_PARTS` parts; in a string as well, where words are joined by so many dots.
        RecursionError: values nested too deeply.

    >>> read_toml("a.b = 1")
    {'a': {'b': 1}}
    """
    found = _LONG_KEY.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"more than {MAX_KEY_PARTS} parts joined by dots (at line {line})")
    return tomllib.loads(text)
