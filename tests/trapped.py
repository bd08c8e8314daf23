"""The process of a submission, made to meet a signal at the beginning of one step."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from corobench.benchmark.executors import worker
from corobench.benchmark.files import atomic
from corobench.benchmark.files.steps import Steps


def serve(step: str, number: int, connection: Connection, order: str) -> None:
    """`benchmark.executors.worker.serve`, but nothing of a step of this name is done.

    Args:
        step: how the name of the step begins.
        number: signal that the process gets then; the step was announced.
        connection, order: see there.
    """
    begin = Steps.begin

    def trapped(self: Steps, name: str) -> None:
        begin(self, name)
        if name.startswith(step):
            os.kill(os.getpid(), number)
            while True:
                signal.pause()

    Steps.begin = trapped  # type: ignore[method-assign]
    worker.serve(connection, order)


def serve_raising(step: str, connection: Connection, order: str) -> None:
    """`benchmark.executors.worker.serve`, but a fault of ours ends each step of this name.

    Args:
        step: how the name of the step begins.
        connection, order: see there.
    """
    begin = Steps.begin

    def trapped(self: Steps, name: str) -> None:
        begin(self, name)
        if name.startswith(step):
            raise IndexError("tuple index out of range")

    Steps.begin = trapped  # type: ignore[method-assign]
    worker.serve(connection, order)


def serve_full(num_chunks: int, connection: Connection, order: str) -> None:
    """`benchmark.executors.worker.serve`, on a disk that has room for some chunks only.

    Args:
        num_chunks: that can be written.
        connection, order: see there.
    """
    whole, written = atomic.replace_whole, list[Path]()

    def replace_whole(path: Path, content: bytes) -> None:
        if path.suffix == ".chunk":
            written.append(path)
        if len(written) > num_chunks:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, content)

    atomic.replace_whole = replace_whole
    worker.serve(connection, order)


def serve_with_jumping_clock(
    serve: Callable[[Connection, str], None], connection: Connection, order: str
) -> None:
    """A process whose wall clock goes forth and back.

    Args:
        serve: what it does.
        connection, order: see there.
    """
    jump()
    serve(connection, order)


def jump() -> None:
    """From now on, the wall clock jumps by a day whenever it is asked."""
    now = time.time
    days = itertools.cycle([0, 1, -1, 30, -30])
    time.time = lambda: now() + 86400.0 * next(days)
