"""The process that speaks with Ray: it starts an actor for each worker, and passes messages on.

It is one of its own because Ray ends the process that it is used in when the head of its cluster is
lost, and prints what nobody asked for. It opens nothing that a submission can reach: of a
submission's files it reads the bytes, of an answer not even those. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from corobench.benchmark.errors import CorobenchError, SubmissionError
from corobench.benchmark.executors.backend import Begun, Event, Failed, Lost
from corobench.benchmark.executors.event_wire import pack_event
from corobench.benchmark.executors.ray_cluster import LOCAL, Head, Share, connect
from corobench.benchmark.executors.ray_worker import RayWorker
from corobench.benchmark.executors.wire import Wire, pack, unpack
from corobench.benchmark.submission.files import FileFaultError, read_plain_file

#: Most bytes of one message from the parent.
MAX_MESSAGE_BYTES = 64 * 1024**2
#: Most bytes of one file of a submission.
MAX_FILE_BYTES = 8 * 1024**3
#: Bytes of files that are kept in the cluster's object store for workers that come later.
KEPT_BYTES = 4 * 1024**3
#: Seconds after which is said that workers have not started.
WAITING_S = 60.0
#: Seconds that workers have to remove what they wrote.
END_S = 5.0
_MAX_TEXT = 300


def serve(connection: Connection, order: str) -> None:
    """Connect, and pass messages on until the parent is gone; the target of the process.

    Args:
        connection: to the parent.
        order: JSON that `benchmark.executors.ray_backend` wrote.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.setsid()
    wish = json.loads(order)
    wire = Wire(connection, MAX_MESSAGE_BYTES)
    log = Path(wish["log"])
    _write_into(log)
    os.chdir(log.parent)  # Ray lets its workers import from here
    try:
        place = Path(wish["folder"])
        room = connect(wish["address"], wish["num_workers"], wish["devices"], place, log)
        share = Share.of(wish["devices"], wish["per_device"])
        relay = _Relay(wire, wish, share)
        wire.send(pack({"kind": "connected", "room": share.room_in(room)}))
        relay.run()
    except CorobenchError as error:
        wire.send(pack({"kind": "refused", "name": type(error).__name__, "text": error.message}))
    except OSError:  # the parent is gone
        pass
    except Exception as error:
        traceback.print_exc()
        text = f"--ray: {reason_of(error)}"
        wire.send(pack({"kind": "refused", "name": "CorobenchError", "text": text}))
    finally:
        import_module("ray").shutdown()
        if wish["address"] == LOCAL:  # nobody else does, if the parent is gone
            shutil.rmtree(wish["folder"], ignore_errors=True)
        os._exit(0)


def _write_into(log: Path) -> None:
    """What this process prints, and what Ray prints in it, goes into a file."""
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(opened, number)
    os.close(opened)
    sys.stdout.flush()


