"""One worker slot on a node of a Ray cluster: a local worker with limits, and what speaks for it.

The object lives in a process of Ray's. It starts, on its machine, the isolated process that every
local worker is, brings it the files it needs, and passes on its events as bytes. So what Ray
carries is made by this code, and never by what a submission can reach. Imports neither ray nor
torch.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from corobench.benchmark.executors.backend import LOOK_S, Order, Ready, Setup
from corobench.benchmark.executors.child import require_libraries
from corobench.benchmark.executors.event_wire import pack_event
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.local_backend import LocalBackend
from corobench.benchmark.executors.node_files import NodeFiles


def _get(reference: Any) -> bytes:
    content: bytes = import_module("ray").get(reference)
    return content


class RayWorker:
    """The worker of one slot.

    Orders come in one thread, and one other asks for events. Only the latter touches the worker.

    Args:
        order: JSON that `benchmark.executors.ray_relay` wrote.
        fetch: gives the bytes of a file that is not on this machine.
        base: see `NodeFiles`.
    """

    def __init__(
        self,
        order: str,
        fetch: Callable[[Any], bytes] = _get,
        base: Path | None = None,
    ) -> None:
        require_libraries()
        wish = json.loads(order)
        self._name, self._fetch = str(wish["name"]), fetch
        os.environ.update(wish["environment"])
        self._files = NodeFiles(wish["run"], base)
        module, _, target = str(wish["target"]).partition(":")
        self._backend = LocalBackend(
            Limits(**wish["limits"]),
            self._files.scratch,
            [str(wish["device"])],
            getattr(import_module(module), target),
        )
        self._todo: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._hears, self._bell = os.pipe()
        for end in (self._hears, self._bell):
            os.set_blocking(end, False)
        self._local = ""
        with _quiet_main():
            self._backend.start(1)

    def give(
        self,
        told: str,
        files: Mapping[str, tuple[str, Any]],
        orders: Sequence[tuple[int, str]],
    ) -> None:
        """Hand the worker jobs of one entry.

        Args:
            told: JSON: ``key`` and ``told`` of the setup, and the path of its ``images``.
            files: path, below the folder of the setup, -> sha256 and where the bytes are.
            orders: token and text of each job.

        Raises:
            OSError: there is no room for the files.
            CorobenchError: they are not what they should be.
        """
        given = json.loads(told)
        places = dict(files.values())
        digests = {path: sha256 for path, (sha256, _) in files.items()}
        folder = self._files.lay_out(
            given["key"], digests, lambda sha256: self._fetch(places[sha256])
        )
        images = str(given["images"])
        setup = Setup(given["told"], folder / "submission", folder / images, digests[images])
        jobs = [Order(int(token), str(text)) for token, text in orders]
        self._do(lambda: self._backend.give(self._local, setup, jobs))

    def drop(self, tokens: Sequence[int]) -> None:
        """Jobs that need not be computed."""
        self._do(lambda: self._backend.drop(self._local, tokens))

    def _do(self, what: Callable[[], None]) -> None:
        self._todo.put(what)
        try:
            os.write(self._bell, b".")
        except BlockingIOError:  # it rings already
            return

    def events(self) -> list[bytes]:
        """What has happened since; waits until something has."""
        while True:
            while not self._todo.empty():
                self._todo.get()()
            found = self._backend.events()
            if found:
                return [pack_event(self._named(event)) for event in found]
            wait([*self._backend.waitables(), self._hears], LOOK_S)
            try:
                os.read(self._hears, 1 << 16)
            except BlockingIOError:
                continue

    def _named(self, event: Any) -> Any:
        """The event, with the name by which the pool knows this worker."""
        if isinstance(event, Ready):
            self._local = event.worker
            return Ready(self._name, event.versions, f"{platform.node()}, {event.where}")
        return type(event)(**{**vars(event), "worker": self._name})

    def end(self) -> None:
        """End the worker, and remove its files."""
        self._backend.close()
        self._files.close()


@contextmanager
def _quiet_main() -> Iterator[None]:
    """Processes that are started within the block do not import the script of Ray's process."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
