"""Workers and processes of entries that do little, to test who gives them work and watches them."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors import bench_worker, versions
from corobench.benchmark.executors.bridge import Bridge
from corobench.benchmark.executors.wire import Wire, pack, unpack
from corobench.benchmark.files.steps import Ended, Steps


class Bench:
    """Squares its rows, or does what the kind of a job says; tells in which process, and when."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def compute(self, job: Job) -> Mapping[str, Any]:
        began = time.monotonic()
        getattr(self, f"_{job.kind}")()
        span = np.array([began, time.monotonic()])
        squares = job.places**2 * self._factor
        return {"squares": squares, "seconds": 0.0, "pid": os.getpid(), "span": span}

    def _square(self) -> None:
        return None

    def _nap(self) -> None:
        time.sleep(0.2)

    def _pry(self) -> None:
        """Write where the other processes of the worker write."""
        mine = Path(tempfile.gettempdir())
        (mine / "note").write_text("fine")
        for other in set(mine.parent.iterdir()) - {mine}:
            (other / "note").write_text("gotcha")

    def _raise(self) -> None:
        raise ValueError("no such image\nand more")

    def _crash(self) -> None:
        os.abort()

    def _leave(self) -> None:
        os._exit(3)

    def _hang(self) -> None:
        time.sleep(3600)

    def _spin(self) -> None:
        while True:
            pass

    def _eat(self) -> None:
        held = [np.ones(2**24) for _ in range(12)]
        time.sleep(3600)
        del held


def load(told: Mapping[str, Any], images: Path, folder: Path, device: str) -> Bench:
    """The workbench of a setup; some cannot be loaded."""
    assert images.is_file() and folder.is_dir() and device == "cpu"
    if told.get("crashes"):
        os.abort()
    return Bench(int(told["factor"]))


def serve(connection: Connection, order: str) -> None:
    """A worker."""
    bench_worker.serve_with(connection, order, load)


def serve_other_versions(connection: Connection, order: str) -> None:
    """A worker with another torch."""
    found = versions.versions() | {"torch": "1.0"}
    bench_worker.versions = lambda: found  # type: ignore[assignment]
    serve(connection, order)


def serve_new_versions(connection: Connection, order: str) -> None:
    """A worker whose processes have other versions each time."""
    wire = Wire(connection, 2**20)
    wire.send(pack({"kind": "ready", "versions": {"torch": str(os.getpid())}, "where": "cuda"}))
    time.sleep(60)  # until the parent ends this process


def serve_garbage(what: str, connection: Connection, order: str) -> None:
    """A worker that answers each job with something else than its answer.

    Args:
        what: which garbage.
        connection, order: see `serve`.
    """
    wire = Wire(connection, 2**20)
    wire.send(pack({"kind": "ready", "versions": versions.versions(), "where": "cpu"}))
    while True:
        header, _ = unpack(wire.receive())
        for token, _text in header.get("orders", ()):
            if what != "unbegun":
                wire.send(pack({"kind": "begin", "token": token}))
            answer = {"kind": "answer", "token": token, "seconds": 0.0}
            if what in ("no arrays", "unbegun"):
                wire.send(pack(answer, b"PK\x03\x04 no archive"))
            elif what == "the next job, too":
                wire.send(pack(answer | {"begins": token + 1}, b""))
                wire.send(pack(answer | {"token": token + 1}, b""))
            elif what == "another job":
                wire.send(pack(answer | {"token": token + 1}, b""))
            elif what == "too large":
                wire._socket.sendall((2**40).to_bytes(8, "big"))
            elif what == "no message":
                wire.send(b"\x00\x00\x00\x00\x00\x00\x00\x04nope")
            elif what == "half a message":
                wire._socket.sendall((100).to_bytes(8, "big") + b"x")
            elif what == "no event":
                wire.send(pack({"kind": "dance", "token": token}))
            elif what == "twice":
                wire.send(pack(answer, b""))
                wire.send(pack(answer, b""))


class _Images:
    """What the bridge asks of a workbench."""

    class setup:  # noqa: N801
        @staticmethod
        def as_json() -> dict[str, Any]:
            return {"factor": 1}

    x = np.zeros((2, 1, 2, 2), np.float32)
    y = np.zeros(2, np.int64)


def drive(connection: Connection, order: str) -> None:
    """The process of an entry, which has squares computed; its folder's name says how many.

    ``100-square`` asks for 100 jobs of that kind, ``5-nap-die`` ends itself in the middle.
    """
    import threading

    wire = Wire(connection, 2**28)
    bridge = Bridge(wire)
    threading.Thread(target=bridge.listen, daemon=True).start()
    wish = json.loads(order)
    scratch = Path(wish["scratch"])
    num, kind, *more = Path(wish["arguments"]["folder"]).name.split("-")
    ended = {name: Ended(*reason) for name, reason in wish["ended"].items()}
    steps = Steps(lambda name: bridge.send(kind="step", text=name), ended)
    steps.begin("load")
    executor = bridge.executors(steps, scratch)(_Images())  # type: ignore[arg-type]
    jobs = [Job(f"{kind}-{number}", kind, (number, number + 1)) for number in range(int(num))]
    total, reasons = 0, []
    for count, (job, answer) in enumerate(executor.map(jobs)):
        if isinstance(answer, Ended):
            reasons.append(f"{job.name}: {answer.reason}")
            continue
        assert answer["squares"].tolist() == [row**2 for row in job.rows]
        total += int(answer["squares"][0])
        if more == ["stop"] and count == 2:
            break
        if more == ["die"] and count == 2 and not (scratch / "died").exists():
            (scratch / "died").write_text("once")
            os.abort()
    for _, answer in executor.map([Job("more", "square", (3,))]):
        if isinstance(answer, Ended):
            reasons.append(f"more: {answer.reason}")
        else:
            assert answer["squares"].tolist() == [9]
    value = {"total": total, "reasons": sorted(reasons)}
    bridge.send(kind="done", value=json.dumps(value))
    time.sleep(60)  # until the parent ends this process


def ask_for_file(name: str, connection: Connection, order: str) -> None:
    """The process of an entry that names a file of images which it did not write.

    Args:
        name: of the file.
        connection, order: see `drive`.
    """
    wire = Wire(connection, 2**20)
    told = {"kind": "setup", "bench": 0, "told": {"factor": 1}, "images": name, "sha256": ""}
    wire.send(pack({"kind": "step", "text": "load"}))
    wire.send(pack(told))
    time.sleep(60)


def say(texts: Mapping[str, str], connection: Connection, order: str) -> None:
    """The process of an entry that says something else than others do.

    Args:
        texts: name of a folder -> its one message, as JSON, or the number of the signal that it
            ends itself with; other folders are as in `drive`.
        connection, order: see `drive`.
    """
    text = texts.get(Path(json.loads(order)["arguments"]["folder"]).name)
    if text is None:
        drive(connection, order)
        return
    wire = Wire(connection, 2**20)
    wire.send(pack({"kind": "step", "text": "load"}))
    if text.isdecimal():
        os.kill(os.getpid(), int(text))
    wire.send(len(text).to_bytes(8, "big") + text.encode())
    time.sleep(60)
