"""Where the work on a submission runs: in this process, or in one of its own with limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.executors.limits import Limits
    from benchmark.settings import Evaluated, Settings


def run_evaluation(folder: Path, settings: Settings, limits: Limits | None) -> Evaluated:
    """Evaluate a submission in a process of its own, or, without limits, in this one.

    Raises:
        CorobenchError: see `benchmark.evaluate.evaluate`.
    """
    if limits is None:
        from benchmark.evaluate import evaluate

        return evaluate(folder, settings)
    from benchmark.executors import isolated

    return isolated.evaluate(folder, settings, limits)


def run_validation(folder: Path, limits: Limits | None) -> list[str]:
    """Every fault of a submission, found in a process of its own, or in this one."""
    if limits is None:
        from benchmark.submission.validate import find_submission_faults

        return find_submission_faults(folder)
    from benchmark.executors import isolated

    return isolated.find_faults(folder, limits)
