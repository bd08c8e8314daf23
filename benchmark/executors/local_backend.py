"""Workers that are processes of this machine; supervised as every process of a submission is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corobench.benchmark.executors.backend import Backend, Event, Lost, Order, Setup
from corobench.benchmark.executors.bench_worker import serve
from corobench.benchmark.executors.child import Target
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.slot import Slot


class LocalBackend(Backend):
    """Workers on the devices of this machine.

    Args:
        limits: of each process: time of each job, memory.
        scratch: existing folder; each worker writes in a folder of its own below it.
        devices: for the workers in turn; a lost worker's successor gets the same device.
        target: what each process of a worker runs.
    """

    def __init__(
        self,
        limits: Limits,
        scratch: Path,
        devices: Sequence[str] = ("cpu",),
        target: Target = serve,
    ) -> None:
        self._limits, self._scratch, self._target = limits, scratch, target
        self._devices = devices
        self._num_on = dict.fromkeys(devices, 0)
        self._num_started = 0
        self._workers: dict[str, Slot] = {}

    def start(self, count: int) -> None:
        for _ in range(count):
            device = min(self._devices, key=self._num_on.__getitem__)
            self._num_on[device] += 1
            name = f"worker {self._num_started}"
            self._num_started += 1
            scratch = self._scratch / name.replace(" ", "-")
            scratch.mkdir()
            self._workers[name] = Slot(name, device, self._limits, scratch, self._target)

    def waitables(self) -> Sequence[int]:
        return [one for worker in self._workers.values() for one in worker.waitables]

    def events(self) -> list[Event]:
        found: list[Event] = []
        for worker in list(self._workers.values()):
            new = worker.events()
            found += new
            if new and isinstance(new[-1], Lost):
                self.stop(worker.name)
        return found

    def give(self, worker: str, setup: Setup, orders: Sequence[Order]) -> None:
        if worker in self._workers:
            self._workers[worker].give(setup, orders)

    def drop(self, worker: str, tokens: Sequence[int]) -> None:
        if worker in self._workers:
            self._workers[worker].drop(tokens)

    def stop(self, worker: str) -> None:
        found = self._workers.pop(worker, None)
        if found is not None:
            self._num_on[found.device] -= 1
            found.stop()

    def close(self) -> None:
        for worker in list(self._workers):
            self.stop(worker)
