"""The process of a submission, made to meet a signal at the beginning of one step."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

from corobench.benchmark.executors import worker
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
