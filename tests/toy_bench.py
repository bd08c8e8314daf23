"""A worker with a workbench without a network, for tests of what lies between it and the pool."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors.bench_worker import serve_with


class ToyBench:
    """Does what the kind of a job says."""

    def __init__(self, folder: Path, images: Path, device: str) -> None:
        self._folder, self._images, self._device = folder, images, device

    def compute(self, job: Job) -> Mapping[str, Any]:
        told = dict(job.told)
        if job.kind == "sum":
            return {"rows": job.places, "sum": np.load(self._images)[list(job.rows)].sum()}
        if job.kind == "large":
            return {"zeros": np.zeros(int(told["size"]), np.uint8)}
        if job.kind == "files":
            files = sorted(self._folder.iterdir())
            return {"names": np.array([f"{file.name} {file.read_text()}" for file in files])}
        if job.kind == "threads":
            import torch

            return {"threads": torch.get_num_threads(), "pid": os.getpid()}
        if job.kind == "raise":
            raise ValueError("no such thing")
        if job.kind == "killed-once":
            self._once(Path(told["mark"]))
        if job.kind == "wait":
            self._wait(Path(told["mark"]))
        return {"pid": os.getpid()}

    def _once(self, mark: Path) -> None:
        """Die where the mark is not there; whoever tests makes it."""
        if not mark.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    def _wait(self, mark: Path) -> None:
        while not mark.exists():
            time.sleep(0.02)


def serve(connection: Connection, order: str) -> None:
    """The target of a toy worker."""
    serve_with(
        connection, order, lambda told, images, folder, device: _bench(images, folder, device)
    )


def _bench(images: Path, folder: Path, device: str) -> ToyBench:
    return ToyBench(folder, images, device)
