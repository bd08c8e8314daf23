"""Reaching a Ray cluster, or starting one on this machine; says in our words why it fails.

Imports ray only when it is called, and no torch.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from corobench.benchmark.errors import ConfigError, CorobenchError, DependencyError

LOCAL = "local"
#: Longest path of a folder below which Ray's sockets have names of an allowed length.
MAX_FOLDER = 40
_SHORT = Path("/tmp")  # noqa: S108 - mkdtemp makes a folder of our own in it
#: Seconds for a first answer of an address.
PROBE_S = 5.0
#: Seconds between two looks at the head of a cluster, and after which it counts as lost.
LOOK_AT_HEAD_S = 2.0
PATIENCE_S = 20.0
#: A private cluster is started so often: Ray gives a node 30 s, which no option changes.
MAX_STARTS = 3
#: Ray's name for how far its workers step back; by default 15 of 19.
NICENESS = "RAY_worker_niceness"
_BRING = (
    "Bring this machine the token of the cluster: in ~/.ray/auth_token, or in a file that "
    "RAY_AUTH_TOKEN_PATH names, with RAY_AUTH_MODE=token (`ray get-auth-token` on the head shows "
    "it)"
)


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node.

    Attributes:
        device: as the worker knows it.
        num_gpus: share of a GPU; Ray says which one.
    """

    device: str
    num_gpus: float

    @classmethod
    def of(cls, devices: Sequence[str], per_device: int) -> Share:
        """The share of each worker.

        >>> Share.of(("cuda:0", "cuda:1"), 4)
        Share(device='cuda:0', num_gpus=0.25)
        >>> Share.of(("cpu",), 1)
        Share(device='cpu', num_gpus=0.0)

        Raises:
            ConfigError: Ray hands out no devices of that kind.
        """
        kinds = {device.partition(":")[0] for device in devices}
        if kinds == {"cpu"}:
            return cls("cpu", 0.0)
        if kinds == {"cuda"}:
            return cls("cuda:0", 1 / per_device)
        raise ConfigError(f"--ray: expected --device cpu or cuda, but found {', '.join(devices)}")

    def room_in(self, resources: Mapping[str, float]) -> int:
        """How many workers a cluster has room for.

        >>> Share("cuda:0", 0.25).room_in({"CPU": 6.0, "GPU": 2.0})
        6
        """
        room = int(resources.get("CPU", 0.0))
        if self.num_gpus:
            room = min(room, int(resources.get("GPU", 0.0) / self.num_gpus + 1e-6))
        return room


def visible_devices(devices: Sequence[str], visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for a private cluster on some devices of this machine.

    >>> visible_devices(("cuda:1", "cuda:0"), "4,5,6")
    '5,4'
    >>> visible_devices(("cuda",), None)
    '0'
    """
    known = visible.split(",") if visible else None
    indices = [int(device.partition(":")[2] or 0) for device in devices]
    return ",".join(str(index) if known is None else known[index] for index in indices)


def check_address(address: str) -> None:
    """Whether an address can be one, and somebody answers there.

    Raises:
        ConfigError: it is none.
        CorobenchError: nobody answers.
    """
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise ConfigError(
            f"--ray {address}: expected local, auto, or host:port of a head, on a machine that is "
            "a node of its cluster (`ray start --address=host:port --num-cpus=0` makes it one)"
        )
    try:
        socket.create_connection((host, int(port)), PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise CorobenchError(
            f"--ray {address}: nobody answers there ({error}). Is the head running (`ray status`), "
            "and does a firewall let you through?"
        ) from error


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for the sockets and logs of a cluster of our own; it is removed after the block."""
    usual = Path(tempfile.gettempdir())
    place = usual if len(str(usual)) + len("/cb-12345678") <= MAX_FOLDER else _SHORT
    folder = tempfile.mkdtemp(prefix="cb-", dir=place)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def private_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What is set for a cluster of our own, where the environment does not say it.

    A token, so that nobody else on this machine gives it work. And the priority of its workers,
    that of all processes: Ray's default is a niceness of 15, behind everything else that runs.

    >>> private_settings({"RAY_AUTH_MODE": "token"})
    {'RAY_worker_niceness': '0'}
    """
    found = {} if NICENESS in environment else {NICENESS: "0"}
    if not any(name in environment for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")):
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return found


def connect(
    address: str, num_workers: int | None, devices: Sequence[str], folder: Path, log: Path
) -> dict[str, float]:
    """Connect this process, or start a cluster that ends with it.

    Args:
        address: "local", "auto", or host and port.
        num_workers: for which a private cluster has room.
        devices: of this machine, for a private cluster.
        folder: for what a private cluster writes.
        log: where Ray's own lines go.

    Returns:
        What the cluster has.

    Raises:
        CorobenchError: it cannot be reached.
    """
    arguments: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address == LOCAL:
        os.environ.update(private_settings(os.environ))  # before ray is imported, which reads it
        num_gpus = 0 if devices[0] == "cpu" else len(devices)
        if num_gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(devices, visible)
        arguments |= {"num_cpus": num_workers, "num_gpus": num_gpus, "include_dashboard": False}
        arguments["_temp_dir"] = str(folder)
    ray = import_module("ray")
    try:
        _init(ray, arguments)
        return dict(ray.cluster_resources())
    except Exception as error:
        raise _in_our_words(address, error, log) from error


def _init(ray: Any, arguments: Mapping[str, Any]) -> None:
    """Call ``ray.init``; again where a busy machine took longer to start a node than Ray waits."""
    for attempt in range(1, MAX_STARTS + 1):
        try:
            ray.init(**arguments)
        except Exception as error:
            is_slow = arguments["address"] == LOCAL and "timed out during startup" in str(error)
            if not is_slow or attempt == MAX_STARTS:
                raise
            ray.shutdown()
        else:
            return


def _in_our_words(address: str, error: Exception, log: Path) -> CorobenchError:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    where = f"--ray {address}"
    lines = log.read_text(errors="replace") if log.is_file() else ""
    if type(error).__name__ == "AuthenticationError" or "InvalidAuthToken" in lines:
        return ConfigError(f"{where}: the cluster refuses this machine: {text}. {_BRING}")
    if "ersion mismatch" in str(error):
        told = " ".join(str(error).split())[:400]
        return DependencyError(f"{where}: {told}. Install the same versions on every machine")
    if "Could not find any running Ray instance" in str(error):
        return ConfigError(
            f"{where}: no cluster runs on this machine. Start one (`ray start --head`), name its "
            "address, or use --ray local"
        )
    return CorobenchError(f"{where}: {text}")


class Head:
    """Whether the head of a cluster is there, and this machine's node with it.

    Args:
        address: of its control store.
        patience_s: after which it counts as lost.
        has_node: whether the head counts this machine's node as alive. Ray never takes a node back
            that it once counted as dead, and no worker starts without one.
    """

    def __init__(self, address: str, patience_s: float, has_node: Callable[[], bool]) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._patience_s = patience_s
        self._has_node = has_node

    def wait_until_lost(self) -> str:
        """Return when the head has not been there for a while, or says that the node is not.

        Returns:
            What was lost, for people.
        """
        seen = time.monotonic()
        while time.monotonic() - seen <= self._patience_s:
            started = time.monotonic()
            with suppress(Exception):  # nobody answers: a socket's error, or one of many of Ray's
                socket.create_connection(self._address, LOOK_AT_HEAD_S).close()
                if not self._has_node():
                    return "this machine's node"
                seen = time.monotonic()
            time.sleep(max(0.0, LOOK_AT_HEAD_S - (time.monotonic() - started)))
        return "the head"
