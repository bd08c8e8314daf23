"""A process with limits: its messages, the step it is at, and why it ended; it is never waited for.

It is forked from a server that has the libraries loaded and has seen no submission. Imports no
torch.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.executors.limits import GIB, Limits, resident_bytes
from corobench.benchmark.executors.wire import GarbageError, Wire
from corobench.benchmark.files.steps import MEMORY_LIMIT, STEP_LIMIT, Ended

LOOK_S = 0.1
#: Least seconds for what comes before the first step.
START_S = 600.0
#: Tries to start a process, where the server that forks it is lost each time.
MAX_STARTS = 5
START_AGAIN_S = 0.2
LIBRARIES = ("torch", "torchvision", "pyautoattack")

Target = Callable[[Connection, str], None]


class End(NamedTuple):
    """Why a process ended.

    Attributes:
        ended: the reason.
        by_limit: a limit of ours ended it, or an exception, so that trying again is of no use.
    """

    ended: Ended
    by_limit: bool


def require_libraries() -> None:
    """Say here what is missing: in its process it would look like a fault of the submission.

    Raises:
        ModuleNotFoundError: a library that every process needs is not installed.
    """
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def no_imports_from_here() -> Iterator[None]:
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


@contextmanager
def deaf_to_the_keyboard() -> Iterator[None]:
    """Python started meanwhile never sees Ctrl-C, which goes to all processes of a terminal.

    It would print a traceback while it loads; the parent decides when it ends. What is started
    keeps an ignored signal ignored. Here Ctrl-C waits until the end of the block: it is blocked
    first, for a signal that is ignored and not blocked would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    can_wait = hasattr(signal, "pthread_sigmask")
    # multiprocessing unblocks the signal itself where it must start this process.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_wait else set()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if can_wait:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(process: BaseProcess, context: SpawnContext | ForkServerContext) -> None:
    """Start a process; a server that it is forked from is begun first and loads for seconds."""
    if isinstance(context, ForkServerContext):
        with deaf_to_the_keyboard():
            forkserver.ensure_running()
        process.start()
        return
    with deaf_to_the_keyboard():
        process.start()


def context_of(device: str, *, attacks_or_bounds: bool = True) -> SpawnContext | ForkServerContext:
    """How a process is started: forked from the server, or afresh for an accelerator.

    An accelerator's driver does not survive a fork once it was asked for, which importing the
    libraries does.

    Args:
        device: for example "cpu" or "cuda".
        attacks_or_bounds: whether the process needs those libraries.
    """
    if device != "cpu":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Of no effect where the server runs already; then a task imports what is missing.
    more = "" if attacks_or_bounds else "_networks"
    context.set_forkserver_preload([f"corobench.benchmark.executors.preloaded{more}"])
    return context


def _started(
    context: SpawnContext | ForkServerContext, target: Target, order: str
) -> tuple[BaseProcess, Connection]:
    """A new process, and our end of the connection to it.

    Raises:
        CorobenchError: the server that processes are forked from is killed each time.
    """
    for _ in range(MAX_STARTS):
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, order), daemon=True)
        try:
            with no_imports_from_here():
                _start(process, context)
        except (EOFError, ConnectionError):  # the server was lost: once that is known, another one
            ours.close()  # is begun
            time.sleep(START_AGAIN_S)
            continue
        finally:
            theirs.close()
        return process, ours
    raise CorobenchError(
        f"no process could be started, {MAX_STARTS} times: the one that starts them was ended. Has "
        "this machine enough memory?"
    )


class Child:
    """One process.

    Args:
        context: how it is started.
        target: what it runs: takes its end of the connection and the order.
        order: JSON.
        limits: of the process.
        max_bytes: of one of its messages.

    Attributes:
        step: that it began last.
    """

    def __init__(
        self,
        context: SpawnContext | ForkServerContext,
        target: Target,
        order: str,
        limits: Limits,
        max_bytes: int,
    ) -> None:
        self._limits = limits
        self._process, ours = _started(context, target, order)
        self._wire = Wire(ours, max_bytes)
        self.step = "start"
        self._begun = self._looked = time.monotonic()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def waitables(self) -> Sequence[int]:
        """What `multiprocessing.connection.wait` can wait for."""
        return self._wire.fileno(), self._process.sentinel

    @property
    def waiting_bytes(self) -> int:
        """Bytes of messages that the process has not taken yet."""
        return self._wire.waiting_bytes

    def post(self, content: bytes) -> None:
        """Send it a message, without waiting."""
        self._wire.post(content)

    def begin(self, step: str) -> None:
        """A step begins: its time counts from now."""
        self.step, self._begun = step, time.monotonic()

    def rest(self) -> None:
        """It waits for somebody else, which is no time of its own."""
        self._begun = time.monotonic()

    def arrived(self) -> Sequence[bytes] | End:
        """Whole messages that are there, or why the process has ended."""
        is_alive = self._process.is_alive()
        try:
            messages = self._wire.arrived()
        except EOFError:
            self._process.join(5)
            return self._why()
        except GarbageError as error:
            return End(Ended(str(error), by_clock=False), by_limit=False)
        if not (messages or is_alive or self._wire.has_more):  # what it forked holds the connection
            return self._why()
        return messages

    def over_limit(self) -> End | None:
        """The limit that it has broken; looks from time to time only."""
        now = time.monotonic()
        # Importing libraries and downloading data is no stranger's work.
        most_s = max(self._limits.step_s, START_S if self.step == "start" else 0.0)
        if now - self._begun > most_s:
            reason = f"no answer within {most_s:g} s ({STEP_LIMIT})"
            return End(Ended(reason, by_clock=True), by_limit=True)
        if now - self._looked < LOOK_S:
            return None
        self._looked = now
        if resident_bytes(self.pid) > self._limits.memory_bytes:
            most = f"{self._limits.memory_bytes / GIB:g} GiB"
            reason = f"used more than {most} of memory ({MEMORY_LIMIT})"
            return End(Ended(reason, by_clock=False), by_limit=True)
        return None

    def _why(self) -> End:
        code = self._process.exitcode
        if code is not None and code < 0:
            if -code == signal.SIGXCPU:
                seconds = f"{self._limits.step_s:g} s"
                reason = f"more than {seconds} of processor time ({STEP_LIMIT})"
                return End(Ended(reason, by_clock=True), by_limit=True)
            known = {one.value: one.name for one in signal.Signals}  # not all of real time
            name = known.get(-code, f"signal {-code}")
            hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            return End(Ended(f"ended by {name}{hint}", by_clock=False), by_limit=False)
        return End(Ended(f"ended with exit code {code}", by_clock=False), by_limit=False)

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._wire.close()
