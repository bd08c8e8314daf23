"""Where the classes of adversarial images are named: here, or in a process with limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.executors import run_task
from corobench.benchmark.records.taken import taken_path

if TYPE_CHECKING:
    from corobench.benchmark.executors.limits import Limits


def run_taken(
    result: Path, submission: Path, limits: Limits | None, *, data_root: Path | None = None
) -> Path:
    """Name the classes of a result's images; see `benchmark.review.taken.name_classes`."""
    from corobench.benchmark.executors.tasks import TAKEN

    run_task(TAKEN, limits, result_path=result, submission=submission, data_root=data_root)
    return taken_path(result)
