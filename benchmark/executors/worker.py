"""The process that works on one submission: takes one task, reports in JSON, and ends.

It gives up what it does not need before it opens the submission: what it may use is limited, and
on a Linux with Landlock it can write below the output folder only, and reach no network.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmark.errors import CorobenchError, DatasetError, SubmissionError
from benchmark.executors import landlock, limits
from benchmark.progress import Reporter
from benchmark.steps import Ended, Steps

Send = Callable[..., None]


class RemoteReporter(Reporter):
    """Progress, told to the parent, which shows it."""

    def __init__(self, title: str, send: Send) -> None:
        self.title, self._send = title, send

    def __enter__(self) -> Self:
        self._send(kind="title", text=self.title)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def stage(self, name: str, total: int) -> None:
        self._send(kind="stage", text=name, number=total)

    def advance(self, num_images: int, note: str = "") -> None:
        self._send(kind="advance", text=note, number=num_images)

    def note(self, text: str) -> None:
        self._send(kind="note", text=text)

    def finish(self, note: str) -> None:
        self._send(kind="finish", text=note)

    def say(self, text: str) -> None:
        self._send(kind="say", text=text)


def serve(connection: Connection, order: str) -> None:
    """Do one task and end; the target of the process.

    Args:
        connection: to the parent; its end means that the parent is gone.
        order: JSON of :func:`benchmark.executors.isolated.Order`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    lock = threading.Lock()

    def send(**message: Any) -> None:
        with lock:
            connection.send_bytes(json.dumps(message).encode())

    wish = json.loads(order)
    os.environ.update(wish["environment"])
    os.chdir(wish["cwd"])
    given = limits.Limits(**wish["limits"])
    limits.apply(given)
    try:
        send(kind="done", value=TASKS[wish["task"]](wish["arguments"], wish["ended"], given, send))
    except SubmissionError as error:
        send(kind="refused", path=error.path, faults=list(error.faults), name=type(error).__name__)
    except CorobenchError as error:
        send(kind="failed", text=error.message, name=type(error).__name__)
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        send(kind="crashed", text=f"{type(error).__name__}: {lines[0]}"[:300])
        os._exit(1)


def _end_with_parent(connection: Connection) -> None:
    """End this process when the parent's end of the connection is closed."""
    try:
        connection.recv_bytes(1)
    except (EOFError, OSError):
        os._exit(1)


def scratch_folder(out: Path, pid: int) -> Path:
    """Where libraries may put what they need for a moment; removed by the parent."""
    return out / f".scratch-{pid}"


def _steps(ended: dict[str, list[Any]], given: limits.Limits, send: Send) -> Steps:
    import torch

    def announce(name: str) -> None:
        limits.allow_processor_time(given.step_s, torch.get_num_threads())
        send(kind="step", text=name)

    return Steps(announce, {name: Ended(*reason) for name, reason in ended.items()})


def _evaluate(
    arguments: dict[str, Any], ended: dict[str, list[Any]], given: limits.Limits, send: Send
) -> dict[str, Any]:
    from benchmark.data import load_test, load_train
    from benchmark.evaluate import evaluate
    from benchmark.settings import Settings
    from benchmark.store import prepare_folder
    from benchmark.submission.manifest import load_manifest
    from benchmark.tracks import TRACKS

    settings = Settings(**{**arguments["settings"], **_as_types(arguments["settings"])})
    folder = Path(arguments["folder"])
    # What is trusted and may write elsewhere comes first: libraries, and the download of data.
    from benchmark.executors import preloaded  # noqa: F401

    track = settings.track or load_manifest(folder).track
    if track in TRACKS:  # what is not is a fault of the submission, found where it is loaded
        load_test(track, settings.data_root)
        with contextlib.suppress(DatasetError):
            load_train(track, settings.data_root)
    out = settings.out.absolute()
    prepare_folder(out)
    scratch = scratch_folder(out, os.getpid())
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    landlock.allow_writes_below([out, Path(os.devnull)])
    steps = _steps(ended, given, send)
    steps.begin("load")
    done = evaluate(folder, settings, RemoteReporter(folder.name, send), steps)
    return {"path": str(done.path), "reused": done.reused}


def _as_types(settings: dict[str, Any]) -> dict[str, Any]:
    epsilons, root = settings["epsilons"], settings["data_root"]
    return {
        "epsilons": None if epsilons is None else tuple(epsilons),
        "data_root": None if root is None else Path(root),
        "out": Path(settings["out"]),
    }


def _faults(
    arguments: dict[str, Any], ended: dict[str, list[Any]], given: limits.Limits, send: Send
) -> list[str]:
    from benchmark.submission.validate import find_submission_faults

    landlock.allow_writes_below([Path(os.devnull)])
    _steps(ended, given, send).begin("validate")
    return find_submission_faults(Path(arguments["folder"]))


TASKS: dict[str, Callable[..., Any]] = {"evaluate": _evaluate, "faults": _faults}
