"""How far the entries of one command are: what live tables, log lines and status files show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from corobench.benchmark.errors import CorobenchError, printable
from corobench.benchmark.evaluation.settings import Evaluated
from corobench.benchmark.executors.work import Watch, Work

#: Longest text of an entry's process that is shown.
MAX_TEXT = 300


def label_of(work: Work) -> str:
    """What a result to make is called: its entry, and how many images if that was chosen."""
    earlier = work.settings.earlier
    own = work.entry or work.folder.resolve().name
    name = printable(earlier.stem if earlier is not None else own)
    return name if work.settings.n is None else f"{name}@{work.settings.n}"


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, on one line and not too long."""
    return printable(str(message.get("text", "")))[:MAX_TEXT]


def number_of(message: Mapping[str, Any]) -> int:
    """The number of a message; 0 where it has none."""
    number = message.get("number", 0)
    return number if type(number) is int and 0 <= number < 2**53 else 0


@dataclass(frozen=True)
class Row:
    """One entry that is being worked on.

    Attributes:
        label: of the entry.
        stage: that runs, such as "autoattack 8/255".
        done, total: images of the stage.
        note: what is known so far: the bracket.
        began_s, stage_s: when the entry and its stage began, by a clock that only runs on.
    """

    label: str
    began_s: float
    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    stage_s: float = 0.0


@dataclass(frozen=True)
class Ending:
    """One entry that is finished.

    Attributes:
        label: of the entry.
        seconds: from its beginning to its end.
        outcome: the result, or why there is none.
    """

    label: str
    seconds: float
    outcome: Evaluated | CorobenchError


@dataclass(frozen=True)
class Snapshot:
    """All entries at one moment.

    Attributes:
        running: in the order in which they began.
        endings: in the order in which they ended.
        num_waiting: not begun yet.
        crew: one line about the workers.
        seconds: since the beginning.
    """

    running: tuple[Row, ...]
    endings: tuple[Ending, ...]
    num_waiting: int
    crew: str
    seconds: float

    @property
    def num_failed(self) -> int:
        """Entries without a result."""
        return sum(isinstance(ending.outcome, CorobenchError) for ending in self.endings)

    @property
    def counts(self) -> str:
        """How many are finished, running and waiting."""
        parts = [f"{len(self.endings) - self.num_failed} done"]
        if self.num_failed:
            parts.append(f"{self.num_failed} failed")
        return ", ".join([*parts, f"{len(self.running)} running", f"{self.num_waiting} waiting"])


@dataclass
class Board:
    """Keeps up with the entries of a command; may be read from another thread.

    Args:
        works: all that is to be made.
        clock: seconds that only run on.
    """

    works: Sequence[Work]
    clock: Callable[[], float] = time.monotonic
    _running: dict[Work, Row] = field(default_factory=dict)
    _endings: dict[Work, Ending] = field(default_factory=dict)
    _crew: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._began_s = self.clock()

    def began(self, work: Work) -> None:
        """The process of an entry has started."""
        with self._lock:
            now = self.clock()
            earlier = self._running.get(work)
            began_s = now if earlier is None else earlier.began_s
            self._running[work] = Row(label_of(work), began_s, stage_s=now)

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """What the process of an entry says."""
        kind, text = message.get("kind"), text_of(message)
        with self._lock:
            now = self.clock()
            row = self._running.get(work) or Row(label_of(work), now, stage_s=now)
            if kind == "stage":
                total = number_of(message)
                row = replace(row, stage=text, done=0, total=total, note="", stage_s=now)
            elif kind == "advance":
                row = replace(row, done=row.done + number_of(message), note=text or row.note)
            elif kind in ("note", "finish"):
                row = replace(row, note=text)
            self._running[work] = row

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """A result is there, or will not be."""
        with self._lock:
            row = self._running.pop(work, None)
            seconds = 0.0 if row is None else self.clock() - row.began_s
            self._endings[work] = Ending(label_of(work), seconds, outcome)

    def workers(self, text: str) -> None:
        """One line about the workers."""
        with self._lock:
            self._crew = printable(text)[:MAX_TEXT]

    def row(self, work: Work) -> Row | None:
        """An entry that is being worked on."""
        with self._lock:
            return self._running.get(work)

    def ending(self, work: Work) -> Ending | None:
        """An entry that is finished."""
        with self._lock:
            return self._endings.get(work)

    def snapshot(self) -> Snapshot:
        """All entries now."""
        with self._lock:
            waiting = len(self.works) - len(self._running) - len(self._endings)
            return Snapshot(
                tuple(self._running.values()),
                tuple(self._endings.values()),
                max(waiting, 0),
                self._crew,
                self.clock() - self._began_s,
            )


@dataclass(frozen=True)
class Together:
    """Several that watch the same; the first keeps the board that the others look at."""

    watches: tuple[Watch, ...]

    def began(self, work: Work) -> None:
        """Told to each."""
        for watch in self.watches:
            watch.began(work)

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """Told to each."""
        for watch in self.watches:
            watch.told(work, message)

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """Told to each."""
        for watch in self.watches:
            watch.ended(work, outcome)

    def workers(self, text: str) -> None:
        """Told to each."""
        for watch in self.watches:
            watch.workers(text)
