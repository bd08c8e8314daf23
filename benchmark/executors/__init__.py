"""Where the work on a submission runs: in this process, or in one of its own with limits.

Each function takes the limits of the process, or None to work in the calling one. They raise what
the functions they name raise, and SubmissionError where the process was ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corobench.benchmark.evaluation.settings import Evaluated, Settings
    from corobench.benchmark.executors.limits import Limits
    from corobench.benchmark.gate.rule import Rule
    from corobench.benchmark.gate.run import Checked
    from corobench.benchmark.records.reports import (
        Contested,
        Converted,
        Examined,
        ImportReport,
        Measured,
        Recheck,
        Remeasured,
        Repacked,
        Verified,
    )
    from corobench.benchmark.review.drift import Drift


def run_evaluation(folder: Path, settings: Settings, limits: Limits | None) -> Evaluated:
    """Evaluate a submission; see `benchmark.evaluation.evaluate.evaluate`."""
    if limits is None:
        from corobench.benchmark.evaluation.evaluate import evaluate

        return evaluate(folder, settings)
    from corobench.benchmark.executors import isolated

    return isolated.evaluate(folder, settings, limits)


def run_validation(folder: Path, limits: Limits | None) -> list[str]:
    """Every fault of a submission; see `benchmark.submission.validate`."""
    if limits is None:
        from corobench.benchmark.submission.validate import find_submission_faults

        return find_submission_faults(folder)
    from corobench.benchmark.executors import isolated

    return isolated.find_faults(folder, limits)


def run_check(
    candidate: Path, baseline: Path, rule: Rule, limits: Limits | None, **more: Any
) -> Checked:
    """Compare a candidate with its baseline; see `benchmark.gate.run.check`.

    What a result file says that its weights weigh is compared with them, where they are at hand.

    Args:
        candidate: submission folder, ONNX file, or a result file.
        baseline: result file.
        rule: what is allowed.
        limits: of the process.
        more: `device`, `data_root` and `whole`.
    """
    from corobench.benchmark.gate.run import Checked, check, is_result

    for path in (baseline, candidate):
        if is_result(path):
            _require_weighed(path, limits)
    if limits is None or is_result(candidate):
        return check(candidate, baseline, rule, **more)
    from dataclasses import asdict

    from corobench.benchmark.executors import isolated

    arguments = {"candidate": candidate, "baseline": baseline, "rule": asdict(rule), **more}
    found: Checked = isolated.call("check", arguments, Checked, candidate, limits)
    return found


def _require_weighed(path: Path, limits: Limits | None) -> None:
    """Refuse a result whose weights are at hand and do not weigh what it says.

    A folder of that name with other weights, or one that cannot be loaded, does not count.
    """
    from corobench.benchmark.errors import SubmissionError
    from corobench.benchmark.records.reading.result_file import read_result
    from corobench.benchmark.records.weighing import folder_at_hand, require_weighed

    result = read_result(path)
    folder = folder_at_hand(path, result.entry)
    if folder is None:
        return
    try:
        found = run_measure(folder, limits, latency=False)
    except SubmissionError:
        return
    if found.weights_sha256 == result.weights_sha256:
        require_weighed(result, found.compactness, path, folder)


def run_recheck(
    result: Path,
    submission: Path,
    data_root: Path | None,
    limits: Limits | None,
    *,
    proofs: bool = True,
) -> Recheck:
    """Measure a result's evidence again; see `benchmark.review.recheck.recheck`."""
    if limits is None:
        from corobench.benchmark.review.recheck import recheck

        return recheck(result, submission, data_root, proofs=proofs)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Recheck

    arguments = {
        "result": result,
        "submission": submission,
        "data_root": data_root,
        "proofs": proofs,
    }
    found: Recheck = isolated.call("recheck", arguments, Recheck, submission, limits)
    return found


def run_contest(
    result: Path, images: Path, submission: Path, limits: Limits | None, **more: Any
) -> Contested:
    """Judge adversarial images from anybody; see `benchmark.review.contest.contest`.

    Args:
        result: the result file.
        images: npz file of the images.
        submission: folder of the entry.
        limits: of the process.
        more: `data_root`, `by` and `write`.
    """
    if limits is None:
        from corobench.benchmark.review.contest import contest

        return contest(result, images, submission, **more)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Contested

    arguments = {"result": result, "images": images, "submission": submission, **more}
    found: Contested = isolated.call("contest", arguments, Contested, submission, limits)
    return found


