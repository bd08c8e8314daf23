"""Several recipes at once, each in a process of its own, parents before children.

A process keeps to one thread. What goes wrong with one recipe leaves the others alone; only what
is pruned from it is not trained. The same command goes on, as with one recipe.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from corobench.baselines.budgets import budget_of
from corobench.baselines.recipe import Recipe
from corobench.benchmark.errors import ConfigError, CorobenchError
from corobench.benchmark.executors.child import deaf_to_the_keyboard
from corobench.benchmark.submission.manifest import MANIFEST

MAX_MESSAGE_BYTES = 1024**2


@dataclass(frozen=True)
class Options:
    """What the user chose for all recipes; see `baselines.procedure.run`."""

    out: Path
    data_root: Path | None = None
    device: str = "cpu"
    parents: Path | None = None
    deadline_s: float | None = None


@dataclass(frozen=True)
class Node:
    """One recipe and what must be trained before it.

    Attributes:
        recipe: with its final seed and id.
        needs: id of its parent, where that is trained here; or None.
        epochs: of it and of the longest chain of what is pruned from it.
    """

    recipe: Recipe
    needs: str | None
    epochs: int


def plan(recipes: Sequence[Recipe], parents: Path | None) -> list[Node]:
    """Recipes with the parents that they need, the longest chains first.

    Args:
        recipes: with their final seeds.
        parents: folder of submissions; a parent that is there is not trained.

    Raises:
        ConfigError: two different recipes have one id.
    """
    found: dict[str, Recipe] = {}
    needs: dict[str, str | None] = {}

    def add(recipe: Recipe) -> None:
        if found.setdefault(recipe.id, recipe) != recipe:
            raise ConfigError(f"two different recipes have the id {recipe.id!r}; rename one")
        parent = recipe.parent
        published = parent and parents and (parents / parent.id / MANIFEST).is_file()
        needs[recipe.id] = parent.id if parent is not None and not published else None
        if parent is not None and not published:
            add(parent)

    for recipe in recipes:
        add(recipe)
    children = {name: [one for one, before in needs.items() if before == name] for name in found}

    def longest(name: str) -> int:
        return _own_epochs(found[name]) + max(map(longest, children[name]), default=0)

    nodes = [Node(recipe, needs[name], longest(name)) for name, recipe in found.items()]
    return sorted(nodes, key=lambda node: (-node.epochs, node.recipe.id))


def _own_epochs(recipe: Recipe) -> int:
    budget = budget_of(recipe)
    return budget.total if recipe.parent is None else budget.total - budget.dense


def run(
    recipes: Sequence[Recipe],
    options: Options,
    num_workers: int,
    say: Callable[[str], None],
    start: Callable[[Recipe, Options], Process] | None = None,
) -> None:
    """Train recipes, so many at once.

    Args:
        recipes: with their final seeds.
        options: of all of them.
        num_workers: processes at once.
        say: told one line about each recipe that is finished, paused or failed.
        start: starts one of them; tests have another one.

    Raises:
        CorobenchError: some recipes failed; says why for each.
    """
    waiting = plan(recipes, options.parents)
    running: dict[str, Process] = {}
    finished: set[str] = set()
    faults: dict[str, str] = {}
    try:
        while waiting or running:
            for node in [node for node in waiting if node.needs in faults]:
                waiting.remove(node)
                faults[node.recipe.id] = f"not trained, because {node.needs} was not"
                say(f"{node.recipe.id}: {faults[node.recipe.id]}")
            is_over = options.deadline_s is not None and time.monotonic() >= options.deadline_s
            for node in list(waiting):
                ready = node.needs is None or node.needs in finished
                if ready and len(running) < num_workers and not is_over:
                    waiting.remove(node)
                    running[node.recipe.id] = (start or Process)(node.recipe, options)
            if not running:
                break
            wait([process.connection for process in running.values()])
            for name, process in list(running.items()):
                outcome = process.outcome()
                if outcome is None:
                    continue
                del running[name]
                if outcome["kind"] == "failed":
                    faults[name] = str(outcome["text"])
                    say(f"{name}: failed: {faults[name].splitlines()[0]}")
                elif outcome["kind"] == "done":
                    finished.add(name)
    finally:
        for process in running.values():
            process.stop()
    left = [node.recipe.id for node in waiting]
    if left:
        say(f"not begun yet: {', '.join(left)}. To continue, run the same command again")
    if faults:
        raise CorobenchError("\n".join(f"{name}: {text}" for name, text in faults.items()))


class Process:
    """One recipe in a process of its own.

    Args:
        recipe: with its final seed, whose parent is trained.
        options: of all recipes.
        train: what the process does.

    Attributes:
        connection: is ready when the process has said how it ended, or is gone.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: Options,
        train: Callable[[Connection, Recipe, Options], None] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        self._process: SpawnProcess = context.Process(
            target=_begin, args=(train or _train, theirs, recipe, options), daemon=True
        )
        with deaf_to_the_keyboard():
            self._process.start()
        theirs.close()

    def outcome(self) -> dict[str, Any] | None:
        """How it ended; None while it works."""
        if not self.connection.poll():
            return None
        try:
            told = json.loads(self.connection.recv_bytes(MAX_MESSAGE_BYTES))
            outcome = dict(told)
        except (EOFError, OSError, ValueError, TypeError):
            outcome = {}
        self._process.join()
        if outcome.get("kind") not in ("done", "paused", "failed"):
            code = self._process.exitcode
            outcome = {"kind": "failed", "text": f"its process ended with exit code {code}"}
        self.connection.close()
        return outcome

    def stop(self) -> None:
        """End it; what it saved stays."""
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _begin(
    train: Callable[[Connection, Recipe, Options], None],
    connection: Connection,
    recipe: Recipe,
    options: Options,
) -> None:
    """The beginning of a process, which ends when its parent is gone, however that was ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    train(connection, recipe, options)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(connection: Connection, recipe: Recipe, options: Options) -> None:
    """The work of a process: one recipe, whose parent is there already."""
    import torch

    from corobench.baselines import procedure
    from corobench.baselines.display import Display
    from corobench.benchmark.files.console import plain_console

    torch.set_num_threads(1)
    console = plain_console(file=sys.stderr, highlight=False, force_terminal=False)
    left_s = None
    if options.deadline_s is not None:
        left_s = max(options.deadline_s - time.monotonic(), 0.0)
    try:
        with Display(console) as display:
            trained = procedure.run(
                recipe,
                options.out,
                data_root=options.data_root,
                device=options.device,
                max_minutes=None if left_s is None else left_s / 60.0,
                progress=display,
                parents=options.parents,
            )
            display.finish(trained)
        told = {"kind": "done" if trained.is_finished else "paused", "text": ""}
    except CorobenchError as error:
        told = {"kind": "failed", "text": error.message}
    connection.send_bytes(json.dumps(told).encode()[:MAX_MESSAGE_BYTES])
    connection.close()
