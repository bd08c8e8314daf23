"""A private cluster on a busy machine: started again where Ray gave up waiting."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.executors.ray_cluster import (
    LOCAL,
    MAX_STARTS,
    NICENESS,
    Head,
    connect,
    private_settings,
)

SLOW = "The current node timed out during startup. This could happen because some failed to start"


class Slow:
    """A Ray that is too slow so many times, and then starts."""

    def __init__(self, times: int, says: str = SLOW) -> None:
        self.times, self.says = times, says
        self.asked: list[str] = []

    def init(self, **arguments: Any) -> None:
        self.asked.append("init")
        if self.asked.count("init") <= self.times:
            raise RuntimeError(self.says)

    def shutdown(self) -> None:
        self.asked.append("shutdown")


def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray: Slow, address: str) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # nothing of our own is set for the process
    monkeypatch.setenv(NICENESS, "1")
    module = SimpleNamespace(
        init=ray.init, shutdown=ray.shutdown, cluster_resources=lambda: {"CPU": 2.0}
    )
    monkeypatch.setitem(sys.modules, "ray", module)
    assert connect(address, 2, ("cpu",), tmp_path, tmp_path / "log") == {"CPU": 2.0}


def test_a_node_that_starts_too_slowly_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = Slow(MAX_STARTS - 1)
    start(monkeypatch, tmp_path, ray, LOCAL)
    assert ray.asked == [*["init", "shutdown"] * (MAX_STARTS - 1), "init"]


@pytest.mark.parametrize(
    ("ray", "address", "starts"),
    [
        (Slow(MAX_STARTS), LOCAL, MAX_STARTS),
        (Slow(1, "no memory"), LOCAL, 1),
        (Slow(1), "auto", 1),
    ],
    ids=["always-slow", "another-fault", "not-ours"],
)
def test_what_does_not_start_is_an_error_with_ray_s_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ray: Slow, address: str, starts: int
) -> None:
    with pytest.raises(CorobenchError, match=f"--ray {address}: {ray.says.split('.')[0]}"):
        start(monkeypatch, tmp_path, ray, address)
    assert ray.asked.count("init") == starts


@pytest.mark.parametrize(("known", "set_here"), [({}, {"0"}), ({NICENESS: "7"}, set())])
def test_workers_of_a_private_cluster_step_back_for_nobody(
    known: dict[str, str], set_here: set[str]
) -> None:
    found = private_settings(known)
    assert {found[name] for name in found if name == NICENESS} == set_here
    assert found["RAY_AUTH_MODE"] == "token"


def _no_answer() -> bool:
    raise RuntimeError("what Ray says that is no answer")


def _no_node() -> bool:
    return False


@pytest.mark.parametrize(
    ("is_there", "has_node", "what"),
    [
        (False, _no_node, "the head"),
        (True, _no_answer, "the head"),
        (True, _no_node, "this machine's node"),
    ],
    ids=["nobody", "no-answer", "no-node"],
)
def test_a_head_is_lost_after_a_while_and_a_node_at_once(
    is_there: bool, has_node: Callable[[], bool], what: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if is_there else 1
        assert Head(f"127.0.0.1:{port}", 0.1, has_node).wait_until_lost() == what
