"""A Ray cluster on this machine, started as its users start one, for tests that break it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent
START_S = 120.0


def ppid(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(what: str, holds: object, most_s: float = 60.0) -> None:
    """Wait until a function returns true."""
    ends = time.monotonic() + most_s
    assert callable(holds)
    while not holds():
        assert time.monotonic() < ends, f"not within {most_s:g} s: {what}"
        time.sleep(0.05)


class Node:
    """`ray start --block`, in a session of its own."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        memory = f"--object-store-memory={100 * 1024**2}"
        self.process = subprocess.Popen(
            [*command, "--disable-usage-stats", memory, *arguments],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def pids(self, name: str = "") -> list[int]:
        """Processes of this node whose command line holds a text."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            try:
                if os.getsid(pid) == self.process.pid and name in (folder / "cmdline").read_text():
                    found.append(pid)
            except (OSError, UnicodeDecodeError):
                continue
        return found

    def kill(self, name: str) -> None:
        (pid,) = self.pids(name)
        os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End whatever is left of this node."""
        while pids := self.pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.poll()
            time.sleep(0.05)


class Cluster:
    """A head, and nodes beside it."""

    def __init__(self, num_cpus: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_worker_niceness": "0",  # by default other work on the machine goes first
            "COROBENCH_OFFLINE": "1",
            "PYTHONPATH": str(TESTS),  # the toy workers are there
        }
        self._all = {**os.environ, **self.environment}
        place = [f"--temp-dir={self._folder}", "--include-dashboard=false"]
        counts = [f"--port={port}", f"--num-cpus={num_cpus}"]
        self.nodes = [Node(["--head", *counts, *place], self._all)]
        self.address = f"127.0.0.1:{port}"
        self._wait()

    def _wait(self) -> None:
        host, _, port = self.address.rpartition(":")

        def answers() -> bool:
            try:
                socket.create_connection((host, int(port)), 1).close()
            except OSError:
                return False
            return bool(self.nodes[-1].pids("raylet/raylet"))

        wait_until("the cluster starts", answers, START_S)

    def add(self, num_cpus: int) -> Node:
        """A further node on this machine."""
        node = Node([f"--address={self.address}", f"--num-cpus={num_cpus}"], self._all)
        self.nodes.append(node)
        self._wait()
        return node

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
