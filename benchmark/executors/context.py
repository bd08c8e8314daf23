"""What a task works with in its process, and the moment at which it gives up writing elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corobench.benchmark.executors import landlock
from corobench.benchmark.executors.remote import RemoteReporter
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps

if TYPE_CHECKING:
    from corobench.benchmark.evaluation.jobs import Executor


@dataclass(frozen=True)
class TaskContext:
    """What a task works with.

    Attributes:
        steps: are told to the parent, which gives each its time.
        scratch: folder that is there for all processes of one call and is removed after it.
        send: a message to the parent.
        executor: makes what hands the jobs of a workbench to workers; None where they are computed
            in this process.
    """

    steps: Steps
    scratch: Path
    send: Callable[..., None]
    executor: Callable[[Any], Executor] | None = None

    def report(self, title: str) -> Reporter:
        """Progress that the parent shows."""
        return RemoteReporter(title, self.send)

    def give_up_writing(self, except_in: Iterable[Path], then: str) -> None:
        """Give up writing elsewhere, and begin the step that opens what a stranger made.

        Args:
            except_in: existing folders and files in which the task may write.
            then: name of the step.
        """
        tempfile.tempdir = str(self.scratch)
        places = [path.absolute() for path in except_in]
        landlock.allow_writes_below([*places, self.scratch, Path(os.devnull)])
        self.steps.begin(then)
