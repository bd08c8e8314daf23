"""Work on a submission in a process of its own, so that nothing it does takes the harness down.

The process is forked from a server that has the libraries loaded and has seen no submission. A step
that hangs, crashes or uses too much memory ends the process; another one goes on from the finished
chunks, and the images of that step become a ``timeout`` or an ``error`` with the reason.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, is_dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from corobench.benchmark import errors
from corobench.benchmark.errors import ContractError, CorobenchError, SubmissionError
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.executors.accelerator import device_of
from corobench.benchmark.executors.limits import GIB, MAX_ENDED, Limits, resident_bytes
from corobench.benchmark.executors.tasks import EVALUATE, FAULTS, REPACK, Answer, Arguments, Task
from corobench.benchmark.executors.worker import serve
from corobench.benchmark.files.new_folder import become, beside, room_beside
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import EVERY_STEP, NEEDED, Ended
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reports import Repacked

MAX_MESSAGE_BYTES = 16 * 1024**2
LOOK_S = 0.1
#: Least seconds for what comes before the first step.
START_S = 600.0
LIBRARIES = ("torch", "torchvision", "pyautoattack")
SHOWN = ("stage", "advance", "note", "finish", "say")


def evaluate(
    folder: Path, settings: Settings, limits: Limits, report: Reporter | None = None
) -> Evaluated:
    """Evaluate a submission folder in a process of its own; see
    `benchmark.evaluation.evaluate.evaluate`.

    Args:
        folder: with ``submission.toml`` and its weights.
        settings: what the user chose.
        limits: of the process.
        report: progress; standard error by default.

    Raises:
        SubmissionError: it is at fault, or ended the process before it could be measured.
        CorobenchError: anything else a user can fix.
    """
    done = run(EVALUATE, {"folder": folder, "settings": settings}, limits, report)
    path = Path(done["path"])
    return Evaluated(read_result(path), path, bool(done["reused"]))


def find_faults(folder: Path, limits: Limits) -> list[str]:
    """Every fault of a submission folder, found in a process of its own."""
    return run(FAULTS, {"folder": folder}, limits)


def run(
    task: Task[Answer], arguments: Arguments, limits: Limits, report: Reporter | None = None
) -> Answer:
    """Do a task in a process of its own.

    Args:
        task: of `benchmark.executors.tasks`.
        arguments: paths, frozen dataclasses of such, and what JSON holds.
        limits: of each process.
        report: progress; standard error by default.

    Raises:
        ModuleNotFoundError: a library that every process needs is not installed.
        SubmissionError: refused, or ended where nothing can be said of its images.
        OutputError: the new folder of a task that makes one is there, or cannot be made.
        CorobenchError: anything else a user can fix.
    """
    _require_libraries()
    try:
        if task.makes_folder:
            return _make(task, arguments, limits)
        return _call(task, arguments, limits, report)
    except SubmissionError as error:
        if task.if_refused is None:
            raise
        return task.if_refused(tuple(error.faults))


def _require_libraries() -> None:
    """Say here what is missing: in its process it would look like a fault of the submission."""
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _call(
    task: Task[Answer], arguments: Arguments, limits: Limits, report: Reporter | None = None
) -> Answer:
    """Do a task, in as many processes as steps end, up to a limit.

    Args:
        task, arguments: see `run`; the answer is checked against the task's type.
        limits: of each process.
        report: progress; standard error by default.

    Raises:
        SubmissionError: refused, or ended where nothing can be said of its images.
        CorobenchError: anything else a user can fix.
    """
    ended: dict[str, Ended] = {}
    what = Path(arguments[task.strangers])
    with ExitStack() as stack:
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="corobench-", ignore_cleanup_errors=True)
        )
        screen = _Screen(what.name, report, stack)
        while True:
            process = _Process(task, arguments, ended, limits, Path(scratch))
            try:
                answer = process.run(screen)
            finally:
                process.stop()
            if not isinstance(answer, Ended):
                checked: Answer = TypeAdapter(task.answer_type()).validate_json(_value(answer))
                return checked
            tried_again = process.step in ended or EVERY_STEP in ended
            if not task.goes_on or process.step in NEEDED or tried_again:
                reason = f"{process.step}: its process ended: {answer.reason}"
                raise SubmissionError(what, [reason])
            ended[process.step] = answer
            if len(ended) >= MAX_ENDED:
                ended[EVERY_STEP] = answer
            screen.say(f"{process.step} ended its process: {answer.reason}; continuing without it")


def _make(task: Task[Answer], arguments: Arguments, limits: Limits) -> Answer:
    """Do a task that makes a new folder `out`, in a draft of it beside it, that becomes it.

    So the process can write nowhere else, and nothing is left where it is ended.
    """
    out = Path(arguments["out"])
    with room_beside(out) as draft, _named(draft, out):
        made: Any = _call(task, {**arguments, "out": draft}, limits)
    answer: Answer = replace(made, folder=out)
    return answer


@contextmanager
def _named(draft: Path, out: Path) -> Iterator[None]:
    """Errors that speak of `draft`, which nobody needs to know, speak of `out`."""
    try:
        yield
    except SubmissionError as error:
        faults = [fault.replace(str(draft), str(out)) for fault in error.faults]
        raise type(error)(error.path.replace(str(draft), str(out)), faults) from error
    except CorobenchError as error:
        raise type(error)(error.message.replace(str(draft), str(out))) from error


def repack(path: Path, limits: Limits, *, to_packed: bool, out: Path | None) -> Repacked:
    """Pack or unpack weights in a process that can write into a draft folder beside them only.

    Args:
        path: a submission folder, or a weights file.
        limits: of the process.
        to_packed: whether to pack or to unpack.
        out: the new file, where `path` is a file.

    Raises:
        OutputError: the new file is there already, or cannot be written.
        CorobenchError: see `run`.
    """
    home = path if path.is_dir() else (out or path).parent
    with beside(home / "weights") as draft, _named(draft, home):
        arguments = {"path": path, "to_packed": to_packed, "out": out, "place": draft}
        made = run(REPACK, arguments, limits)
        target = home / made.target.name
        become(draft / made.target.name, target)
    if path.is_dir():
        (path / made.source.name).unlink()
    return replace(made, target=target)


def _value(answer: dict[str, Any]) -> str:
    """What a task gave back, as JSON, or the error that it ended with."""
    if answer["kind"] == "done":
        return str(answer["value"])
    name = str(answer["name"])
    if answer["kind"] == "refused":
        faults = [str(fault) for fault in answer["faults"]]
        refusal = ContractError if name == "ContractError" else SubmissionError
        raise refusal(answer["path"], faults)
    kind = getattr(errors, name, CorobenchError)
    raise kind(str(answer["text"]))


class _Screen:
    """Progress of the process, shown here."""

    def __init__(self, title: str, report: Reporter | None, stack: ExitStack) -> None:
        self._title, self._report, self._stack = title, report, stack
        self._open = False

    def show(self, message: dict[str, Any]) -> None:
        text, number = str(message.get("text", "")), int(message.get("number", 0))
        if message["kind"] == "title":
            self._title = text
            if self._open and self._report is not None:
                self._report.title = text
            return
        if not self._open:
            self._report = self._stack.enter_context(self._report or Reporter(self._title))
            self._open = True
        assert self._report is not None
        if message["kind"] == "stage":
            self._report.stage(text, number)
        elif message["kind"] == "advance":
            self._report.advance(number, text)
        else:
            getattr(self._report, message["kind"])(text)

    def say(self, text: str) -> None:
        self.show({"kind": "say", "text": text})


@contextmanager
def _no_imports_from_here() -> Iterator[None]:
    """Python started meanwhile does not look for modules in the current folder.

    The folder may be a stranger's checkout with a package called like one of ours.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _as_json(value: object) -> object:
    """Paths as text, dataclasses as objects."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _context(task: Task[Any], device: str) -> SpawnContext | ForkServerContext:
    """How the process is started: forked from the server, or afresh for an accelerator.

    An accelerator's driver does not survive a fork once it was asked for, which importing the
    libraries does.
    """
    if device != "cpu":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Of no effect where the server runs already; then a task imports what is missing.
    more = "" if task.attacks_or_bounds else "_networks"
    context.set_forkserver_preload([f"corobench.benchmark.executors.preloaded{more}"])
    return context


class _Process:
    """One process on one task.

    Attributes:
        step: that it began last.
    """

    def __init__(
        self,
        task: Task[Any],
        arguments: Arguments,
        ended: dict[str, Ended],
        limits: Limits,
        scratch: Path,
    ) -> None:
        context = _context(task, device_of(arguments))
        self._limits = limits
        self.step = "start"
        self._connection, theirs = context.Pipe()
        order = {
            "task": task.name,
            "arguments": arguments,
            "ended": ended,
            "limits": asdict(limits),
            "scratch": str(scratch),
            "cwd": str(Path.cwd()),
            "environment": {k: v for k, v in os.environ.items() if k.startswith("COROBENCH_")},
        }
        text = json.dumps(order, default=_as_json)
        self._process = context.Process(target=serve, args=(theirs, text), daemon=True)
        with _no_imports_from_here():
            self._process.start()
        theirs.close()

    def run(self, screen: _Screen) -> dict[str, Any] | Ended:
        """Until the process answers or ends: its last message, or why it ended."""
        pid = self._process.pid
        assert pid is not None
        begun = time.monotonic()
        while True:
            wait([self._connection, self._process.sentinel], timeout=LOOK_S)
            try:
                while self._connection.poll():
                    message = json.loads(self._connection.recv_bytes(MAX_MESSAGE_BYTES))
                    if message["kind"] in ("done", "refused", "failed"):
                        return dict(message)
                    if message["kind"] == "crashed":
                        return Ended(str(message["text"]), by_clock=False)
                    if message["kind"] == "step":
                        self.step, begun = str(message["text"]), time.monotonic()
                    elif message["kind"] in (*SHOWN, "title"):
                        screen.show(message)
            except (EOFError, OSError):
                self._process.join(5)
                return self._why()
            # Importing libraries and downloading data is no stranger's work.
            most_s = max(self._limits.step_s, START_S if self.step == "start" else 0.0)
            if time.monotonic() - begun > most_s:
                seconds = f"{most_s:g} s"
                return Ended(f"no answer within {seconds} (--step-limit-s)", by_clock=True)
            if resident_bytes(pid) > self._limits.memory_bytes:
                most = f"{self._limits.memory_bytes / GIB:g} GiB"
                return Ended(f"used more than {most} of memory (--memory-limit-gib)", False)

    def _why(self) -> Ended:
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            if -code == signal.SIGXCPU:
                seconds = f"{self._limits.step_s:g} s"
                return Ended(f"more than {seconds} of processor time (--step-limit-s)", True)
            hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            return Ended(f"ended by {name}{hint}", by_clock=False)
        return Ended(f"ended with exit code {code}", by_clock=False)

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
