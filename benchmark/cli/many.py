"""Options and the way of commands that make many results: plan, crew, progress, report."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from corobench.benchmark.errors import ConfigError, ContradictionError, CorobenchError
from corobench.benchmark.files.atomic import prepare_folder
from corobench.benchmark.files.console import plain_console

if TYPE_CHECKING:
    from corobench.benchmark.evaluation.settings import Evaluated
    from corobench.benchmark.executors.crew import Crew
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.executors.planning import Plan, Shard
    from corobench.benchmark.executors.work import Work

Command = TypeVar("Command", bound=Callable[..., Any])

#: So many results are shown as scorecards; more of them as one line each.
MAX_SCORECARDS = 4
CONTRADICTION = (
    "certified images were broken, so a certifier or an attack is wrong. The entry is "
    "frozen and will not be ranked:\n"
)


@dataclass(frozen=True)
class Wish:
    """What the options of this module say.

    Attributes:
        workers: processes, or None for as many as there is room for.
        per_device: workers of each device.
        ray: address of a Ray cluster, "auto" or "local"; None for this machine.
        missing_only: leave alone what has a result.
        shard: the share of the entries to work on.
    """

    workers: int | None
    per_device: int
    ray: str | None
    missing_only: bool
    shard: Shard | None

    def crew(self, device: str) -> Crew:
        """Who computes.

        Raises:
            ConfigError: devices that do not go together, or none that were asked for.
        """
        from corobench.benchmark.executors.crew import Crew

        devices = devices_of(device)
        if self.ray is None and device != "all":
            _require_accelerators(devices)
        return Crew(self.workers, devices, self.per_device, self.ray)


def _number_of_workers(context: click.Context, option: click.Parameter, value: str) -> int | None:
    """A number, or None for "auto"."""
    if value == "auto":
        return None
    if not (value.isdecimal() and len(value) < 5 and int(value) >= 1):
        raise click.BadParameter(f"expected a number from 1 to 9999, or auto, but found {value!r}")
    return int(value)


def scaling(command: Command) -> Command:
    """The options of many results, given to a command as one value, `wish`: Wish."""

    @click.option(
        "--workers",
        metavar="N|auto",
        callback=_number_of_workers,
        default="auto",
        show_default=True,
        help="Processes that compute; the result is the same for any number. auto: one for each "
        "core or place on a device; a single small entry needs none.",
    )
    @click.option(
        "--workers-per-device",
        "per_device",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        help="Workers that share each accelerator.",
    )
    @click.option(
        "--ray",
        metavar="ADDRESS",
        help="Compute on a Ray cluster: its address, auto for the one this machine is part of, or "
        "local to start one here. Needs corobench[ray].",
    )
    @click.option(
        "--missing-only",
        is_flag=True,
        help="Leave alone what has a whole result of the current protocol there already.",
    )
    @click.option(
        "--shard",
        metavar="I/N",
        help="Work on one of N shares of the entries, which their names alone decide.",
    )
    @functools.wraps(command)
    def scaled(
        *arguments: Any,
        workers: int | None,
        per_device: int,
        ray: str | None,
        missing_only: bool,
        shard: str | None,
        **more: Any,
    ) -> Any:
        from corobench.benchmark.executors.planning import Shard

        share = None if shard is None else Shard.parse(shard)
        return command(*arguments, wish=Wish(workers, per_device, ray, missing_only, share), **more)

    return scaled  # type: ignore[return-value]


def devices_of(text: str) -> tuple[str, ...]:
    """The devices that ``--device`` names: one, several behind commas, or "all".

    Raises:
        ConfigError: "all", and there is no accelerator; one is not there; one is named twice; or
            nothing stands between commas.

    >>> devices_of("cuda:0, cuda:1")
    ('cuda:0', 'cuda:1')
    """
    devices = tuple(part.strip() for part in text.split(","))
    if not all(devices):
        raise ConfigError(
            f"--device: expected cpu, all, or devices such as cuda:0,cuda:1, but found {text!r}"
        )
    if devices == ("all",):
        devices = tuple(f"cuda:{number}" for number in range(num_accelerators()))
        if not devices:
            raise ConfigError("--device all: no CUDA device is seen here; use --device cpu")
    if len(set(devices)) < len(devices):
        raise ConfigError(f"--device: expected each device once, but found {text!r}")
    return devices


def _require_accelerators(devices: Sequence[str]) -> None:
    """Refuse CUDA devices that are not here, before workers are started for them.

    Raises:
        ConfigError: one is not here.
    """
    wanted = [name for name in devices if name.partition(":")[0] == "cuda"]
    num = num_accelerators() if wanted else 0
    for name in wanted:
        number = name.partition(":")[2] or "0"
        if not (number.isdecimal() and int(number) < num):
            seen = f"{num} CUDA devices are" if num > 1 else "one is" if num else "none is"
            raise ConfigError(
                f"--device {name}: not usable here ({seen} seen); expected cpu, or cuda with a GPU"
            )


def require_isolation(limits: Limits | None, wish: Wish) -> None:
    """Refuse workers where the submission is to run in this process.

    Raises:
        ConfigError: ``--no-isolate`` with workers of any kind.
    """
    if limits is None and ((wish.workers or 1) > 1 or wish.ray is not None):
        raise ConfigError(
            "--no-isolate: computes in this process, so that it has no --workers and no --ray"
        )


def num_accelerators() -> int:
    """CUDA devices that a process of ours sees; asked in another one, which loads torch."""
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=300
    )
    last = (done.stdout.split() or ["0"])[-1]
    return int(last) if done.returncode == 0 and last.isdecimal() else 0


def make(plan: Plan, out: Path, limits: Limits | None, crew: Crew) -> None:
    """Make the results of a plan, show them, and raise one error for all that went wrong.

    Args:
        plan: what is to be done.
        out: folder of results.
        limits: of each process, or None to work in this one.
        crew: who computes.

    Raises:
        ContradictionError: certified images were broken.
        OutputError: the folder cannot be written.
        CorobenchError: some entries have no result; says why for each.
    """
    if plan.works and out.exists():
        prepare_folder(out)
    console = plain_console()
    _say_plan(console, plan)
    done = _run(plan.works, out, limits, crew) if plan.works else []
    results = [one for one in done if not isinstance(one, CorobenchError)]
    failed = [one for one in done if isinstance(one, CorobenchError)]
    _show(console, results)
    _raise([*plan.refused, *failed], results)


def _say_plan(console: Console, plan: Plan) -> None:
    lines = []
    if plan.there:
        some = "result is" if len(plan.there) == 1 else "results are"
        lines.append(f"{len(plan.there)} {some} there already and left alone (--missing-only)")
    if plan.num_elsewhere:
        lines.append(f"{plan.num_elsewhere} belong to other shares (--shard)")
    if not plan.works and not plan.refused:
        lines.append("nothing to do")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _run(
    works: Sequence[Work], out: Path, limits: Limits | None, crew: Crew
) -> list[Evaluated | CorobenchError]:
    """Make results; what one entry does wrong leaves the others alone."""
    from corobench.benchmark.cli.screens import error_console, screen_of
    from corobench.benchmark.executors.board import Board, Together
    from corobench.benchmark.executors.status import StatusFile

    if limits is None:
        return _run_here(works)
    from corobench.benchmark.executors import run_evaluations

    board = Board(works)
    with ExitStack() as stack:
        stack.enter_context(_stopped_like_by_hand())
        status = stack.enter_context(StatusFile(out, board))
        screen = screen_of(board)
        stack.enter_context(screen)
        try:
            return run_evaluations(works, limits, crew, Together((board, status, screen)))
        except KeyboardInterrupt:
            stack.pop_all().close()
            if len(works) > 1:
                text = f"{board.snapshot().counts}; finished results stay"
                error_console().print(text, style="yellow", markup=False)
            raise


@contextmanager
def _stopped_like_by_hand() -> Iterator[None]:
    """A scheduler that ends this process at its time limit is obeyed like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_here(works: Sequence[Work]) -> list[Evaluated | CorobenchError]:
    """In this process, one after another."""
    from corobench.benchmark.executors import run_evaluation

    done: list[Evaluated | CorobenchError] = []
    for work in works:
        try:
            done.append(run_evaluation(work.folder, work.settings, None))
        except CorobenchError as error:
            done.append(error)
    return done


