"""Which worker gets which job next: no input or output, no clock, nothing random.

Entries with the most work left come first; within an entry jobs keep their order. A worker that
holds an entry's workbench is preferred, but none idles while there is a job. A job whose worker is
lost is tried again on another one, a bounded number of times. The pool asks this class, and so does
the simulation, with times of its own.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from corobench.benchmark.executors.backend import NUM_HELD
from corobench.benchmark.executors.limits import MAX_ENDED
from corobench.benchmark.files.steps import PROOF_KINDS, Ended

#: Tries of one job in all, where its worker is lost each time.
MAX_TRIES = 3
#: Seconds of short jobs that a worker has waiting, so that it need not wait for the next one.
AHEAD_S = 0.1
MAX_AHEAD = 64
#: A worker stays with an entry that it holds while that has at least so much of the work that the
#: longest one has left.
STAYS = 0.5


class UnexpectedError(Exception):
    """A worker says something of a job that it was not given."""


@dataclass(frozen=True)
class Given:
    """Jobs for a worker, all of one entry, behind those it has."""

    worker: str
    entry: str
    jobs: tuple[int, ...]


@dataclass(frozen=True)
class Decided:
    """A job has no answer, and is not tried any more."""

    entry: str
    job: int
    ended: Ended


@dataclass
class _Job:
    job: int
    entry: _Entry
    kind: str
    num_tries: int = 0
    worker: _Worker | None = None


@dataclass
class _Entry:
    name: str
    bench: str
    cost_s: float
    order: int
    ready: OrderedDict[int, _Job] = field(default_factory=OrderedDict)
    given: dict[int, _Job] = field(default_factory=dict)
    spent_s: float = 0.0
    num_answered: int = 0
    num_ended: int = 0
    given_up: Ended | None = None
    mean_s: dict[str, float] = field(default_factory=dict)

    def left_s(self) -> float:
        """Estimated seconds left: what was said before, or what is known of the jobs at hand."""
        typical = self.spent_s / max(self.num_answered, 1)
        return max(self.cost_s - self.spent_s, typical * len(self.ready))

    def note_seconds(self, kind: str, seconds: float) -> None:
        self.spent_s += seconds
        self.num_answered += 1
        before = self.mean_s.get(kind, seconds)
        self.mean_s[kind] = before + 0.2 * (seconds - before)


@dataclass
class _Worker:
    name: str
    jobs: deque[_Job] = field(default_factory=deque)
    has_begun: bool = False
    held: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def hold(self, bench: str) -> None:
        self.held[bench] = None
        self.held.move_to_end(bench)
        while len(self.held) > NUM_HELD:
            self.held.popitem(last=False)


class Scheduler:
    """Jobs of several entries, and workers.

    Args:
        max_tries: of one job, where its worker is lost each time.
        max_ended: jobs of one entry that end without an answer before the others are given up.
    """

    def __init__(self, max_tries: int = MAX_TRIES, max_ended: int = MAX_ENDED) -> None:
        self._max_tries, self._max_ended = max_tries, max_ended
        self._entries: dict[str, _Entry] = {}
        self._jobs: dict[int, _Job] = {}
        self._workers: dict[str, _Worker] = {}
        self._num_entries = 0

    # ------------------------------------------------------------------------------ who is there

    @property
    def num_workers(self) -> int:
        return len(self._workers)

    @property
    def num_unanswered(self) -> int:
        """Jobs that are neither answered, nor given up, nor cancelled."""
        return len(self._jobs)

    def add_worker(self, worker: str) -> None:
        """A worker waits for jobs."""
        self._workers[worker] = _Worker(worker)

    def add_entry(self, entry: str, bench: str, cost_s: float = 0.0) -> None:
        """Jobs of an entry will come.

        Args:
            entry: its name here.
            bench: of the workbench that its jobs need; workers hold the last ones.
            cost_s: estimated seconds of its work left; 0 where nothing is known.
        """
        self._entries[entry] = _Entry(entry, bench, cost_s, self._num_entries)
        self._num_entries += 1

    def remove_entry(self, entry: str) -> list[tuple[str, int]]:
        """Cancel all that an entry has; worker and job of those that are given already."""
        found = self._entries.pop(entry)
        return self._forget([*found.ready.values(), *found.given.values()])

    # ----------------------------------------------------------------------------------- jobs

    def add_jobs(self, entry: str, jobs: Iterable[tuple[int, str]]) -> list[Decided]:
        """Jobs to compute, each with its kind, by which its duration is estimated.

        Returns:
            All of them, where the entry is given up already.
        """
        found = self._entries[entry]
        if found.given_up is not None:
            return [Decided(entry, job, found.given_up) for job, _ in jobs]
        for job, kind in jobs:
            if job in self._jobs:
                raise ValueError(f"job {job} is there already")
            self._jobs[job] = found.ready[job] = _Job(job, found, kind)
        return []

    def cancel(self, jobs: Iterable[int]) -> list[tuple[str, int]]:
        """Drop jobs; worker and job of those that are given already."""
        return self._forget([self._jobs[job] for job in jobs if job in self._jobs])

    def _forget(self, jobs: Sequence[_Job]) -> list[tuple[str, int]]:
        """What is given stays in its worker's list, as the worker may compute it all the same."""
        given = []
        for one in jobs:
            self._jobs.pop(one.job)
            one.entry.ready.pop(one.job, None)
            one.entry.given.pop(one.job, None)
            if one.worker is not None:
                given.append((one.worker.name, one.job))
        return given

    # ------------------------------------------------------------------------------ handing out

    def assign(self) -> list[Given]:
        """What to hand out now; until this returns nothing, call it again after each event."""
        given = []
        idle = [worker for worker in self._workers.values() if not worker.jobs]
        for stay in (True, False):
            for worker in idle:
                entry = None if worker.jobs else self._choose(worker, stay)
                if entry is not None:
                    given.append(self._give(worker, entry, 1))
        for worker in self._workers.values():
            entry, num = self._ahead(worker)
            if entry is not None and num:
                given.append(self._give(worker, entry, num))
        return given

    def _choose(self, worker: _Worker, stay: bool) -> _Entry | None:
        """The entry that a worker goes on with, or, unless it shall stay, the longest one."""
        ready = [entry for entry in self._entries.values() if entry.ready]
        if not ready:
            return None
        longest = max(ready, key=_length)
        if not stay:
            return longest
        least_s = STAYS * longest.left_s()
        held = [one for one in ready if one.bench in worker.held and one.left_s() >= least_s]
        return max(held, key=_length, default=None)

    def _ahead(self, worker: _Worker) -> tuple[_Entry | None, int]:
        """How many short jobs more a worker gets, of the entry that it works on."""
        if not worker.jobs:
            return None, 0
        last = worker.jobs[-1]
        entry = last.entry
        if not entry.ready or entry.name not in self._entries:
            return None, 0
        kind = next(iter(entry.ready.values())).kind
        mean_s = entry.mean_s.get(kind)
        if mean_s is None:
            return None, 0
        share = math.ceil(len(entry.ready) / len(self._workers))
        wanted = min(MAX_AHEAD, int(AHEAD_S / max(mean_s, 1e-6)), share)
        waiting = len(worker.jobs) - 1
        return (entry, wanted - waiting) if waiting <= wanted // 2 else (None, 0)

    def _give(self, worker: _Worker, entry: _Entry, num: int) -> Given:
        jobs: list[int] = []
        while entry.ready and len(jobs) < num:
            _, one = entry.ready.popitem(last=False)
            one.worker = worker
            entry.given[one.job] = one
            worker.jobs.append(one)
            jobs.append(one.job)
        worker.hold(entry.bench)
        return Given(worker.name, entry.name, tuple(jobs))

    # --------------------------------------------------------------------- what workers tell

    def has_begun(self, worker: str) -> bool:
        """Whether a worker has begun a job that it has not answered."""
        return self._workers[worker].has_begun

    def begun(self, worker: str, job: int) -> None:
        """A worker begins a job.

        Raises:
            UnexpectedError: it was not given this job, or has not answered the one before.
        """
        found = self._workers[worker]
        if found.has_begun:
            raise UnexpectedError(f"began job {job} before it answered another one")
        if not found.jobs or found.jobs[0].job != job:
            raise UnexpectedError(f"began job {job}, which is not its next one")
        found.has_begun = True

    def answered(self, worker: str, job: int, seconds: float) -> str | None:
        """A worker computed a job.

        Args:
            worker: its name.
            job: that it began.
            seconds: that the job took.

        Returns:
            The entry that waits for the answer; None where the job was cancelled meanwhile.

        Raises:
            UnexpectedError: it had not begun this job.
        """
        one = self._finish(worker, job)
        if one is None:
            return None
        if math.isfinite(seconds) and seconds >= 0:
            one.entry.note_seconds(one.kind, seconds)
        return one.entry.name

    def failed(self, worker: str, job: int, ended: Ended) -> list[Decided]:
        """A worker says that a job has no answer, such as after an exception.

        Raises:
            UnexpectedError: it had not begun this job.
        """
        one = self._finish(worker, job)
        return [] if one is None else self._end(one, ended)

    def _finish(self, worker: str, job: int) -> _Job | None:
        found = self._workers[worker]
        if not found.has_begun or not found.jobs or found.jobs[0].job != job:
            raise UnexpectedError(f"answered job {job}, which it had not begun")
        found.has_begun = False
        one = found.jobs.popleft()
        if self._jobs.pop(job, None) is None:
            return None
        one.entry.given.pop(job, None)
        return one

    def lost(
        self, worker: str, reason: str, by_limit: Ended | None = None, *, blames: bool = True
    ) -> list[Decided]:
        """A worker is no more; its jobs are tried again, the one that it had begun not for ever.

        Args:
            worker: its name.
            reason: for people.
            by_limit: why the job that it had begun ends, where a limit of ours ended it.
            blames: whether the loss may be because of that job.

        Returns:
            What is not tried again.
        """
        found = self._workers.pop(worker)
        jobs = [one for one in found.jobs if one.job in self._jobs]
        begun = found.jobs[0] if found.has_begun else None
        decided = []
        for one in reversed(jobs):
            one.worker = None
            one.entry.given.pop(one.job)
            if one is begun and blames:
                one.num_tries += 1
                if by_limit is not None or one.num_tries >= self._max_tries:
                    self._jobs.pop(one.job)
                    decided += self._end(one, by_limit or Ended(reason, by_clock=False))
                    continue
            if one.entry.given_up is not None:
                self._jobs.pop(one.job)
                decided.append(Decided(one.entry.name, one.job, one.entry.given_up))
                continue
            one.entry.ready[one.job] = one
            one.entry.ready.move_to_end(one.job, last=False)
        return decided

    def spoilt(self, entry: str, job: int, kind: str, num_before: int) -> list[Decided]:
        """An answer that was given was no answer: the job is tried again, not for ever.

        Args:
            entry: that the job belongs to.
            job: its number.
            kind: of the job.
            num_before: answers to it that were spoilt before.
        """
        found = self._entries[entry]
        one = _Job(job, found, kind, num_before + 1)
        if found.given_up is not None or one.num_tries >= self._max_tries:
            return self._end(one, found.given_up or Ended("no worker's answer was whole", False))
        self._jobs[job] = found.ready[job] = one
        found.ready.move_to_end(job, last=False)
        return []

    def _end(self, one: _Job, ended: Ended) -> list[Decided]:
        """A job has no answer; after too many, no other one of its entry is begun."""
        entry = one.entry
        decided = [Decided(entry.name, one.job, ended)]
        entry.num_ended += one.kind not in PROOF_KINDS
        if entry.num_ended >= self._max_ended and entry.given_up is None:
            entry.given_up = ended
            left = list(entry.ready.values())
            self._forget(left)
            decided += [Decided(entry.name, other.job, ended) for other in left]
        return decided


def _length(entry: _Entry) -> tuple[float, int]:
    return entry.left_s(), -entry.order
