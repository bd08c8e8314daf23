"""Work on a submission in a process of its own, so that nothing it does takes the harness down.

The process is forked from a server that has the libraries loaded and has seen no submission. A step
that hangs, crashes or uses too much memory ends the process; another one goes on from the finished
chunks, and the images of that step become a ``timeout`` or an ``error`` with the reason.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, is_dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from corobench.benchmark import errors
from corobench.benchmark.errors import ContractError, CorobenchError, SubmissionError
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.executors.accelerator import device_of
from corobench.benchmark.executors.attempts import Attempts
from corobench.benchmark.executors.child import LOOK_S, Child, End, context_of, require_libraries
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.remote import show
from corobench.benchmark.executors.tasks import EVALUATE, FAULTS, REPACK, Answer, Arguments, Task
from corobench.benchmark.executors.wire import GarbageError, unpack
from corobench.benchmark.executors.worker import serve
from corobench.benchmark.files.new_folder import become, beside, room_beside
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Ended
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reports import Repacked

#: Most bytes of one message of a process.
MAX_MESSAGE_BYTES = 16 * 1024**2
#: Kinds of messages that are shown, and of the one that is the last.
SHOWN = ("stage", "advance", "note", "finish", "say", "title")
LAST = ("done", "refused", "failed")
#: What reading a message that no corobench sends may raise.
NO_MESSAGE = (GarbageError, KeyError, TypeError, ValueError, OverflowError, RecursionError, OSError)


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
    return evaluated(run(EVALUATE, {"folder": folder, "settings": settings}, limits, report))


def evaluated(done: dict[str, Any]) -> Evaluated:
    """What the task EVALUATE told, with the result that it wrote.

    Raises:
        CorobenchError: it wrote none.
    """
    try:
        path = Path(done["path"])
        is_file = path.is_file()  # opening a pipe would wait for ever
    except NO_MESSAGE:
        is_file = False
    if not is_file:
        raise CorobenchError("evaluate: its process wrote no result where it says so")
    return Evaluated(read_result(path), path, bool(done.get("reused")))


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
    require_libraries()
    try:
        if task.makes_folder:
            return _make(task, arguments, limits)
        return _call(task, arguments, limits, report)
    except SubmissionError as error:
        if task.if_refused is None:
            raise
        return task.if_refused(tuple(error.faults))


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
    attempts = Attempts(Path(arguments[task.strangers]), goes_on=task.goes_on)
    with ExitStack() as stack:
        scratch = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="corobench-", ignore_cleanup_errors=True)
        )
        screen = _Screen(Path(arguments[task.strangers]).name, report, stack)
        while True:
            process = Process(task, arguments, attempts.ended, limits, Path(scratch))
            try:
                answer = process.run(screen)
            finally:
                process.stop()
            if isinstance(answer, End):
                screen.say(attempts.note(process.step, answer))
            else:
                return answer_of(task, answer)


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


def answer_of(task: Task[Answer], message: dict[str, Any]) -> Answer:
    """What a task gave back with its last message, checked against its type.

    Raises:
        CorobenchError: the task ended with it, or gave back what is no answer.
    """
    try:
        return _value(task, message)
    except NO_MESSAGE as error:
        raise CorobenchError(
            f"{task.name}: its process gave back what is no answer ({type(error).__name__})"
        ) from error


def _value(task: Task[Answer], message: dict[str, Any]) -> Answer:
    """What a task gave back; raises the error that it ended with."""
    if message["kind"] == "done":
        checked: Answer = TypeAdapter(task.answer_type()).validate_json(str(message["value"]))
        return checked
    name = str(message["name"])
    if message["kind"] == "refused":
        faults = [str(fault) for fault in message["faults"]]
        refusal = ContractError if name == "ContractError" else SubmissionError
        raise refusal(message["path"], faults)
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, CorobenchError)):
        kind = CorobenchError
    raise kind(str(message["text"]))


class _Screen:
    """Progress of the process, shown here."""

    def __init__(self, title: str, report: Reporter | None, stack: ExitStack) -> None:
        self._title, self._report, self._stack = title, report, stack
        self._open = False

    def show(self, message: dict[str, Any]) -> None:
        if message["kind"] not in SHOWN:
            return
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
        show(self._report, message["kind"], text, number)

    def say(self, text: str) -> None:
        self.show({"kind": "say", "text": text})


def _as_json(value: object) -> object:
    """Paths as text, dataclasses as objects."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


class Process:
    """One process on one task.

    Args:
        task, arguments: see `run`.
        ended: steps that are not tried.
        limits: of the process.
        scratch: folder in which it may write.
        has_workers: whether others compute its jobs.
    """

    def __init__(
        self,
        task: Task[Any],
        arguments: Arguments,
        ended: dict[str, Ended],
        limits: Limits,
        scratch: Path,
        *,
        has_workers: bool = False,
    ) -> None:
        order = {
            "task": task.name,
            "arguments": arguments,
            "ended": ended,
            "limits": asdict(limits),
            "scratch": str(scratch),
            "cwd": str(Path.cwd()),
            "environment": {k: v for k, v in os.environ.items() if k.startswith("COROBENCH_")},
            "has_workers": has_workers,
        }
        text = json.dumps(order, default=_as_json)
        context = context_of(device_of(arguments), attacks_or_bounds=task.attacks_or_bounds)
        self.child = Child(context, serve, text, limits, MAX_MESSAGE_BYTES)

    @property
    def step(self) -> str:
        """The step that it began last."""
        return self.child.step

    def run(self, screen: _Screen) -> dict[str, Any] | End:
        """Until the process answers or ends: its last message, or why it ended."""
        while True:
            wait(self.child.waitables, timeout=LOOK_S)
            for message in self.told():
                if isinstance(message, End) or message["kind"] in LAST:
                    return message
                screen.show(message)

    def told(self) -> Iterator[dict[str, Any] | End]:
        """What the process says; what it ends with is a message of `LAST`, or an `End`."""
        arrived = self.child.arrived()
        if isinstance(arrived, End):
            yield arrived
            return
        for content in arrived:
            try:
                message = self._read(content)
            except NO_MESSAGE:
                yield End(Ended("sent what is no message", by_clock=False), by_limit=False)
                return
            if message is not None:
                yield message
        end = self.child.over_limit()
        if end is not None:
            yield end

    def _read(self, content: bytes) -> dict[str, Any] | End | None:
        message, _ = unpack(content)
        kind = message["kind"]
        if kind == "step":
            self.child.begin(str(message["text"]))
            return None
        if kind == "crashed":
            # An exception is raised again where it is tried again.
            return End(Ended(str(message["text"]), by_clock=False), by_limit=True)
        if kind in SHOWN:
            text, number = str(message.get("text", "")), int(message.get("number", 0))
            return {"kind": kind, "text": text, "number": number}
        return message

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.child.stop()
