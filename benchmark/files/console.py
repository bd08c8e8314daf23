"""The console of every command, and its lines: what a stranger named does nothing there."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from corobench.benchmark.errors import shown


class _Plain(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        """Texts as they are, with what would move the cursor written out."""
        texts = (shown(one) if isinstance(one, str) else one for one in objects)
        super().print(*texts, **options)


def plain_console(**options: Any) -> Console:
    """A console that shows texts as they are: the words of `nets:boom:` name no picture.

    Args:
        options: of :class:`rich.console.Console`.
    """
    return _Plain(emoji=False, **options)


def say(text: str, *, err: bool = False) -> None:
    """One or more lines for people on standard output, or standard error."""
    click.echo(shown(text), err=err)
