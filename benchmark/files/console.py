"""The console of every command."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def plain_console(**options: Any) -> Console:
    """A console that shows texts as they are: the words of `nets:boom:` name no picture.

    Args:
        options: of :class:`rich.console.Console`.
    """
    return Console(emoji=False, **options)