def run_examination(
    folder: Path, others: Sequence[Path], changed: Sequence[str], limits: Limits | None
) -> Examined:
    """Compare a new entry with the others; see `benchmark.submission.intake_faults.examine`."""
    if limits is None:
        from corobench.benchmark.submission.intake_faults import examine

        return examine(folder, others, changed)
    from corobench.benchmark.errors import SubmissionError
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Examined

    arguments = {"folder": folder, "others": list(map(str, others)), "changed": list(changed)}
    try:
        found: Examined = isolated.call("examine", arguments, Examined, folder, limits)
    except SubmissionError as error:
        return Examined(error.faults)
    return found


def run_import(source: Path, out: Path, limits: Limits | None, **more: Any) -> ImportReport:
    """Make a submission folder; see `benchmark.submission.importing`.

    Args:
        source: a checkpoint, or an ONNX file.
        out: the new folder.
        limits: of the process.
        more: other arguments of `import_graph` for an ONNX file, else of `import_checkpoint`.
    """
    if limits is None:
        from corobench.benchmark.submission.importing import import_checkpoint, import_graph

        is_graph = source.suffix == ".onnx"
        return (import_graph if is_graph else import_checkpoint)(source, out, **more)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import ImportReport

    arguments = {"source": source, **more}
    made: ImportReport = isolated.make("import", arguments, ImportReport, source, out, limits)
    return made


def run_conversion(
    to: str, folder: Path, out: Path, limits: Limits | None, **more: Any
) -> Converted:
    """Write a submission in another form; see `benchmark.submission.converting`.

    Args:
        to: "onnx", "int8", "safetensors" or "compact".
        folder: of the submission.
        out: the new folder.
        limits: of the process.
        more: other arguments of `to_onnx`, `to_int8`, `to_safetensors` or `compact`.
    """
    if limits is None:
        from corobench.benchmark.submission import converting, converting_int8

        if to == "int8":
            return converting_int8.to_int8(folder, out, **more)
        if to == "compact":
            return converting.compact(folder, out, **more)
        if to == "onnx":
            return converting.to_onnx(folder, out, **more)
        return converting.to_safetensors(folder, out, **more)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Converted

    arguments = {"to": to, "folder": folder, **more}
    made: Converted = isolated.make("convert", arguments, Converted, folder, out, limits)
    return made


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
    if limits is None:
        from corobench.benchmark.submission.latency import weigh

        return weigh(folder, latency=latency)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Measured

    arguments = {"folder": folder, "latency": latency}
    found: Measured = isolated.call("measure", arguments, Measured, folder, limits)
    return found


def run_remeasure(result: Path, folder: Path, limits: Limits | None, *, write: bool) -> Remeasured:
    """Weigh the submission of a result again; see `benchmark.review.remeasure.remeasure`."""
    if limits is None:
        from corobench.benchmark.review.remeasure import remeasure

        return remeasure(result, folder, write=write)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Remeasured

    arguments = {"result": result, "folder": folder, "write": write}
    found: Remeasured = isolated.call("remeasure", arguments, Remeasured, folder, limits)
    return found


def run_replay(old: Path, folder: Path, limits: Limits | None, **more: Any) -> Drift:
    """Evaluate a sample of a result again; see `benchmark.review.replay.replay`."""
    if limits is None:
        from corobench.benchmark.review.replay import replay

        return replay(old, folder, **more)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.review.drift import Drift

    arguments = {"old": old, "folder": folder, **more}
    found: Drift = isolated.call("replay", arguments, Drift, folder, limits)
    return found


def run_verification(path: Path, folder: Path, limits: Limits | None, **more: Any) -> Verified:
    """Measure again what a handed-in result claims; see `benchmark.review.verification.verify`.

    Args:
        path: of the result file.
        folder: of the submission.
        limits: of the process.
        more: `seed`, `hidden_rate`, `miss_rate`, `device`, `data_root` and `out`.
    """
    if limits is None:
        from corobench.benchmark.review.verification.verify import verify

        return verify(path, folder, **more)
    from corobench.benchmark.executors import isolated
    from corobench.benchmark.records.reports import Verified

    arguments = {"path": path, "folder": folder, **more}
    found: Verified = isolated.call("verify", arguments, Verified, folder, limits)
    return found
