"""The process that works on one submission: takes one task, reports in JSON, and ends.

It gives up what it does not need before it opens the submission: what it may use is limited, and
on a Linux with Landlock it can write below its output folder only, and reach no network.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from corobench.benchmark.errors import CorobenchError, SubmissionError
from corobench.benchmark.executors import limits
from corobench.benchmark.executors.backend import MAX_ANSWER_BYTES
from corobench.benchmark.executors.bridge import Bridge
from corobench.benchmark.executors.wire import Wire
from corobench.benchmark.files.steps import Ended, Steps

Send = Callable[..., None]


def serve(connection: Connection, order: str) -> None:
    """Do one task and end; the target of the process.

    Args:
        connection: to the parent; its end means that the parent is gone.
        order: JSON that `benchmark.executors.isolated` wrote.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    bridge = Bridge(Wire(connection, MAX_ANSWER_BYTES))
    threading.Thread(target=bridge.listen, daemon=True).start()
    send = bridge.send
    wish = json.loads(order)
    os.environ.update(wish["environment"])
    os.chdir(wish["cwd"])
    given = limits.Limits(**wish["limits"])
    limits.apply(given)
    try:
        from corobench.benchmark.executors.context import TaskContext
        from corobench.benchmark.executors.tasks import TASKS

        steps, scratch = _steps(wish["ended"], given, send), Path(wish["scratch"])
        executor = bridge.executors(steps, scratch) if wish["has_workers"] else None
        context = TaskContext(steps, scratch, send, executor)
        value = to_json(TASKS[wish["task"]].do(wish["arguments"], context), by_alias=True)
        send(kind="done", value=value.decode())
    except SubmissionError as error:
        send(kind="refused", path=error.path, faults=list(error.faults), name=type(error).__name__)
    except CorobenchError as error:
        send(kind="failed", text=error.message, name=type(error).__name__)
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        send(kind="crashed", text=f"{type(error).__name__}: {lines[0]}"[:300])
        os._exit(1)


def _steps(ended: dict[str, list[Any]], given: limits.Limits, send: Send) -> Steps:
    def announce(name: str) -> None:
        import torch

        limits.allow_processor_time(given.step_s, torch.get_num_threads())
        send(kind="step", text=name)

    return Steps(announce, {name: Ended(*reason) for name, reason in ended.items()})
