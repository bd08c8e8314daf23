"""The executor within the process of an entry: asks the parent for jobs, and checks what comes.

What a worker computed arrives as bytes; only here they are opened, and only as plain arrays.
"""

from __future__ import annotations

import json
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from corobench.benchmark.evaluation.jobs import Arrays, Executor, Job
from corobench.benchmark.executors import arrays
from corobench.benchmark.executors.images import write_images
from corobench.benchmark.executors.wire import GarbageError, Wire, pack, unpack
from corobench.benchmark.files.steps import Ended, StepEndedError, Steps

#: Jobs that are asked for in one message.
_NUM_AT_ONCE = 500


class Described(Protocol):
    """A workbench, and what another process needs to make the same one."""

    @property
    def setup(self) -> Any: ...
    @property
    def x(self) -> Any: ...
    @property
    def y(self) -> Any: ...


class Bridge:
    """The end of the connection to the parent.

    Args:
        wire: to the parent.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._arrived: queue.SimpleQueue[tuple[int, bytes | Ended]] = queue.SimpleQueue()
        self._waiting: dict[int, deque[tuple[int, bytes | Ended]]] = {}
        self._num_asked = self._num_benches = 0

    def send(self, **message: Any) -> None:
        """Tell the parent something."""
        self._wire.send(pack(message))

    def listen(self) -> None:
        """Take answers, in a thread of its own; end this process when the parent is gone."""
        try:
            while True:
                header, body = unpack(self._wire.receive())
                start = 0
                for number, size, ended in header["answers"]:
                    if ended is not None:
                        self._arrived.put((number, Ended(*ended)))
                        continue
                    self._arrived.put((number, body[start : start + size]))
                    start += size
        finally:
            os._exit(1)

    def executors(self, steps: Steps, scratch: Path) -> Callable[[Described], Executor]:
        """What makes the executor of a workbench.

        Args:
            steps: are told what is waited for.
            scratch: folder that the workers can read.
        """

        def executor(bench: Described) -> Executor:
            name, digest = write_images(scratch, _numpy(bench.x), _numpy(bench.y))
            number = self._num_benches
            self._num_benches += 1
            told = bench.setup.as_json()
            self.send(kind="setup", bench=number, told=told, images=name, sha256=digest)
            return _Remote(self, steps, number)

        return executor

    # -------------------------------------------------------------------------- of executors

    def ask(self, bench: int, jobs: Sequence[Job]) -> range:
        """Ask for jobs; their numbers."""
        numbers = range(self._num_asked, self._num_asked + len(jobs))
        self._num_asked += len(jobs)
        mine: deque[tuple[int, bytes | Ended]] = deque()
        self._waiting.update(dict.fromkeys(numbers, mine))
        asked = [
            [number, job.name, job.kind, json.dumps(job.as_json())]
            for number, job in zip(numbers, jobs, strict=True)
        ]
        for start in range(0, len(asked), _NUM_AT_ONCE):
            self.send(kind="jobs", bench=bench, jobs=asked[start : start + _NUM_AT_ONCE])
        return numbers

    def next_of(self, numbers: range) -> tuple[int, bytes | Ended]:
        """The next answer to one of the jobs asked for together; waits for it."""
        mine = self._waiting[numbers[0]]
        while not mine:
            number, answer = self._arrived.get()
            if number in self._waiting:
                self._waiting[number].append((number, answer))
        return mine.popleft()

    def spoilt(self, bench: int, number: int) -> None:
        """An answer was none, and is asked for again."""
        self.send(kind="spoilt", bench=bench, number=number)

    def forget(self, bench: int, numbers: range) -> None:
        """Nothing more is asked about these jobs; those that are left are cancelled."""
        for number in numbers:
            del self._waiting[number]
        self.send(kind="cancel", bench=bench, first=numbers[0], last=numbers[-1])


class _Remote:
    """Has the jobs of one workbench computed by workers."""

    def __init__(self, bridge: Bridge, steps: Steps, bench: int) -> None:
        self._bridge, self._steps, self._bench = bridge, steps, bench

    def map(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
        """See `benchmark.evaluation.jobs.Executor`."""
        left = []
        for job in jobs:
            ended = self._steps.why_ended(job.name)
            if ended is None:
                left.append(job)
            else:
                yield job, ended
        if not left:
            return
        try:
            self._steps.begin(f"workers on {left[0].name}")
        except StepEndedError as error:
            yield from ((job, error.ended) for job in left)
            return
        yield from self._ask(left)

    def _ask(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
        numbers = self._bridge.ask(self._bench, jobs)
        num_left = len(jobs)
        try:
            while num_left:
                number, answer = self._bridge.next_of(numbers)
                job = jobs[number - numbers[0]]
                if isinstance(answer, Ended):
                    self._steps.note_ended(job.name, answer)
                    found: Arrays | Ended = answer
                else:
                    try:
                        found = arrays.unpack(answer)
                    except GarbageError:
                        self._bridge.spoilt(self._bench, number)
                        continue
                num_left -= 1
                yield job, found
        finally:
            self._bridge.forget(self._bench, numbers)


def _numpy(values: Any) -> np.ndarray:
    """A tensor or array as an array in the memory of this machine."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
