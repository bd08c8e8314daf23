"""Where the work on a submission runs: in this process, or in one of its own with limits.

Each function takes the limits of the process, or None to work in the calling one. They raise what
the functions they name raise, and SubmissionError where the process was ended. What each does in
which process is one entry of the table in `benchmark.executors.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corobench.benchmark.errors import CorobenchError
    from corobench.benchmark.evaluation.settings import Evaluated, Settings
    from corobench.benchmark.executors.crew import Crew
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.executors.tasks import Answer, Task
    from corobench.benchmark.executors.work import Watch, Work
    from corobench.benchmark.gate.rule import Rule
    from corobench.benchmark.gate.run import Checked
    from corobench.benchmark.records.reports import (
        Contested,
        Converted,
        Examined,
        ExportedQuestions,
        ImportReport,
        Measured,
        Recheck,
        Remeasured,
        Repacked,
        Verified,
    )
    from corobench.benchmark.review.drift import Drift


def run_task(task: Task[Answer], limits: Limits | None, **arguments: Any) -> Answer:
    """Do a task here, or in a process of its own; arguments that are None are left out."""
    given = {key: value for key, value in arguments.items() if value is not None}
    if limits is None:
        answer: Answer = task.call(given)
        return answer
    from corobench.benchmark.executors import isolated

    return isolated.run(task, given, limits)


def run_evaluation(folder: Path, settings: Settings, limits: Limits | None) -> Evaluated:
    """Evaluate a submission; see `benchmark.evaluation.evaluate.evaluate`."""
    if limits is None:
        from corobench.benchmark.evaluation.evaluate import evaluate

        return evaluate(folder, settings)
    from corobench.benchmark.executors import isolated

    return isolated.evaluate(folder, settings, limits)


def run_evaluations(
    works: Sequence[Work], limits: Limits, crew: Crew, watch: Watch
) -> list[Evaluated | CorobenchError]:
    """Make several results; see `benchmark.executors.entries.evaluate_all`."""
    from corobench.benchmark.executors.entries import evaluate_all

    return evaluate_all(works, limits, crew, watch)


def run_validation(folder: Path, limits: Limits | None) -> list[str]:
    """Every fault of a submission; see `benchmark.submission.validate`."""
    from corobench.benchmark.executors.tasks import FAULTS

    return run_task(FAULTS, limits, folder=folder)


def run_certifiers(folder: Path, limits: Limits | None) -> list[str]:
    """Which certifiers will be asked; see `benchmark.evaluation.certifiable`."""
    from corobench.benchmark.errors import SubmissionError
    from corobench.benchmark.executors.tasks import CERTIFIERS

    try:
        return run_task(CERTIFIERS, limits, folder=folder)
    except SubmissionError as error:
        return [f"certifiers could not be listed: {fault}" for fault in error.faults]


def run_check(
    candidate: Path,
    baseline: Path,
    rule: Rule,
    limits: Limits | None,
    *,
    device: str = "cpu",
    data_root: Path | None = None,
    whole: bool = False,
) -> Checked:
    """Compare a candidate with its baseline; see `benchmark.gate.run.compare_with_baseline`.

    What a result file says that its weights weigh is compared with them, where they are at hand.

    Args:
        candidate: submission folder, ONNX file, or a result file.
        baseline: result file.
        rule: what is allowed.
        limits: of the process.
        device, data_root, whole: see there.
    """
    from corobench.benchmark.executors.tasks import CHECK
    from corobench.benchmark.gate.run import is_result

    unweighed = [
        path for path in (baseline, candidate) if is_result(path) and not _is_weighed(path, limits)
    ]
    found = run_task(
        CHECK,
        None if is_result(candidate) else limits,
        candidate=candidate,
        baseline=baseline,
        rule=rule,
        device=device,
        data_root=data_root,
        whole=whole,
    )
    notes = tuple(
        f"{path}: its weights were not measured, because torch is not installed"
        for path in unweighed
    )
    return replace(found, notes=(*found.notes, *notes))


def _is_weighed(path: Path, limits: Limits | None) -> bool:
    """Refuse a result whose weights are at hand and do not weigh what it says.

    A folder of that name with other weights, or one that cannot be loaded, does not count.

    Returns:
        False if the weights are at hand and could not be measured here.
    """
    from corobench.benchmark.errors import SubmissionError
    from corobench.benchmark.records.reading.result_file import read_result
    from corobench.benchmark.records.weighing import folder_at_hand, require_weighed

    result = read_result(path)
    folder = folder_at_hand(path, result.entry)
    if folder is None:
        return True
    try:
        found = run_measure(folder, limits, latency=False)
    except SubmissionError:
        return True
    except ModuleNotFoundError:
        return False
    if found.weights_sha256 == result.weights_sha256:
        require_weighed(result, found.compactness, path, folder)
    return True


def run_recheck(
    result: Path,
    submission: Path,
    data_root: Path | None,
    limits: Limits | None,
    **more: bool,
) -> Recheck:
    """Measure a result's evidence again; see `benchmark.review.recheck.recheck`."""
    from corobench.benchmark.executors.tasks import RECHECK

    return run_task(
        RECHECK,
        limits,
        result_path=result,
        submission=submission,
        data_root=data_root,
        **more,
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


def run_examination(
    folder: Path, others: Sequence[Path], changed: Sequence[str], limits: Limits | None
) -> Examined:
    """Compare a new entry with the others; see `benchmark.submission.intake_faults.examine`."""
    from corobench.benchmark.executors.tasks import EXAMINE

    return run_task(EXAMINE, limits, folder=folder, others=list(others), changed=list(changed))


def run_import(
    source: Path,
    out: Path,
    limits: Limits | None,
    *,
    track: str,
    architecture: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    title: str | None = None,
    authors: Sequence[str] = (),
    licence: str = "unknown",
    meta: Mapping[str, Any] | None = None,
    keep_ratio: float | None = None,
    min_keep_ratio: float | None = None,
    data_root: Path | None = None,
    state_key: str | None = None,
) -> ImportReport:
    """Make a submission folder; see `benchmark.submission.importing`.

    Args:
        source: a checkpoint, or an ONNX file.
        out: the new folder.
        limits: of the process.
        track, title, authors, licence, meta, data_root: see there.
        architecture, arguments, keep_ratio, min_keep_ratio, state_key: of a checkpoint alone.
    """
    from corobench.benchmark.executors.tasks import IMPORT

    return run_task(
        IMPORT,
        limits,
        source=source,
        out=out,
        track=track,
        architecture=architecture,
        arguments=arguments,
        title=title,
        authors=authors,
        licence=licence,
        meta=meta,
        keep_ratio=keep_ratio,
        min_keep_ratio=min_keep_ratio,
        data_root=data_root,
        state_key=state_key,
    )


def run_conversion(
    to: str,
    folder: Path,
    out: Path,
    limits: Limits | None,
    *,
    architecture: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
) -> Converted:
    """Write a submission in another form; see `benchmark.submission.converting`.

    Args:
        to: "onnx", "int8", "bf16", "safetensors" or "compact".
        folder: of the submission.
        out: the new folder.
        limits: of the process.
        architecture, arguments: where it goes to safetensors.
        data_root: folder of the dataset, or None for the usual search.
    """
    from corobench.benchmark.executors.tasks import CONVERT

    return run_task(
        CONVERT,
        limits,
        to=to,
        folder=folder,
        out=out,
        architecture=architecture,
        arguments=arguments,
        data_root=data_root,
    )


def run_repacking(
    path: Path, limits: Limits | None, *, to_packed: bool, out: Path | None
) -> Repacked:
    """Pack or unpack weights; see `benchmark.submission.packing.repack`."""
    if limits is None:
        from corobench.benchmark.submission.packing import repack

        return repack(path, to_packed=to_packed, out=out)
    from corobench.benchmark.executors import isolated

    return isolated.repack(path, limits, to_packed=to_packed, out=out)


def run_measure(folder: Path, limits: Limits | None, *, latency: bool) -> Measured:
    """Weigh a submission; see `benchmark.submission.latency.weigh`."""
    from corobench.benchmark.executors.tasks import MEASURE

    return run_task(MEASURE, limits, folder=folder, latency=latency)


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
