"""What speaks for a worker on a node of a cluster, asked without a cluster."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors import arrays
from corobench.benchmark.executors.backend import Answered, Begun, Event, Failed, Lost, Ready
from corobench.benchmark.executors.event_wire import pack_event, unpack_event
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.ray_worker import RayWorker
from corobench.benchmark.executors.wire import GarbageError, pack
from corobench.benchmark.files.steps import Ended

IMAGES = "images-1.npy"


def _images() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(10.0))
    return buffer.getvalue()


CONTENTS = {IMAGES: _images(), "submission/submission.toml": b"hello"}
FILES = {path: (hashlib.sha256(text).hexdigest(), path) for path, text in CONTENTS.items()}


def _order(limits: Limits) -> str:
    return json.dumps(
        {
            "name": "worker 7",
            "device": "cpu",
            "environment": {"COROBENCH_OFFLINE": "1"},
            "limits": asdict(limits),
            "run": "run",
            "target": "toy_bench:serve",
        }
    )


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[RayWorker]:
    found = RayWorker(_order(Limits(step_s=3600.0)), CONTENTS.__getitem__, tmp_path / "base")
    yield found
    found.end()
    assert list((tmp_path / "base").iterdir()) == []


def _next(worker: RayWorker, number: int) -> list[Event]:
    found: list[Event] = []
    while len(found) < number:
        found += map(unpack_event, worker.events())
    return found


def _told(key: str = "key") -> str:
    return json.dumps({"key": key, "told": {"seed": 0}, "images": IMAGES})


def _job(kind: str) -> str:
    return json.dumps(Job(kind, kind, (1, 2)).as_json())


def test_a_worker_computes_and_is_lost(worker: RayWorker, tmp_path: Path) -> None:
    (ready,) = _next(worker, 1)
    assert isinstance(ready, Ready)
    assert ready.worker == "worker 7"
    assert ready.where.endswith(", cpu")
    asked = threading.Thread(  # as Ray does it: in another thread than the one that waits
        target=worker.give, args=(_told(), FILES, [(1, _job("sum")), (2, _job("raise"))])
    )
    asked.start()
    begun, answered, *more = _next(worker, 4)
    asked.join()
    assert begun == Begun("worker 7", 1)
    assert isinstance(answered, Answered)
    assert arrays.unpack(answered.body)["sum"] == 3.0
    assert more == [Begun("worker 7", 2), Failed("worker 7", 2, "ValueError: no such thing")]
    killed = json.dumps(Job("k", "killed-once", (), "", {"mark": str(tmp_path / "no")}).as_json())
    worker.give(_told(), FILES, [(3, killed)])
    *_, lost = _next(worker, 2)
    assert lost == Lost("worker 7", "ended by SIGKILL, perhaps because memory ran out")


def test_two_entries_are_held_by_two_processes(worker: RayWorker) -> None:
    assert isinstance(_next(worker, 1)[0], Ready)
    pids = []
    for token, key in enumerate(["one", "two", "one"]):
        worker.give(_told(key), FILES, [(token, _job("pid"))])
        begun, answered = _next(worker, 2)
        assert begun == Begun("worker 7", token)
        assert isinstance(answered, Answered)
        pids.append(int(arrays.unpack(answered.body)["pid"]))
    assert pids[0] == pids[2] != pids[1]


@pytest.mark.parametrize(
    "event",
    [
        Ready("worker 1", {"torch": "2"}, "here, cpu"),
        Begun("worker 1", 3),
        Answered("worker 1", 3, 0.25, b"\x00bytes"),
        Failed("worker 1", 3, "ValueError: é"),
        Lost("worker 1", "gone"),
        Lost("worker 1", "slow", Ended("slow", by_clock=True)),
    ],
)
def test_events_as_bytes(event: Event) -> None:
    assert unpack_event(pack_event(event)) == event


@pytest.mark.parametrize("content", [b"", pack({"kind": "Other"}), pack({"kind": "Begun", "x": 1})])
def test_other_bytes_are_no_events(content: bytes) -> None:
    with pytest.raises(GarbageError):
        unpack_event(content)
