"""The workers of one command, shared by all its entries: hands out jobs, and replaces the lost.

The scheduler says who gets what, the backend brings it there. An answer is passed on unopened.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from corobench.benchmark.errors import CorobenchError, DependencyError
from corobench.benchmark.executors.backend import (
    Answered,
    Backend,
    Begun,
    Event,
    Failed,
    Lost,
    Order,
    Ready,
    Setup,
)
from corobench.benchmark.executors.scheduling import Decided, Scheduler, UnexpectedError
from corobench.benchmark.executors.versions import differences
from corobench.benchmark.files.steps import Ended

#: Workers that may be lost one after another, for each one there is, before any begins a job.
MAX_LOST_IN_A_ROW = 6
#: Answers of one entry that may turn out to be none before nothing more of it is tried.
MAX_SPOILT = 9


@dataclass(frozen=True)
class Asked:
    """A job as the process of an entry asks for it.

    Attributes:
        number: by which that process knows it.
        name: of the job.
        kind: of the job.
        text: the job as JSON.
    """

    number: int
    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Done:
    """What became of a job: the bytes of its arrays, or why there are none."""

    entry: str
    number: int
    name: str
    answer: bytes | Ended


@dataclass
class _Open:
    setup: Setup
    tokens: dict[int, int]
    num_left: int = 0
    num_spoilt: int = 0


@dataclass
class _Task:
    entry: str
    asked: Asked
    num_spoilt: int = 0
    answered_by: str | None = None
    is_left: bool = True


class Pool:
    """Workers, and the jobs of the entries that share them.

    Args:
        backend: that starts the workers.
        size: number of workers.
        versions: gives those of this command; workers with other ones are refused. It is asked
            when the first worker is ready, as it takes a second.
        say: told in one line what happens to workers.
    """

    def __init__(
        self,
        backend: Backend,
        size: int,
        versions: Callable[[], Mapping[str, str]],
        say: Callable[[str], None],
    ) -> None:
        self._backend, self._size, self._versions, self._say = backend, size, versions, say
        self._scheduler = Scheduler()
        self._workers: set[str] = set()
        self._entries: dict[str, _Open] = {}
        self._tasks: dict[int, _Task] = {}
        self._num_tokens = self._num_lost = self._num_refused = 0
        self._decided: list[tuple[int, bytes | Ended]] = []
        backend.start(size)

    @property
    def num_workers(self) -> int:
        """Workers that are ready or at work."""
        return len(self._workers)

    def waitables(self) -> Sequence[Connection | int]:
        """What to wait for, `LOOK_S` seconds at most, before `turn` is called."""
        return self._backend.waitables()

    # ---------------------------------------------------------------------------- of entries

    def open(self, entry: str, setup: Setup, cost_s: float = 0.0) -> None:
        """An entry will ask for jobs.

        Args:
            entry: a name that no other one has.
            setup: of its workbench.
            cost_s: estimated seconds of its work left.
        """
        self._entries[entry] = _Open(setup, {})
        self._scheduler.add_entry(entry, setup.key, cost_s)

    def ask(self, entry: str, jobs: Iterable[Asked]) -> None:
        """An entry asks for jobs; each is answered once by `turn`, unless it is cancelled."""
        found = self._entries[entry]
        tokens, new = found.tokens, []
        for asked in jobs:
            if asked.number in tokens:
                raise ValueError(f"job {asked.number} is asked for already")
            token = self._num_tokens
            self._num_tokens += 1
            tokens[asked.number] = token
            self._tasks[token] = _Task(entry, asked)
            found.num_left += 1
            new.append((token, asked.kind))
        self._decide(self._scheduler.add_jobs(entry, new))

    def cancel(self, entry: str, first: int, last: int) -> None:
        """An entry needs the jobs of these numbers no more, nor another answer to them."""
        known = self._entries[entry].tokens
        tokens = [known.pop(number) for number in list(known) if first <= number <= last]
        self._drop(self._scheduler.cancel(tokens))
        for token in tokens:
            self._forget(token)

    def num_left(self, entry: str) -> int:
        """Jobs that an entry waits for."""
        return self._entries[entry].num_left

    def spoilt(self, entry: str, number: int) -> None:
        """What was given as an answer is none: its worker is ended, and the job tried again."""
        found = self._entries[entry]
        token = found.tokens[number]
        task = self._tasks[token]
        worker, task.answered_by = task.answered_by, None
        if worker is None:
            raise ValueError(f"job {number} has no answer")
        found.num_spoilt += 1
        if worker in self._workers:
            self._backend.stop(worker)
            self._lose(Lost(worker, "its answer was no arrays"), blames=False)
        before = task.num_spoilt if found.num_spoilt <= MAX_SPOILT else MAX_SPOILT
        task.num_spoilt += 1
        task.is_left = True
        found.num_left += 1
        self._decide(self._scheduler.spoilt(entry, token, task.asked.kind, before))

    def close_entry(self, entry: str) -> None:
        """An entry needs nothing more."""
        self._drop(self._scheduler.remove_entry(entry))
        for token in self._entries[entry].tokens.values():
            self._forget(token)
        del self._entries[entry]

    def _forget(self, token: int) -> None:
        task = self._tasks.pop(token)
        self._entries[task.entry].num_left -= task.is_left

    def _drop(self, given: Sequence[tuple[str, int]]) -> None:
        by_worker: dict[str, list[int]] = {}
        for worker, token in given:
            by_worker.setdefault(worker, []).append(token)
        for worker, tokens in by_worker.items():
            self._backend.drop(worker, tokens)

    # ------------------------------------------------------------------------------ of workers

    def turn(self) -> list[Done]:
        """Take what the workers tell, hand out jobs, and give back what is decided.

        Raises:
            CorobenchError: there are no workers any more, and there will be none.
        """
        for event in self._backend.events():
            self._take(event)
        for given in self._scheduler.assign():
            orders = [Order(token, self._tasks[token].asked.text) for token in given.jobs]
            self._backend.give(given.worker, self._entries[given.entry].setup, orders)
        decided, self._decided = self._decided, []
        return [done for token, answer in decided if (done := self._give_back(token, answer))]

    def _give_back(self, token: int, answer: bytes | Ended) -> Done | None:
        task = self._tasks.get(token)
        if task is None:
            return None  # cancelled meanwhile
        task.is_left = False
        self._entries[task.entry].num_left -= 1
        return Done(task.entry, task.asked.number, task.asked.name, answer)

    def _take(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._welcome(event)
        elif isinstance(event, Lost):
            self._lose(event)
        elif event.worker in self._workers:
            try:
                self._hear(event)
            except UnexpectedError as error:
                self._backend.stop(event.worker)
                self._lose(Lost(event.worker, str(error)))

    def _hear(self, event: Begun | Answered | Failed) -> None:
        worker, token = event.worker, event.token
        if isinstance(event, Begun):
            self._scheduler.begun(worker, token)
            self._num_lost = 0
            return
        if isinstance(event, Failed):
            self._decide(self._scheduler.failed(worker, token, Ended(event.reason, False)))
        elif self._scheduler.answered(worker, token, event.seconds) is not None:
            self._tasks[token].answered_by = worker
            self._decided.append((token, event.body))

    def _decide(self, decided: Iterable[Decided]) -> None:
        self._decided += [(one.job, one.ended) for one in decided]

    def _welcome(self, event: Ready) -> None:
        other = differences(self._versions(), event.versions)
        if not other:
            self._workers.add(event.worker)
            self._scheduler.add_worker(event.worker)
            return
        self._backend.stop(event.worker)
        self._num_refused += 1
        self._say(f"{event.worker} ({event.where}) was refused: {other}")
        if not self._workers and self._num_refused >= self._size:
            raise DependencyError(
                f"every worker was refused; the last one has {other}. Install the same versions "
                "wherever a worker runs"
            )

    def _lose(self, event: Lost, *, blames: bool = True) -> None:
        if event.worker in self._workers:
            self._workers.remove(event.worker)
            if self._scheduler.has_begun(event.worker):
                self._num_lost = 0  # the job answers for it, a bounded number of times
            decided = self._scheduler.lost(
                event.worker, event.reason, event.by_limit, blames=blames
            )
            self._decide(decided)
        self._num_lost += 1
        if self._num_lost > MAX_LOST_IN_A_ROW * self._size:
            raise CorobenchError(
                f"{self._num_lost} workers were lost before they began a job; the last one: "
                f"{event.reason}"
            )
        self._say(f"{event.worker} was lost: {event.reason}; another one is started")
        self._backend.start(1)

    def close(self) -> None:
        """End all workers."""
        self._backend.close()
