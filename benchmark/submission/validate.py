"""`corobench validate`: every fault of every folder, without a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.contract import find_broken_clauses, random_images
from corobench.benchmark.submission.headers import name_faults
from corobench.benchmark.submission.load import load_submission


def find_submission_faults(folder: Path, track: str | None = None) -> list[str]:
    """Every fault of one folder: manifest, weights, and the model contract on random images.

    The images are uniform in [0, 1] from a fixed seed, so that no dataset is needed and the
    answer is the same every time.

    Returns:
        One line per fault; empty if the submission is valid.
    """
    folder = Path(folder)
    try:
        submission = load_submission(folder, track)
    except SubmissionError as error:
        return list(error.faults)
    faults = name_faults(folder, submission.manifest)
    faults += find_broken_clauses(
        submission.model,
        random_images(submission.track.shape),
        submission.track.num_classes,
        submission.reference,
    )
    return faults


def validate(paths: Sequence[Path], track: str | None = None) -> list[tuple[Path, list[str]]]:
    """The faults of several submission folders.

    Args:
        paths: submission folders.
        track: check them for this track instead of the one each names.

    Returns:
        (folder, faults) in the order given; a folder without faults is valid.
    """
    return [(Path(path), find_submission_faults(Path(path), track)) for path in paths]
