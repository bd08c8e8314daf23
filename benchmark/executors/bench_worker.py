"""The process that computes the jobs of one entry: announces each, and answers with arrays.

It gives up what it does not need before it opens a submission, as `benchmark.executors.worker`
does: it can write in its own scratch folder only, and reach no network. It has one thread, so that
results do not depend on how many workers there are.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from corobench.benchmark.executors import arrays, landlock, limits
from corobench.benchmark.executors.accelerator import wake
from corobench.benchmark.executors.images import read_images
from corobench.benchmark.executors.versions import versions
from corobench.benchmark.executors.wire import Wire, pack, unpack

if TYPE_CHECKING:
    from corobench.benchmark.evaluation.jobs import Job

#: Most bytes of one message to a worker: jobs, and what a workbench is made of.
MAX_ORDER_BYTES = 64 * 1024**2


class Bench(Protocol):
    """What computes the jobs of one entry; see `benchmark.evaluation.workbench`."""

    def compute(self, job: Job) -> Mapping[str, Any]: ...


Load = Callable[[Mapping[str, Any], Path, Path, str], Bench]


def serve(connection: Connection, order: str) -> None:
    """Compute jobs until the parent is gone; the target of the process.

    Args:
        connection: to the parent.
        order: JSON that `benchmark.executors.local_backend` wrote.
    """
    serve_with(connection, order, _load)


def _load(told: Mapping[str, Any], images: Path, folder: Path, device: str) -> Bench:
    from corobench.benchmark.evaluation.workbench import Setup, load_workbench
    from corobench.benchmark.network.device import resolve_device

    x, y = read_images(images)
    bench: Bench = load_workbench(Setup.from_json(told), x, y, folder, resolve_device(device))
    return bench


def serve_with(connection: Connection, order: str, load: Load) -> None:
    """Like `serve`.

    Args:
        connection, order: see there.
        load: makes a workbench of a setup, the file of images, the folder and the device.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    wire = Wire(connection, MAX_ORDER_BYTES)
    wish = json.loads(order)
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    dropped: set[int] = set()
    threading.Thread(target=_listen, args=(wire, inbox, dropped), daemon=True).start()
    os.environ.update(wish["environment"])
    os.chdir(wish["cwd"])
    given = limits.Limits(**wish["limits"])
    limits.apply(given)
    device = str(wish["device"])
    found = versions() if wish["tells_versions"] else {}
    import_module("corobench.benchmark.executors.preloaded")
    from corobench.benchmark.network.device import exact_float32, one_thread

    with one_thread(), exact_float32():
        _give_up_writing(Path(wish["scratch"]), device)
        wire.send(pack({"kind": "ready", "versions": found, "where": device}))
        worker = _Worker(wire, load, given, device, dropped)
        while True:
            worker.do(inbox.get())


def _listen(wire: Wire, inbox: queue.SimpleQueue[dict[str, Any]], dropped: set[int]) -> None:
    """Take orders; end this process when the parent is gone."""
    try:
        while True:
            header, _ = unpack(wire.receive())
            if header["kind"] == "drop":
                dropped.update(header["tokens"])
            else:
                inbox.put(header)
    finally:
        os._exit(1)


def _give_up_writing(scratch: Path, device: str) -> None:
    devices = wake(device)
    tempfile.tempdir = str(scratch)
    landlock.allow_writes_below([scratch, *devices, Path(os.devnull)])


class _Worker:
    """Does orders of one entry."""

    def __init__(
        self, wire: Wire, load: Load, given: limits.Limits, device: str, dropped: set[int]
    ) -> None:
        self._wire, self._load, self._limits, self._device = wire, load, given, device
        self._dropped = dropped
        self._setup: dict[str, Any] | None = None
        self._bench: Bench | None = None

    def do(self, header: dict[str, Any]) -> None:
        """Take the setup, or do jobs of it.

        Raises:
            RuntimeError: they are of another entry, of which this process must know nothing.
        """
        if self._setup is not None and self._setup["key"] != header["key"]:
            raise RuntimeError("this process computes for another entry")
        if header["kind"] == "setup":
            self._setup = header
            return
        orders = header["orders"]
        limits.allow_processor_time(self._limits.step_s, 1)
        self._wire.send(pack({"kind": "begin", "token": orders[0][0]}))
        following = [token for token, _ in orders[1:]] + [None]
        for (token, text), begins in zip(orders, following, strict=True):
            answer, body = self._job(token, text)
            limits.allow_processor_time(self._limits.step_s, 1)
            # One message for two, as jobs may be short.
            self._wire.send(pack({**answer, "token": token, "begins": begins}, body))

    def _job(self, token: int, text: str) -> tuple[dict[str, Any], bytes]:
        if token in self._dropped:
            self._dropped.discard(token)
            return {"kind": "failed", "reason": "dropped"}, b""
        try:
            body, seconds = self._compute(token, text)
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            self._bench = None  # nobody knows in which state it is
            return {"kind": "failed", "reason": f"{type(error).__name__}: {lines[0]}"[:300]}, b""
        return {"kind": "answer", "seconds": seconds}, body

    def _compute(self, token: int, text: str) -> tuple[bytes, float]:
        from corobench.benchmark.evaluation.jobs import Job

        bench = self._loaded(token)
        started = time.perf_counter()
        found = bench.compute(Job.from_json(json.loads(text)))
        return arrays.pack(found), time.perf_counter() - started

    def _loaded(self, token: int) -> Bench:
        """The workbench; loading it counts as a step of its own."""
        if self._bench is None:
            told = self._setup
            assert told is not None
            folder, images = Path(told["folder"]), Path(told["images"])
            self._bench = self._load(told["told"], images, folder, self._device)
            limits.allow_processor_time(self._limits.step_s, 1)
            self._wire.send(pack({"kind": "loaded", "token": token}))
        return self._bench
