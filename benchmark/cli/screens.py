"""Progress of entries for people: one as ever, several as a live table or as lines of a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from corobench.benchmark.errors import CorobenchError, printable
from corobench.benchmark.evaluation.settings import Evaluated
from corobench.benchmark.executors.board import (
    Board,
    Ending,
    Row,
    Snapshot,
    label_of,
    number_of,
    text_of,
)
from corobench.benchmark.executors.remote import show
from corobench.benchmark.executors.work import Work
from corobench.benchmark.files.console import plain_console
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.scoring.ranking import bracket

#: Lines of a terminal that the live table leaves for its head, its counts and the prompt.
SPARE_LINES = 6


def error_console() -> Console:
    """Standard error, where progress is shown."""
    return plain_console(file=sys.stderr, highlight=False)


def found_in(outcome: Evaluated | CorobenchError) -> str:
    """What came out, in one line: the bracket at each radius, or the first fault."""
    if isinstance(outcome, CorobenchError):
        lines = outcome.message.splitlines() or [""]
        return printable(lines[1].strip(" -") if len(lines) == 2 else lines[0])[:200]
    ends = {epsilon: bracket(score) for epsilon, score in outcome.result.epsilons.items()}
    n = outcome.result.n
    shares = [
        f"{epsilon}: {100 * end.low / n:.1f}–{100 * end.high / n:.1f} %"
        for epsilon, end in ends.items()
    ]
    return ", ".join(shares)


def length(seconds: float) -> str:
    """A time for people.

    >>> length(7.4), length(125), length(7300)
    ('7 s', '2 min 05 s', '2 h 01 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class OneReport:
    """The progress of one entry, as it always was.

    Args:
        console: where to write; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or error_console()
        self._stack = ExitStack()
        self._report: Reporter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _of(self, work: Work) -> Reporter:
        if self._report is None:
            title = printable(work.folder.resolve().name)
            self._report = self._stack.enter_context(Reporter(title, self._console))
        return self._report

    def began(self, work: Work) -> None:
        """Nothing is shown before there is something to say."""

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """Shown by the reporter."""
        show(self._of(work), str(message.get("kind")), text_of(message), number_of(message))

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """The command shows the result."""

    def workers(self, text: str) -> None:
        """One line."""
        self._console.print(printable(text), markup=False, soft_wrap=True)


class PlainLines:
    """Lines of a log, each with the name of its entry.

    What an entry says of its stages is at most one line every `interval_s` seconds; its end, and
    what it says besides, always is one.

    Args:
        board: that somebody else keeps.
        console: where to write; standard error by default.
        interval_s: seconds between lines of the stages of one entry.
        clock: seconds that only run on.
    """

    def __init__(
        self,
        board: Board,
        console: Console | None = None,
        interval_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board, self._console = board, console or error_console()
        self._interval_s, self._clock = interval_s, clock
        self._last: dict[Work, float] = {}
        self._began = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def _say(self, label: str, text: str) -> None:
        line = f"[{self._clock() - self._began:6.1f} s] {label}: {text}"
        self._console.print(line, markup=False, soft_wrap=True)

    def began(self, work: Work) -> None:
        """The first line of its stages comes after a while."""
        self._last.setdefault(work, self._clock())

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """A line, where it is time for one."""
        if message.get("kind") == "say":
            self._say(label_of(work), text_of(message))
            return
        row, now = self._board.row(work), self._clock()
        if row is None or now - self._last.get(work, 0.0) <= self._interval_s:
            return
        if message.get("kind") in ("advance", "note", "finish"):
            self._last[work] = now
            done = f"{row.done}/{row.total} images" if row.total else ""
            self._say(row.label, f"{row.stage}: " + "; ".join(filter(None, (done, row.note))))

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """How it ended, and how many are left."""
        ending, at = self._board.ending(work), self._board.snapshot()
        seconds = 0.0 if ending is None else ending.seconds
        word = "failed: " if isinstance(outcome, CorobenchError) else ""
        self._say(label_of(work), f"{word}{found_in(outcome)} ({seconds:.1f} s); {at.counts}")

    def workers(self, text: str) -> None:
        """One line."""
        self._say("workers", printable(text))


class LiveTable:
    """A table on a terminal: what runs, what ended, and counts of what does not fit.

    Args:
        board: that somebody else keeps.
        console: a terminal; standard error by default.
    """

    def __init__(self, board: Board, console: Console | None = None) -> None:
        self._board = board
        self._console = console or error_console()
        self._live = Live(
            self, console=self._console, refresh_per_second=4, transient=True, screen=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        yield from table_of(self._board.snapshot(), max(height - SPARE_LINES, 1), self._board.clock)

    def began(self, work: Work) -> None:
        """The table shows the board."""

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """What an entry says besides its stages stays above the table."""
        if message.get("kind") == "say":
            line = f"{label_of(work)}: {text_of(message)}"
            self._console.print(line, markup=False, soft_wrap=True)

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """A fault stays above the table."""
        if isinstance(outcome, CorobenchError):
            text = f"{label_of(work)}: failed: {found_in(outcome)}"
            self._console.print(text, markup=False, soft_wrap=True, style="red")

    def workers(self, text: str) -> None:
        """The line below the table."""


def table_of(at: Snapshot, num_rows: int, clock: Callable[[], float]) -> tuple[Table, Text]:
    """The table of one moment, and the line below it.

    What runs comes first, then what failed, then what ended last; the others are counts.

    Args:
        at: the moment.
        num_rows: rows that fit.
        clock: the clock of the board.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("entry", no_wrap=True, overflow="ellipsis", max_width=44)
    table.add_column("stage", no_wrap=True)
    table.add_column("images", justify="right", no_wrap=True)
    table.add_column("so far", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("time", justify="right", no_wrap=True)
    room = max(num_rows - min(len(at.running), num_rows), 0)
    failed = [one for one in at.endings if isinstance(one.outcome, CorobenchError)][-room:]
    failed = failed if room else []
    room -= len(failed)
    done = [one for one in at.endings if isinstance(one.outcome, Evaluated)]
    for ending in [*(done[-room:] if room > 0 else []), *failed]:
        _add_ending(table, ending)
    now = clock()
    for row in at.running[:num_rows]:
        _add_running(table, row, now)
    hidden = len(at.running) - num_rows
    parts = [at.counts, at.crew, length(at.seconds)]
    if hidden > 0:
        parts.insert(1, f"{hidden} running ones not shown")
    return table, Text("; ".join(filter(None, parts)), style="dim")


def _add_running(table: Table, row: Row, now: float) -> None:
    done = f"{row.done}/{row.total}" if row.total else ""
    cells = (row.label, row.stage, done, row.note, length(max(now - row.began_s, 0.0)))
    table.add_row(*(Text(cell) for cell in cells))


def _add_ending(table: Table, ending: Ending) -> None:
    is_failed = isinstance(ending.outcome, CorobenchError)
    cells = (
        ending.label,
        "failed" if is_failed else "done",
        "",
        found_in(ending.outcome),
        length(ending.seconds),
    )
    table.add_row(*(Text(cell) for cell in cells), style="red" if is_failed else "green")


Screen = OneReport | PlainLines | LiveTable


def screen_of(board: Board, console: Console | None = None) -> Screen:
    """What fits the number of entries and the console."""
    console = console or error_console()
    if len(board.works) == 1:
        return OneReport(console)
    return LiveTable(board, console) if console.is_terminal else PlainLines(board, console)
