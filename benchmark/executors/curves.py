"""Where a security curve is measured: in this process, or in one of its own with limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.executors import run_task
from corobench.benchmark.records.curve import curve_path

if TYPE_CHECKING:
    from corobench.benchmark.executors.limits import Limits


def run_curve(
    result: Path,
    submission: Path,
    limits: Limits | None,
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    force: bool = False,
) -> Path:
    """Measure the security curve of a result; see `benchmark.review.curve.measure_curve`."""
    from corobench.benchmark.executors.tasks import CURVE

    run_task(
        CURVE,
        limits,
        result_path=result,
        submission=submission,
        device=device,
        data_root=data_root,
        force=force,
    )
    return curve_path(result)
