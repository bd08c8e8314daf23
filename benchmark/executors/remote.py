"""Progress of a process, told to the one that started it, which shows it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from corobench.benchmark.files.progress import Reporter


def show(report: Reporter, kind: str, text: str, number: int) -> None:
    """Show what a `RemoteReporter` sent.

    Args:
        report: that shows it.
        kind, text, number: the fields of its message; another kind shows nothing.
    """
    if kind == "title":
        report.title = text
    elif kind == "stage":
        report.stage(text, number)
    elif kind == "advance":
        report.advance(number, text)
    elif kind == "note":
        report.note(text)
    elif kind == "finish":
        report.finish(text)
    elif kind == "say":
        report.say(text)


class RemoteReporter(Reporter):
    """A reporter without a screen of its own.

    Args:
        title: what is worked on.
        send: takes the fields of one message.
    """

    def __init__(self, title: str, send: Callable[..., None]) -> None:
        self.title, self._send = title, send

    def __enter__(self) -> Self:
        self._send(kind="title", text=self.title)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def stage(self, name: str, total: int) -> None:
        self._send(kind="stage", text=name, number=total)

    def advance(self, num_images: int, note: str = "") -> None:
        self._send(kind="advance", text=note, number=num_images)

    def note(self, text: str) -> None:
        self._send(kind="note", text=text)

    def finish(self, note: str) -> None:
        self._send(kind="finish", text=note)

    def say(self, text: str) -> None:
        self._send(kind="say", text=text)
