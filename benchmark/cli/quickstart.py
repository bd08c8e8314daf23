"""The main job in one command: the commands a user would type, one after another.

The entries are spread over worker processes; every step is an ordinary command of
``corobench`` and is shown as it is run, so that a newcomer can repeat it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from corobench.benchmark.cli.entry import STOPPED
from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.executors.child import deaf_to_the_keyboard
from corobench.benchmark.files.console import plain_console

FAMILIES = ("adv", "ibp")
#: Pruned arms of each family; all start from the family's dense parent.
ARMS = ("mismatch-10x", "lwm-10x", "random-10x")

Command = tuple[str, ...]
Job = list[Command]


def train_command(name: str, out: Path, seed: int) -> Command:
    """The command that trains one entry; another seed than 0 is part of the entry's id."""
    recipe = name.replace("digits-", "digits/", 1)
    options = () if seed == 0 else ("--seed", str(seed))
    return ("train", recipe, "--out", str(out / "entries"), *options)


def evaluate_command(name: str, out: Path, subset: int | None, seed: int) -> Command:
    """The command that evaluates one entry."""
    entry = name if seed == 0 else f"{name}-s{seed}"
    size = () if subset is None else ("--subset", str(subset))
    folder, results = str(out / "entries" / entry), str(out / "results")
    # They were made here a moment ago; a process of its own would only cost time.
    return ("evaluate", folder, "--out", results, "--force", "--no-isolate", *size)


def plan(out: Path, subset: int | None, seed: int) -> list[tuple[Job, list[Job]]]:
    """Per family: how its dense parent is trained, and the jobs that start from the parent.

    The longest jobs come first, so that no worker is left with a long one at the end.
    """
    families = []
    for family in FAMILIES:
        dense, *pruned = (f"digits-{family}-{arm}" for arm in ("dense", *ARMS))
        jobs = [
            [train_command(entry, out, seed), evaluate_command(entry, out, subset, seed)]
            for entry in pruned
        ]
        evaluate_dense = [evaluate_command(dense, out, subset, seed)]
        is_longest = family == "adv"
        jobs = [evaluate_dense, *jobs] if is_longest else [*jobs, evaluate_dense]
        families.append(([train_command(dense, out, seed)], jobs))
    return families


def run(out: Path, *, subset: int | None = None, workers: int = 2, seed: int = 0) -> Path:
    """Train and evaluate all entries, then render the page.

    Args:
        out: gets ``entries/``, ``results/`` and ``site/``.
        subset: images per entry; the track's standard subset by default.
        workers: processes.
        seed: of the training.

    Returns:
        Path of the page.

    Raises:
        CorobenchError: a step failed; its message was shown by the step.
    """
    from corobench.benchmark.cli.main import invoke

    start = time.monotonic()
    console = plain_console(stderr=True, highlight=False)
    console.print(
        "Training, pruning, attacking and verifying eight entries on scikit-learn's digits.\n"
        "This takes a few minutes on two cores; each line is a step you can repeat yourself."
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        with deaf_to_the_keyboard():
            plans = plan(out, subset, seed)
            following = {pool.submit(run_commands, job): jobs for job, jobs in plans}
        while following:
            done, _ = wait(following, return_when=FIRST_COMPLETED)
            if any(future.result() for future in done):
                pool.shutdown(cancel_futures=True)
                raise CorobenchError("a step of the quickstart failed; its message is above")
            for future in done:
                for job in following.pop(future):
                    following[pool.submit(run_commands, job)] = []
    site = out / "site"
    # A look of one's own, where a run with --subset may have left quick results.
    if invoke(["render", str(out / "results"), "--out", str(site), "--quick"]):
        raise CorobenchError("the page could not be rendered; the message is above")
    page = site / "index.html"
    console.print(f"Done in {time.monotonic() - start:.0f} s. Open {page}", soft_wrap=True)
    return page


def _begin() -> None:
    """The beginning of a worker: from now on Ctrl-C ends it, without a word."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(STOPPED))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def run_commands(commands: Job) -> int:
    """Run commands in this process until one fails; returns its exit code.

    The process keeps to one thread: the networks are so small that a second one only waits.
    """
    import torch

    from corobench.benchmark.cli.main import invoke

    torch.set_num_threads(1)
    console = plain_console(stderr=True, highlight=False)
    for command in commands:
        console.print(f"$ corobench {' '.join(command)}", style="bold", soft_wrap=True)
        code = invoke(command)
        if code:
            return code
    return 0
