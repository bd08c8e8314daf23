"""Where the classes of adversarial images are named: here, or in a process with limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.executors import run_task
from corobench.benchmark.records.reading.taken_file import is_named
from corobench.benchmark.records.taken import taken_path

if TYPE_CHECKING:
    from corobench.benchmark.executors.limits import Limits


def run_taken(
    result: Path, submission: Path, limits: Limits | None, *, data_root: Path | None = None
) -> Path:
    """Name the classes of a result's images, as `benchmark.review.taken.name_classes` does.

    A file that fits its result already stays.
    """
    from corobench.benchmark.executors.tasks import TAKEN

    if is_named(result):
        return taken_path(result)
    run_task(TAKEN, limits, result_path=result, submission=submission, data_root=data_root)
    return taken_path(result)
