"""Workers that are processes of this machine; supervised as every process of a submission is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corobench.benchmark.executors.backend import (
    MAX_ANSWER_BYTES,
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
from corobench.benchmark.executors.bench_worker import serve
from corobench.benchmark.executors.child import Child, End, Target, context_of
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.wire import GarbageError, pack, unpack

_MAX_TEXT = 300


class LocalBackend(Backend):
    """Workers on the devices of this machine.

    Args:
        limits: of each worker: time of each job, memory.
        scratch: existing folder; each worker writes in a folder of its own below it.
        devices: for the workers in turn; a lost worker's successor gets the same device.
        target: what each worker runs.
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
        self._workers: dict[str, _Worker] = {}

    def start(self, count: int) -> None:
        for _ in range(count):
            device = min(self._devices, key=self._num_on.__getitem__)
            self._num_on[device] += 1
            name = f"worker {self._num_started}"
            self._num_started += 1
            scratch = self._scratch / name.replace(" ", "-")
            scratch.mkdir()
            self._workers[name] = _Worker(name, device, self._limits, scratch, self._target)

    def waitables(self) -> Sequence[int]:
        return [one for worker in self._workers.values() for one in worker.child.waitables]

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
            self._workers[worker].child.post(pack({"kind": "drop", "tokens": list(tokens)}))

    def stop(self, worker: str) -> None:
        found = self._workers.pop(worker, None)
        if found is not None:
            self._num_on[found.device] -= 1
            found.child.stop()

    def close(self) -> None:
        for worker in list(self._workers):
            self.stop(worker)


class _Worker:
    """One worker as its parent sees it; what it says is checked here."""

    def __init__(
        self, name: str, device: str, limits: Limits, scratch: Path, target: Target
    ) -> None:
        self.name, self.device = name, device
        self._num_left = 0
        self._begun: int | None = None
        self._known: set[str] = set()
        order = {
            "limits": asdict(limits),
            "scratch": str(scratch),
            "cwd": str(Path.cwd()),
            "device": device,
            "environment": {k: v for k, v in os.environ.items() if k.startswith("COROBENCH_")},
        }
        text = json.dumps(order)
        self.child = Child(context_of(device), target, text, limits, MAX_ANSWER_BYTES)

    def give(self, setup: Setup, orders: Sequence[Order]) -> None:
        if setup.key not in self._known:
            self._known.add(setup.key)
            told = {"told": dict(setup.told), "folder": str(setup.folder)}
            told |= {"key": setup.key, "images": str(setup.images)}
            self.child.post(pack({"kind": "setup", **told}))
        if self._num_left == 0:
            self.child.rest()
        self._num_left += len(orders)
        texts = [[order.token, order.text] for order in orders]
        self.child.post(pack({"kind": "jobs", "key": setup.key, "orders": texts}))

    def events(self) -> list[Event]:
        arrived = self.child.arrived()
        found: list[Event] = []
        if isinstance(arrived, End):
            return [self._lost(arrived)]
        for content in arrived:
            try:
                found += self._events(*unpack(content))
            except (GarbageError, KeyError, TypeError, ValueError) as error:
                reason = str(error) if isinstance(error, GarbageError) else "sent what is no event"
                return [*found, Lost(self.name, reason)]
        if self.child.step != "start" and self._num_left == 0:
            self.child.rest()
        end = self.child.over_limit()
        return found if end is None else [*found, self._lost(end)]

    def _events(self, header: Mapping[str, Any], body: bytes) -> list[Event]:
        kind = header["kind"]
        if kind == "ready" and self.child.step == "start":
            self.child.begin("ready")
            versions = {str(key): str(value) for key, value in dict(header["versions"]).items()}
            return [Ready(self.name, versions, self.device)]
        token = int(header["token"])
        if kind == "begin" and self._begun is None:
            return [self._begin(token)]
        if token != self._begun:
            raise GarbageError(f"sent {str(kind)[:20]!r} of a job that it had not begun")
        if kind == "loaded":
            self.child.begin("job")
            return []
        following = header.get("begins")
        answer = self._answer(kind, token, header, body)
        return [answer] if following is None else [answer, self._begin(int(following))]

    def _begin(self, token: int) -> Begun:
        self._begun = token
        self.child.begin("job")
        return Begun(self.name, token)

    def _answer(
        self, kind: str, token: int, header: Mapping[str, Any], body: bytes
    ) -> Answered | Failed:
        self._begun = None
        self._num_left -= 1
        self.child.begin("next")
        if kind == "answer":
            return Answered(self.name, token, float(header["seconds"]), body)
        if kind == "failed":
            return Failed(self.name, token, str(header["reason"])[:_MAX_TEXT])
        raise GarbageError("sent what is no event")

    def _lost(self, end: End) -> Lost:
        by_limit = end.ended if end.by_limit and self._begun is not None else None
        return Lost(self.name, end.ended.reason, by_limit)
