"""Compactness of published results again, from the weights: adds keys that they do not have yet."""

from __future__ import annotations

from pathlib import Path

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reports import Remeasured
from corobench.benchmark.records.weighing import require_weighed
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import finish_set, write_set
from corobench.benchmark.scoring.scored import read_scored
from corobench.benchmark.submission import load_submission


def remeasure(path: Path, folder: Path, *, write: bool = False) -> Remeasured:
    """Measure a result's weights again and, if asked, write the keys that are new.

    Outcomes, counts and identity stay; the result file and the record inside the outcome table are
    both written, so that `corobench score` goes on agreeing.

    Args:
        path: a result file with its outcome table beside it.
        folder: of the submission.
        write: replace both files.

    Raises:
        OutputError: the files cannot be written, or belong to a frozen round.
        ResultError: other weights, or a number that is there and was measured otherwise now.
        SubmissionError: faults of the folder.
    """
    if write:
        rounds.require_open(path.parent)
        finish_set(path)
    result = read_result(path)
    submission = load_submission(folder, result.track)
    if submission.weights_sha256 != result.weights_sha256:
        raise ResultError(f"{path}: does not belong to the weights of {folder}")
    measured = submission.measure()
    require_weighed(result, measured, path, folder)
    old, new = result.compactness.model_dump(), measured.model_dump()
    added = tuple(sorted(new.keys() - old.keys()))
    if write and added:
        _, table, run = read_scored(path)
        run = run.model_copy(update={"compactness": measured})
        write_set(path, table, run)
    return Remeasured(path, measured, added)
