"""How the pool talks to workers, wherever they run: what it asks of a backend, and what it is told.

A backend starts workers, brings each what its jobs need, and supervises it: time and memory of each
job, as `benchmark.executors.limits` has them. `benchmark.executors.local_backend` does so with
processes of this machine. One for other machines brings the files there once, by their sha256, runs
such a local one beside each worker, and passes on its events. Nothing that a worker sends is a
pickle, and nobody but the entry's own process opens what it computed. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from corobench.benchmark.files.atomic import canonical_json
from corobench.benchmark.files.steps import Ended

#: Most bytes of one answer.
MAX_ANSWER_BYTES = 256 * 1024**2
#: Workbenches that a worker holds, each in a process of its own: of the entries it worked on last.
NUM_HELD = 2
#: Seconds after which `Backend.events` is asked again where nothing was ready before.
LOOK_S = 0.1


@dataclass(frozen=True)
class Setup:
    """What a worker needs in order to compute the jobs of one entry.

    Attributes:
        told: JSON that `benchmark.evaluation.workbench.load_workbench` takes.
        folder: of the submission; all files directly in it may be needed, none is changed.
        images: file of images and labels that the entry's process wrote, in its scratch folder; it
            stays until the entry is finished.
        images_sha256: of that file's bytes.
    """

    told: Mapping[str, Any]
    folder: Path
    images: Path
    images_sha256: str
    key: str = field(init=False)

    def __post_init__(self) -> None:
        parts = {"told": self.told, "folder": str(self.folder), "images": self.images_sha256}
        key = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
        object.__setattr__(self, "key", key)


@dataclass(frozen=True)
class Order:
    """One job for a worker.

    Attributes:
        token: by which the pool and its backend know it; no other job ever has it.
        text: the job as JSON, as `Job.as_json` made it.
    """

    token: int
    text: str


@dataclass(frozen=True)
class Ready:
    """A worker has started and waits for orders.

    Attributes:
        worker: its name, which no other one ever has.
        versions: what `benchmark.executors.versions.versions` says there.
        where: for people: a device, or a machine and its device.
    """

    worker: str
    versions: Mapping[str, str]
    where: str


@dataclass(frozen=True)
class Begun:
    """A worker begins a job; so whatever ends it now is because of this job."""

    worker: str
    token: int


@dataclass(frozen=True)
class Answered:
    """A worker computed a job.

    Attributes:
        worker: its name.
        token: of the job.
        seconds: that it took there; only the order of later jobs depends on them.
        body: arrays, as `benchmark.executors.arrays.pack` writes them; not yet checked.
    """

    worker: str
    token: int
    seconds: float
    body: bytes


@dataclass(frozen=True)
class Failed:
    """Computing a job raised an exception; the worker goes on with its next one."""

    worker: str
    token: int
    reason: str


@dataclass(frozen=True)
class Lost:
    """A worker is no more, or was ended because it broke a rule. Its name does not come again.

    Attributes:
        worker: its name.
        reason: for people, in one line.
        by_limit: the reason of the job that it had begun, where one of our limits ended it; such a
            job is not tried again. None for a crash, a kill, a lost machine, and for garbage.
    """

    worker: str
    reason: str
    by_limit: Ended | None = None


Event = Ready | Begun | Answered | Failed | Lost


class Backend(Protocol):
    """Starts workers, hands them jobs and tells what became of them.

    No call blocks for longer than a few hundred milliseconds, whatever a worker does.
    """

    def start(self, count: int) -> None:
        """Start so many more workers; a `Ready` or a `Lost` of each follows.

        Raises:
            CorobenchError: none can be started, and none ever will.
        """
        ...

    def waitables(self) -> Sequence[Connection | int]:
        """What `multiprocessing.connection.wait` can wait for until events are there.

        A backend whose events come from threads or futures writes a byte into a pipe for each, and
        gives the file descriptor of its end here.
        """
        ...

    def events(self) -> list[Event]:
        """What has happened since, for each worker in the order in which it happened.

        It is called when one of `waitables` is ready, and every `LOOK_S` seconds at least: limits
        may be watched here.
        """
        ...

    def give(self, worker: str, setup: Setup, orders: Sequence[Order]) -> None:
        """Hand a worker jobs of one entry, behind those it has; of no effect on a lost one.

        Of each job, in their order, a `Begun` follows and then an `Answered` or a `Failed`, or the
        worker is lost.

        The worker loads the workbench of a setup that is new to it, which counts as a part of the
        first job, and holds the last `NUM_HELD` of them. No process ever holds those of two setups.
        """
        ...

    def drop(self, worker: str, tokens: Sequence[int]) -> None:
        """A worker need not compute these jobs, unless it has begun them.

        Each is begun and answered all the same, with a `Failed`, or it was too late.
        """
        ...

    def stop(self, worker: str) -> None:
        """End a worker at once; nothing more is told of it."""
        ...

    def close(self) -> None:
        """End all workers, and give back what the backend holds."""
        ...
