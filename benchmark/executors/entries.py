"""Several results at once: a process for each entry, and workers that all of them share.

The process of an entry (`benchmark.executors.isolated.Process`) decides and writes; the workers of
the pool compute its jobs. What one entry does wrong leaves the others alone. Imports no torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from corobench.benchmark.errors import CorobenchError, SubmissionError
from corobench.benchmark.evaluation.settings import Evaluated
from corobench.benchmark.executors import isolated
from corobench.benchmark.executors.attempts import Attempts
from corobench.benchmark.executors.backend import LOOK_S, Backend, Setup
from corobench.benchmark.executors.child import End, require_libraries
from corobench.benchmark.executors.crew import Crew, num_cores
from corobench.benchmark.executors.isolated import LAST, NO_MESSAGE, SHOWN, Process
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.local_backend import LocalBackend
from corobench.benchmark.executors.pool import Asked, Done, Pool
from corobench.benchmark.executors.remote import RemoteReporter
from corobench.benchmark.executors.tasks import EVALUATE
from corobench.benchmark.executors.versions import versions
from corobench.benchmark.executors.wire import pack
from corobench.benchmark.executors.work import Watch, Work
from corobench.benchmark.files.steps import Ended

#: Workbenches that the process of one entry may describe.
MAX_BENCHES = 8
#: Jobs that it may wait for at once.
MAX_ASKED = 2_000_000
#: Bytes of answers that it may leave unread.
MAX_UNREAD_BYTES = 4 * 1024**3

Outcome = Evaluated | CorobenchError
MakeBackend = Callable[[Crew, Limits, Path], Backend]


def evaluate_all(
    works: Sequence[Work],
    limits: Limits,
    crew: Crew,
    watch: Watch,
    make_backend: MakeBackend | None = None,
) -> list[Outcome]:
    """Make several results.

    Args:
        works: to make.
        limits: of each process.
        crew: who computes.
        watch: is told how far each is.
        make_backend: what starts the workers; by default `crew` says it.

    Returns:
        For each work its result, or why there is none.

    Raises:
        CorobenchError: there are no workers.
        ModuleNotFoundError: a library that every process needs is not installed.
    """
    require_libraries()
    if not crew.computes_apart(tuple(work.cost_s for work in works)):
        return [_alone(work, limits, crew, watch) for work in works]
    with tempfile.TemporaryDirectory(prefix="corobench-", ignore_cleanup_errors=True) as scratch:
        make = make_backend or partial(_backend, watch.workers)
        backend = make(crew, limits, Path(scratch))
        try:
            size = int(getattr(backend, "size", crew.size))
            pool = Pool(backend, size, versions, watch.workers)
            watch.workers(f"{size} worker{'s' * (size != 1)}")
            return _Company(works, limits, crew, watch, pool, size, Path(scratch)).run()
        finally:
            backend.close()


def _backend(say: Callable[[str], None], crew: Crew, limits: Limits, scratch: Path) -> Backend:
    if crew.ray is not None:
        from corobench.benchmark.executors.ray_backend import RayBackend

        return RayBackend(crew, limits, scratch, say)
    return LocalBackend(limits, scratch, crew.devices)


def _alone(work: Work, limits: Limits, crew: Crew, watch: Watch) -> Outcome:
    """One result, computed in the process of its entry."""

    def send(**message: Any) -> None:
        watch.told(work, message)

    watch.began(work)
    settings = replace(work.settings, device=crew.devices[0])
    report = RemoteReporter(work.folder.name, send)
    try:
        outcome: Outcome = isolated.evaluate(work.folder, settings, limits, report)
    except CorobenchError as error:
        outcome = error
    watch.ended(work, outcome)
    return outcome


class _Driver:
    """The process of one entry, and its successors where it is lost.

    Args:
        work: to make.
        number: of the work.
        limits: of the process.
        device: where it computes what it does not hand out.
        watch: is told what it says.
        pool: computes its jobs.
        scratch: existing folder of its own.

    Attributes:
        outcome: once it is finished.
        has_asked: whether it has asked for jobs already.
    """

    def __init__(
        self,
        work: Work,
        number: int,
        limits: Limits,
        device: str,
        watch: Watch,
        pool: Pool,
        scratch: Path,
    ) -> None:
        self.work, self._number, self._limits = work, number, limits
        self._settings = replace(work.settings, device=device)
        self._watch, self._pool, self._scratch = watch, pool, scratch
        self._attempts = Attempts(work.folder, goes_on=True)
        self._num_started = 0
        self.outcome: Outcome | None = None
        self.has_asked = False
        self._start()

    def _start(self) -> None:
        self._watch.began(self.work)
        self._benches: dict[int, str] = {}
        self._num_started += 1
        arguments = {"folder": self.work.folder, "settings": self._settings}
        ended = self._attempts.ended
        self._process = Process(
            EVALUATE, arguments, ended, self._limits, self._scratch, has_workers=True
        )

    @property
    def waitables(self) -> Sequence[int]:
        return self._process.child.waitables

    def names(self) -> list[str]:
        """By which the pool knows it."""
        return list(self._benches.values())

    def num_left(self) -> int:
        """Jobs that it waits for."""
        return sum(map(self._pool.num_left, self.names()))

    def turn(self) -> None:
        """Do what the process says; start another one where it is lost."""
        if self.num_left():
            self._process.child.rest()  # the workers have limits of their own
        for message in self._process.told():
            if isinstance(message, End):
                self._again(message)
                return
            if message["kind"] in LAST:
                self._finish(message)
                return
            try:
                self._do(message)
            except NO_MESSAGE:
                self._again(End(Ended("sent what is no message", False), by_limit=True))
                return
        if self._process.child.waiting_bytes > MAX_UNREAD_BYTES:
            self._again(End(Ended("takes no answers", False), by_limit=True))

    def _do(self, message: Mapping[str, Any]) -> None:
        kind = message["kind"]
        if kind in SHOWN:
            self._watch.told(self.work, message)
        elif kind == "setup":
            self._open(message)
        elif kind == "jobs":
            self._ask(self._benches[message["bench"]], message["jobs"])
        elif kind == "cancel":
            bench = self._benches[message["bench"]]
            first, last = int(message["first"]), int(message["last"])
            self._pool.cancel(bench, first, last)
        elif kind == "spoilt":
            self._pool.spoilt(self._benches[message["bench"]], int(message["number"]))

    def _open(self, message: Mapping[str, Any]) -> None:
        number, name = int(message["bench"]), str(message["images"])
        images = self._scratch / name
        if number in self._benches or len(self._benches) >= MAX_BENCHES or "/" in name:
            raise ValueError("no new workbench")
        if images.is_symlink() or not images.is_file():  # a file elsewhere is none of its business
            raise ValueError("no file of images")
        told = dict(message["told"])
        folder = self.work.folder.absolute()
        setup = Setup(told, folder, images, str(message["sha256"]))
        entry = f"{self._number}.{self._num_started}.{number}"
        self._pool.open(entry, setup, self.work.cost_s)
        self._benches[number] = entry

    def _ask(self, bench: str, jobs: Sequence[Sequence[Any]]) -> None:
        asked = [Asked(int(one), str(name), str(kind), str(text)) for one, name, kind, text in jobs]
        if self.num_left() + len(asked) > MAX_ASKED:
            raise ValueError("too many jobs")
        self.has_asked = True
        self._pool.ask(bench, asked)

    def deliver(self, done: Sequence[Done]) -> None:
        """Pass on what became of its jobs."""
        listed: list[tuple[int, int, Ended | None]] = []
        bodies = []
        for one in done:
            if isinstance(one.answer, Ended):
                self._attempts.note_ended(one.name, one.answer)
                listed.append((one.number, 0, one.answer))
            else:
                listed.append((one.number, len(one.answer), None))
                bodies.append(one.answer)
        self._process.child.rest()
        self._process.child.post(pack({"kind": "answers", "answers": listed}, *bodies))

    def _again(self, end: End) -> None:
        step = self._process.step
        self.stop()
        try:
            text = self._attempts.note(step, end)
        except SubmissionError as error:
            self._end(error)
            return
        self._watch.told(self.work, {"kind": "say", "text": text, "number": 0})
        self._start()

    def _finish(self, message: dict[str, Any]) -> None:
        self.stop()
        try:
            self._end(isolated.evaluated(isolated.answer_of(EVALUATE, message)))
        except CorobenchError as error:
            self._end(error)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._watch.ended(self.work, outcome)

    def stop(self) -> None:
        """End its process; its jobs are of no use."""
        self._process.stop()
        for name in self.names():
            self._pool.close_entry(name)
        self._benches = {}


class _Company:
    """All drivers and the pool, in one loop."""

    def __init__(
        self,
        works: Sequence[Work],
        limits: Limits,
        crew: Crew,
        watch: Watch,
        pool: Pool,
        size: int,
        scratch: Path,
    ) -> None:
        self._works, self._limits, self._crew, self._watch = works, limits, crew, watch
        self._pool, self._scratch = pool, scratch
        self._size, self._most = size, size + 1
        self._drivers: dict[int, _Driver] = {}

    def run(self) -> list[Outcome]:
        """Until every result is there, or will not be."""
        waiting = sorted(range(len(self._works)), key=lambda one: -self._works[one].cost_s)
        outcomes: dict[int, Outcome] = {}
        try:
            while waiting or self._drivers:
                while waiting and self._wants_more():
                    self._begin(waiting.pop(0))
                self._turn()
                for number, driver in list(self._drivers.items()):
                    if driver.outcome is not None:
                        outcomes[number] = driver.outcome
                        del self._drivers[number]
        finally:
            for driver in self._drivers.values():
                driver.stop()
        return [outcomes[number] for number in range(len(self._works))]

    def _wants_more(self) -> bool:
        """Whether the workers will soon have too little to do: each entry's process takes memory.

        One entry is always begun beside the last one, so that its first stages fill the gaps.
        """
        drivers = self._drivers.values()
        if len(drivers) >= self._most:
            return False
        if sum(not driver.has_asked for driver in drivers) > num_cores():
            return False
        return len(drivers) < 2 or sum(driver.num_left() for driver in drivers) < 2 * self._size

    def _begin(self, number: int) -> None:
        scratch = self._scratch / f"entry-{number}"
        scratch.mkdir()
        self._drivers[number] = _Driver(
            self._works[number],
            number,
            self._limits,
            self._crew.devices[number % len(self._crew.devices)],
            self._watch,
            self._pool,
            scratch,
        )

    def _turn(self) -> None:
        ready = [one for driver in self._drivers.values() for one in driver.waitables]
        wait([*ready, *self._pool.waitables()], LOOK_S)
        for driver in self._drivers.values():
            driver.turn()
        by_entry: dict[str, list[Done]] = {}
        for done in self._pool.turn():
            by_entry.setdefault(done.entry, []).append(done)
        for driver in self._drivers.values():
            for name in driver.names():
                if name in by_entry:
                    driver.deliver(by_entry[name])
