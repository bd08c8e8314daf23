"""One worker as the pool knows it: a process for each of the last entries, one of them at work.

No process ever holds the networks of two entries, so whatever one of them has become, it cannot
answer for another entry. Jobs of another entry wait here until those before them are answered.
Imports no torch.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from corobench.benchmark.executors.backend import NUM_HELD, Event, Lost, Order, Ready, Setup
from corobench.benchmark.executors.bench_process import BenchProcess
from corobench.benchmark.executors.child import Child, Target
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.versions import differences


class Slot:
    """A worker.

    Its first process tells the versions, and computes for the entry that comes first. The end of
    the process at work is the loss of the worker. One that waits for its entry's next job has
    nothing to say: if it ends, breaks a limit or speaks, it is ended, which no job is to blame for.

    Args:
        name: of the worker.
        device: on which it computes.
        limits: of each process: time of each job, memory.
        scratch: existing folder; each process writes in a folder of its own below it.
        target: what each process runs.
    """

    def __init__(
        self, name: str, device: str, limits: Limits, scratch: Path, target: Target
    ) -> None:
        self.name, self.device = name, device
        self._limits, self._scratch, self._target = limits, scratch, target
        self._num_started = 0
        self._versions: dict[str, str] | None = None
        self._orders: deque[tuple[Setup, Sequence[Order]]] = deque()
        self._dropped: set[int] = set()
        self._others: OrderedDict[str, BenchProcess] = OrderedDict()
        self._current = self._start()

    def _start(self) -> BenchProcess:
        scratch = self._scratch / f"process-{self._num_started}"
        scratch.mkdir()
        # What is forked from the same server is what the first one was; others are asked again.
        tells_versions = self._num_started == 0 or self.device != "cpu"
        self._num_started += 1
        return BenchProcess(
            self.name,
            self.device,
            self._limits,
            scratch,
            self._target,
            tells_versions=tells_versions,
        )

    @property
    def child(self) -> Child:
        """The process at work, or the one that was at work last."""
        return self._current.child

    @property
    def begun(self) -> int | None:
        """Token of the job that is computed."""
        return self._current.begun

    @property
    def children(self) -> list[Child]:
        """All its processes."""
        return [one.child for one in (*self._others.values(), self._current)]

    @property
    def waitables(self) -> list[int]:
        """What `multiprocessing.connection.wait` can wait for."""
        return [one for child in self.children for one in child.waitables]

    def give(self, setup: Setup, orders: Sequence[Order]) -> None:
        """Hand it jobs of one entry, behind those it has."""
        self._orders.append((setup, orders))
        self._go_on()

    def drop(self, tokens: Sequence[int]) -> None:
        """It need not compute these jobs, unless they are begun."""
        waiting = {order.token for _, orders in self._orders for order in orders}
        self._dropped |= waiting.intersection(tokens)
        given = [token for token in tokens if token not in waiting]
        if given:
            self._current.drop(given)

    def _go_on(self) -> None:
        """Hand on the jobs whose turn it is."""
        while self._orders:
            setup, orders = self._orders[0]
            if setup.key != self._current.key:
                if not self._current.is_done:
                    return
                self._turn_to(setup.key)
            self._orders.popleft()
            dropped = self._dropped.intersection(order.token for order in orders)
            self._dropped -= dropped
            self._current.give(setup, orders, dropped)

    def _turn_to(self, key: str) -> None:
        """Let the process of an entry be the one at work; start it where there is none."""
        if self._current.key is None:
            return
        self._others[self._current.key] = self._current
        held = self._others.pop(key, None)
        if held is not None and not held.is_quiet():
            held.child.stop()
            held = None
        if held is None:
            while len(self._others) >= NUM_HELD:
                self._others.popitem(last=False)[1].child.stop()
        self._current = held or self._start()

    def events(self) -> list[Event]:
        """What has happened; a `Lost` is the last, after which `stop` is called."""
        for key, other in list(self._others.items()):
            if not other.is_quiet():
                del self._others[key]
                other.child.stop()
        found = []
        for event in self._heard():
            found.append(event)
            if isinstance(event, Lost):
                return found
        self._go_on()
        return found

    def _heard(self) -> Iterator[Event]:
        for event in self._current.events():
            if not isinstance(event, Ready):
                yield event
            elif self._versions is None:
                self._versions = dict(event.versions)
                yield event
            elif other := differences(self._versions, event.versions):
                yield Lost(self.name, f"has other versions than before: {other}")

    def stop(self) -> None:
        """End all its processes."""
        for child in self.children:
            child.stop()
