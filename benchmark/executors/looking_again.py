"""Where a published result is looked at again: in this process, or in one of its own with limits.

As in `benchmark.executors`: each function takes the limits of the process, or None to work in the
calling one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corobench.benchmark.executors import run_task

if TYPE_CHECKING:
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.records.reports import (
        Contested,
        ExportedQuestions,
        Recheck,
        Remeasured,
        Verified,
    )
    from corobench.benchmark.review.drift import Drift


def run_recheck(
    result: Path,
    submission: Path,
    limits: Limits | None,
    *,
    data_root: Path | None = None,
    proofs: bool = True,
    curve: bool = False,
) -> Recheck:
    """Measure a result's evidence again; see `benchmark.review.recheck.recheck`."""
    from corobench.benchmark.executors.tasks import RECHECK

    return run_task(
        RECHECK,
        limits,
        result_path=result,
        submission=submission,
        data_root=data_root,
        proofs=proofs,
        curve=curve,
    )


def run_contest(
    result: Path,
    images: Path,
    submission: Path,
    limits: Limits | None,
    *,
    data_root: Path | None = None,
    by: str = "",
    write: bool = False,
) -> Contested:
    """Judge adversarial images from anybody; see `benchmark.review.contest.contest`.

    Args:
        result: the result file.
        images: npz file of the images.
        submission: folder of the entry.
        limits: of the process.
        data_root, by, write: see there.
    """
    from corobench.benchmark.executors.tasks import CONTEST

    return run_task(
        CONTEST,
        limits,
        result_path=result,
        images_path=images,
        submission=submission,
        data_root=data_root,
        by=by,
        write=write,
    )


def run_vnnlib_export(
    result: Path, submission: Path, out: Path, limits: Limits | None, **asked: Any
) -> ExportedQuestions:
    """Write open images for a verifier; see `benchmark.review.vnnlib_files.export_vnnlib`."""
    from corobench.benchmark.executors.tasks import EXPORT_VNNLIB

    given = {"result_path": result, "submission": submission, "out": out, **asked}
    return run_task(EXPORT_VNNLIB, limits, **given)


def run_remeasure(result: Path, folder: Path, limits: Limits | None, *, write: bool) -> Remeasured:
    """Weigh the submission of a result again; see `benchmark.review.remeasure.remeasure`."""
    from corobench.benchmark.executors.tasks import REMEASURE

    return run_task(REMEASURE, limits, path=result, folder=folder, write=write)


def run_replay(
    old: Path,
    folder: Path,
    limits: Limits | None,
    *,
    num_images: int = 100,
    seed: int = 0,
    max_moved: float = 5.0,
    device: str = "cpu",
    data_root: Path | None = None,
) -> Drift:
    """Evaluate a sample of a result again; see `benchmark.review.replay.replay`."""
    from corobench.benchmark.executors.tasks import REPLAY

    return run_task(
        REPLAY,
        limits,
        old_path=old,
        folder=folder,
        num_images=num_images,
        seed=seed,
        max_moved=max_moved,
        device=device,
        data_root=data_root,
    )


def run_verification(
    path: Path,
    folder: Path,
    limits: Limits | None,
    *,
    seed: int,
    out: Path,
    hidden_rate: float | None = None,
    miss_rate: float | None = None,
    device: str = "cpu",
    data_root: Path | None = None,
) -> Verified:
    """Measure again what a handed-in result claims; see `benchmark.review.verification.verify`.

    Args:
        path: of the result file.
        folder: of the submission.
        limits: of the process.
        seed, hidden_rate, miss_rate, device, data_root, out: see there.
    """
    from corobench.benchmark.executors.tasks import VERIFY

    return run_task(
        VERIFY,
        limits,
        path=path,
        folder=folder,
        seed=seed,
        out=out,
        hidden_rate=hidden_rate,
        miss_rate=miss_rate,
        device=device,
        data_root=data_root,
    )
