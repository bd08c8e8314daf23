"""Workers on the machines of a Ray cluster; the same isolated processes as on this machine.

Everything that concerns Ray happens in a process of its own (`benchmark.executors.ray_relay`), to
which this speaks. Imports neither ray nor torch.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from corobench.benchmark import errors
from corobench.benchmark.errors import CorobenchError, DependencyError
from corobench.benchmark.executors import ray_relay
from corobench.benchmark.executors.backend import (
    LOOK_S,
    MAX_ANSWER_BYTES,
    Backend,
    Event,
    Order,
    Setup,
)
from corobench.benchmark.executors.bench_worker import serve
from corobench.benchmark.executors.child import Child, End, Target, no_imports_from_here
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.event_wire import unpack_event
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.ray_cluster import (
    LOCAL,
    PATIENCE_S,
    Share,
    check_address,
    private_folder,
)
from corobench.benchmark.executors.wire import pack, unpack

#: Most bytes of one event: an answer, and who gave it.
MAX_EVENT_BYTES = MAX_ANSWER_BYTES + 2**20
#: Seconds until a cluster has answered or been started.
CONNECT_S = 90.0
#: Seconds until a cluster of our own has ended.
CLOSE_S = 20.0
_WHAT_NOW = "What is finished is kept: give the same command again"


def _say_nothing(text: str) -> None:
    return None


class RayBackend(Backend):
    """Workers that are actors of a Ray cluster.

    Args:
        crew: address of the cluster, workers and their devices.
        limits: of each worker.
        scratch: existing folder, empty or of our making.
        say: told in one line what users should know.
        target: what each worker runs.
        patience_s: after which a head that does not answer is lost.

    Attributes:
        size: workers that were asked for, or for which the cluster has room.

    Raises:
        DependencyError: ray is not installed, or is another release than the cluster's.
        ConfigError: the address or a device is none, or the token is not the cluster's.
        CorobenchError: the cluster cannot be reached.
    """

    def __init__(
        self,
        crew: Crew,
        limits: Limits,
        scratch: Path,
        say: Callable[[str], None] = _say_nothing,
        target: Target = serve,
        patience_s: float = PATIENCE_S,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise DependencyError("--ray: Ray is missing; install it: pip install 'corobench[ray]'")
        address = LOCAL if crew.ray is None else crew.ray
        Share.of(crew.devices, crew.per_device)
        check_address(address)
        self._say = say
        say(
            "a Ray cluster is started here" if address == LOCAL else f"connecting to Ray: {address}"
        )
        self._log = scratch / "ray.log"
        self._stack = ExitStack()
        self._is_private = address == LOCAL
        folder = self._stack.enter_context(private_folder()) if self._is_private else scratch
        order = {
            "address": address,
            "num_workers": crew.size if address == "local" else None,
            "devices": list(crew.devices),
            "per_device": crew.per_device,
            "limits": asdict(limits),
            "environment": {k: v for k, v in os.environ.items() if k.startswith("COROBENCH_")},
            "run": secrets.token_hex(8),
            "target": f"{target.__module__}:{target.__qualname__}",
            "folder": str(folder),
            "log": str(self._log),
            "patience_s": patience_s,
        }
        spawn = multiprocessing.get_context("spawn")
        with no_imports_from_here():
            self._relay = Child(spawn, ray_relay.serve, json.dumps(order), limits, MAX_EVENT_BYTES)
        try:
            room = self._connected(address)
        except BaseException:
            self.close()
            raise
        asked_for = crew.num_workers is not None or self._is_private
        self.size = crew.size if asked_for else max(1, room)

    def _connected(self, address: str) -> int:
        ends = time.monotonic() + CONNECT_S
        while time.monotonic() < ends:
            wait(self._relay.waitables, LOOK_S)
            for header, _ in self._heard():
                if header["kind"] == "connected":
                    return int(header["room"])
        raise CorobenchError(
            f"--ray {address}: no answer within {CONNECT_S:g} s. {self._last_line()}"
        )

    def start(self, count: int) -> None:
        self._post(kind="start", count=count)

    def waitables(self) -> Sequence[int]:
        return self._relay.waitables

    def events(self) -> list[Event]:
        return [unpack_event(content) for _, content in self._heard()]

    def give(self, worker: str, setup: Setup, orders: Sequence[Order]) -> None:
        told = {
            "key": setup.key,
            "told": dict(setup.told),
            "folder": str(setup.folder.absolute()),
            "images": str(setup.images.absolute()),
            "images_sha256": setup.images_sha256,
        }
        texts = [[order.token, order.text] for order in orders]
        self._post(kind="give", worker=worker, setup=told, orders=texts)

    def drop(self, worker: str, tokens: Sequence[int]) -> None:
        self._post(kind="drop", worker=worker, tokens=list(tokens))

    def stop(self, worker: str) -> None:
        self._post(kind="stop", worker=worker)

    def close(self) -> None:
        self._post(kind="leave")
        ends = time.monotonic() + CLOSE_S
        while time.monotonic() < ends and not isinstance(self._relay.arrived(), End):
            wait(self._relay.waitables, LOOK_S)
        self._relay.stop()
        if self._is_private:  # two of Ray's processes outlive a relay that was killed
            with suppress(ProcessLookupError):
                os.killpg(self._relay.pid, signal.SIGKILL)
        self._stack.close()

    def _post(self, **message: Any) -> None:
        self._relay.post(pack(message))

    def _heard(self) -> list[tuple[dict[str, Any], bytes]]:
        """What the relay says: header and whole message; what is for people is said.

        Raises:
            CorobenchError: the cluster is lost.
        """
        arrived = self._relay.arrived()
        if isinstance(arrived, End):
            raise CorobenchError(
                f"--ray: the process that speaks with Ray {arrived.ended.reason}. "
                f"{self._last_line()}{_WHAT_NOW}"
            )
        found = []
        for content in arrived:
            header, _ = unpack(content)
            if header["kind"] == "refused":
                kind = getattr(errors, str(header["name"]), CorobenchError)
                raise kind(str(header["text"]))
            if header["kind"] == "say":
                self._say(str(header["text"]))
            else:
                found.append((header, content))
        return found

    def _last_line(self) -> str:
        """The last line that Ray wrote, for people."""
        try:
            lines = self._log.read_text(errors="replace")[-4000:].strip().splitlines()
        except OSError:
            return ""
        if not lines or " INFO " in lines[-1]:
            return ""
        return f"The last line of Ray's log: {errors.printable(lines[-1])[:300]}. "
