"""JSON from strangers: refused by its depth before a parser sees it; imports nothing heavy."""

from __future__ import annotations

import re
from typing import Any

#: Deepest nesting of arrays and objects that is read; our own files use six levels.
MAX_DEPTH = 64

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def check_depth(text: str) -> None:
    """Refuse JSON nested so deeply that a recursive parser could exhaust the stack.

    The interpreter's recursion limit is no protection: libraries raise it for the whole process.

    Args:
        text: the JSON text; need not be valid.

    Raises:
        ValueError: nested deeper than ``MAX_DEPTH``.

    >>> check_depth('{"a": [1, "[[[["]}')
    >>> check_depth("[" * 65)
    Traceback (most recent call last):
    ...
    ValueError: nested deeper than 64 levels
    """
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for ``object_pairs_hook``: two readers must not see two values of a key.

    Raises:
        ValueError: a name is listed twice.
    """
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is listed twice")
    return table
