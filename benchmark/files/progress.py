"""Progress for people: a live bar on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from corobench.benchmark.files.console import plain_console


class RateColumn(ProgressColumn):
    """How many are done per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f}/s", style="progress.data.speed")


def live_bars(console: Console, unit: str, bar_width: int = 40) -> Progress:
    """Bars with a count, a rate, the time left and a field ``note``; silent without a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width),
        MofNCompleteColumn(),
        TextColumn(unit),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class Reporter:
    """Shows which stage runs, how far it is and what it found; writes to standard error.

    Without a terminal (a log, CI) each finished stage is one line, and a long one reports
    every `interval_s` seconds.

    Args:
        title: what is evaluated.
        console: where to write; standard error by default.
        interval_s: seconds between lines of one stage without a terminal.
    """

    def __init__(
        self, title: str, console: Console | None = None, interval_s: float = 20.0
    ) -> None:
        self.console = console or plain_console(file=sys.stderr, highlight=False)
        self.title = title
        self.interval_s = interval_s
        self._started = time.monotonic()
        self._stage_started = self._last_line = self._started
        self._stage, self._total, self._done = "", 0, 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if self.console.is_terminal:
            self._bar = live_bars(self.console, "images", bar_width=10)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` images."""
        self._stage, self._total, self._done = name, total, 0
        self._stage_started = self._last_line = time.monotonic()
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=total, note="")

    def advance(self, num_images: int, note: str = "") -> None:
        """Say that `num_images` more are done; `note` is what is known so far."""
        self._done += num_images
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=num_images, note=note)
        elif time.monotonic() - self._last_line > self.interval_s:
            self._last_line = time.monotonic()
            rate = self._done / max(self._last_line - self._stage_started, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            done = f"{self._done}/{self._total} images, {rate:.1f}/s, {left:.0f} s left"
            self.say(f"{self._stage}: {done}; {note}" if note else f"{self._stage}: {done}")

    def note(self, text: str) -> None:
        """What a long step does now, without an image more being done."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, note=text)
        elif time.monotonic() - self._last_line > self.interval_s:
            self._last_line = time.monotonic()
            self.say(f"{self._stage}: {self._done}/{self._total} images; {text}")

    def finish(self, note: str) -> None:
        """End a stage with what it found, as one line."""
        self.say(f"{self._stage}: {note} ({time.monotonic() - self._stage_started:.1f} s)")

    def say(self, text: str) -> None:
        """One line for people."""
        elapsed = time.monotonic() - self._started
        line = f"[{elapsed:6.1f} s] {self.title}: {text}"
        self.console.print(line, markup=False, soft_wrap=True)
