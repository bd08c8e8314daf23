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
        Converted,
        Examined,
        ImportReport,
        Measured,
        Repacked,
    )


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


def run_examination(
    folder: Path,
    others: Sequence[Path],
    changed: Sequence[str],
    limits: Limits | None,
    *,
    data_root: Path | None = None,
) -> Examined:
    """Compare a new entry with the others; see `benchmark.submission.intake_faults.examine`."""
    from corobench.benchmark.executors.tasks import EXAMINE

    return run_task(
        EXAMINE,
        limits,
        folder=folder,
        others=list(others),
        changed=list(changed),
        data_root=data_root,
    )


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