def _show(console: Console, results: Sequence[Evaluated]) -> None:
    from corobench.benchmark.cli.screens import found_in
    from corobench.benchmark.scoring.terminal import scorecard

    for done in results:
        note = " (already there: same weights, settings and versions)" if done.reused else ""
        if len(results) <= MAX_SCORECARDS:
            console.print(scorecard(done.result))
            line = f"{done.path}{note}"
        else:
            line = f"{done.path}: {found_in(done)}{note}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
        for text in done.result.errors:
            console.print(f"no answer: {text}", soft_wrap=True, markup=False)


def _raise(failed: Sequence[CorobenchError], results: Sequence[Evaluated]) -> None:
    """One error for all, or none.

    A single error stays what it is, with the exit code of its kind.
    """
    frozen = [
        f"{done.path}: {line}" for done in results for line in done.result.audit.contradictions
    ]
    contradicted = [error for error in failed if isinstance(error, ContradictionError)]
    refused = [error for error in failed if not isinstance(error, ContradictionError)]
    text = "\n".join(dict.fromkeys(error.message for error in refused))
    if frozen or contradicted:
        if refused:
            plain_console(stderr=True).print(text, style="red", markup=False, soft_wrap=True)
        told = [error.message for error in contradicted]
        if frozen:
            told.append(CONTRADICTION + "\n".join(frozen))
        raise ContradictionError("\n".join(told))
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise CorobenchError(text)