class _Relay:
    """Actors by the names of their workers, and what the parent and they say."""

    def __init__(self, wire: Wire, wish: Mapping[str, Any], share: Share) -> None:
        self._wire, self._wish = wire, wish
        self._ray: Any = import_module("ray")
        self._share = share
        self._actor = self._ray.remote(
            num_cpus=1,
            num_gpus=share.num_gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"orders": 1, "events": 1},
        )(RayWorker)
        self._workers: dict[str, Any] = {}
        self._quiet: set[str] = set()
        self._files = _Files(self._ray)
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._num_started = 0

    def run(self) -> None:
        """Until the parent is gone, or the cluster.

        Raises:
            CorobenchError: the cluster is lost.
        """
        for target in (self._listen, self._watch):
            threading.Thread(target=target, daemon=True).start()
        while True:
            kind, *given = self._inbox.get()
            if kind == "gone" or (kind == "asked" and given[0]["kind"] == "leave"):
                self._end_workers()
                return
            if kind == "lost":
                what, address = given
                again = "" if self._wish["address"] == LOCAL else "start the cluster again and "
                raise CorobenchError(
                    f"{what} of the Ray cluster at {address} was lost. What is finished is kept: "
                    f"{again}give the same command again"
                )
            if kind == "asked":
                getattr(self, f"_{given[0]['kind']}")(given[0])
            elif kind == "events":
                self._pass_on(*given)
            elif kind == "failed":
                self._lose(*given)
            elif kind == "waiting":
                self._say_who_waits()

    # ------------------------------------------------------------------------ other threads

    def _listen(self) -> None:
        try:
            while True:
                header, _ = unpack(self._wire.receive())
                self._inbox.put(("asked", header))
        finally:
            self._inbox.put(("gone",))

    def _watch(self) -> None:
        context = self._ray.get_runtime_context()
        address, node = str(context.gcs_address), context.get_node_id()

        def has_node() -> bool:
            return any(one["NodeID"] == node and one["Alive"] for one in self._ray.nodes())

        what = Head(address, float(self._wish["patience_s"]), has_node).wait_until_lost()
        self._inbox.put(("lost", what, address))

    # ------------------------------------------------------------------ asked by the parent

    def _start(self, asked: Mapping[str, Any]) -> None:
        for _ in range(int(asked["count"])):
            name = f"worker {self._num_started}"
            self._num_started += 1
            keys = ("limits", "environment", "run", "target")
            order = {key: self._wish[key] for key in keys}
            order |= {"name": name, "device": self._share.device}
            self._workers[name] = self._actor.remote(json.dumps(order))
            self._quiet.add(name)
            self._ask_for_events(name)
        timer = threading.Timer(WAITING_S, self._inbox.put, [("waiting",)])
        timer.daemon = True
        timer.start()

    def _give(self, asked: Mapping[str, Any]) -> None:
        name = str(asked["worker"])
        if name not in self._workers:
            return
        setup, orders = asked["setup"], asked["orders"]
        try:
            files = self._files.of(setup)
        except CorobenchError as error:
            for token, _ in orders:
                self._tell(Begun(name, token))
                self._tell(Failed(name, token, error.message.replace("\n", " ")[:_MAX_TEXT]))
            return
        told = {"key": setup["key"], "told": setup["told"], "images": Path(setup["images"]).name}
        call = self._workers[name].give.options(concurrency_group="orders")
        self._report_failure(name, call.remote(json.dumps(told), files, orders))

    def _drop(self, asked: Mapping[str, Any]) -> None:
        name = str(asked["worker"])
        if name in self._workers:
            call = self._workers[name].drop.options(concurrency_group="orders")
            self._report_failure(name, call.remote(asked["tokens"]))

    def _stop(self, asked: Mapping[str, Any]) -> None:
        self._forget(str(asked["worker"]))

    # --------------------------------------------------------------------- told by actors

    def _ask_for_events(self, name: str) -> None:
        call = self._workers[name].events.options(concurrency_group="events")
        future = call.remote().future()
        future.add_done_callback(lambda done: self._inbox.put(("events", name, done)))

    def _report_failure(self, name: str, reference: Any) -> None:
        def told(done: Any) -> None:
            if done.exception() is not None:
                self._inbox.put(("failed", name, done.exception()))

        reference.future().add_done_callback(told)

    def _pass_on(self, name: str, done: Any) -> None:
        if name not in self._workers:
            return
        if done.exception() is not None:
            self._lose(name, done.exception())
            return
        self._quiet.discard(name)
        is_lost = False
        for content in done.result():
            is_lost = unpack(content)[0]["kind"] == Lost.__name__
            self._wire.send(content)
        if is_lost:
            self._forget(name)
        else:
            self._ask_for_events(name)

    def _lose(self, name: str, error: BaseException) -> None:
        if name in self._workers:
            self._forget(name)
            self._tell(Lost(name, reason_of(error)))

    def _forget(self, name: str) -> None:
        actor = self._workers.pop(name, None)
        self._quiet.discard(name)
        if actor is not None:
            self._ray.kill(actor, no_restart=True)

    def _tell(self, event: Event) -> None:
        self._wire.send(pack_event(event))

    def _say_who_waits(self) -> None:
        if self._quiet:
            found = f"{len(self._quiet)} of {len(self._workers)} workers"
            text = f"{found} have not started yet: the Ray cluster has no room, or is slow"
            self._wire.send(pack({"kind": "say", "text": text}))

    def _end_workers(self) -> None:
        ends = [
            actor.end.options(concurrency_group="orders").remote()
            for name, actor in self._workers.items()
            if name not in self._quiet
        ]
        if ends:
            self._ray.wait(ends, num_returns=len(ends), timeout=END_S)


class _Files:
    """Files of submissions and images in the cluster's object store, each once."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._digests: dict[str, dict[str, tuple[Path, str]]] = {}
        self._stored: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def of(self, setup: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
        """Path below the folder of a setup -> sha256 and where the bytes are.

        Raises:
            CorobenchError: a file is not what it was, or cannot be read.
        """
        key = str(setup["key"])
        if key not in self._digests:
            self._digests[key] = self._found(setup)
        found = {}
        for path, (source, sha256) in self._digests[key].items():
            if sha256 not in self._stored and self._store(source) != sha256:
                raise SubmissionError(source, ["changed while it was evaluated"])
            self._stored.move_to_end(sha256)
            found[path] = (sha256, self._stored[sha256][0])
        self._let_go({sha256 for sha256, _ in found.values()})
        return found

    def _found(self, setup: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
        folder, images = Path(setup["folder"]), Path(setup["images"])
        found = {images.name: (images, str(setup["images_sha256"]))}
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        for name in names:
            found[f"submission/{name}"] = (folder / name, self._store(folder / name))
        return found

    def _store(self, path: Path) -> str:
        try:
            content = read_plain_file(path.parent, path.name, MAX_FILE_BYTES)
        except FileFaultError as error:
            raise SubmissionError(path.parent, [str(error)]) from error
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._stored:
            self._stored[sha256] = (self._ray.put(content), len(content))
        return sha256

    def _let_go(self, but: set[str]) -> None:
        """Let go of the files that were used longest ago, down to a number of bytes."""
        kept = sum(size for _, size in self._stored.values())
        for sha256 in [name for name in self._stored if name not in but]:
            if kept <= KEPT_BYTES:
                return
            kept -= self._stored.pop(sha256)[1]


def reason_of(error: BaseException) -> str:
    """Why Ray has no answer, in one line.

    >>> reason_of(ValueError("The actor died.\\n\\tpid: 7\\nThe actor is dead because of this."))
    'ValueError: The actor is dead because of this.'
    """
    cause = getattr(error, "cause", None) or error
    lines: Sequence[str] = [line.strip() for line in str(cause).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("The actor is dead because")]
    text = (telling or lines[-1:] or [""])[0]
    return f"{type(cause).__name__}: {text}"[:_MAX_TEXT]
