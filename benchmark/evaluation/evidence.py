"""A result with everything its numbers rest on: table, adversarial images, model, test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.data import Dataset, load_test, subset
from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.arrays_file import read_arrays as read_arrays
from corobench.benchmark.records.reading.coded_images import CodedImages, decoded, read_adversarial
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result, Run
from corobench.benchmark.records.result_set import ADVERSARIAL, verify_set
from corobench.benchmark.records.sizes import Compactness
from corobench.benchmark.records.weighing import require_weighed
from corobench.benchmark.scoring.scored import read_beside, read_scored, table_path
from corobench.benchmark.tracks import get_track

if TYPE_CHECKING:
    import pandas as pd

    from corobench.benchmark.submission import Submission


@dataclass(frozen=True)
class Evidence:
    """Everything about one result, checked to belong together.

    Attributes:
        path: of the result file.
        result: the scorecard.
        table: the outcome table.
        run: the run it belongs to.
        adversarial: float32 (m, C, H, W), the stored adversarial images.
        submission: the entry.
        weighed: how compact the entry is, as measured here.
        dataset: the test set.
    """

    path: Path
    result: Result
    table: pd.DataFrame
    run: Run
    adversarial: NDArray[np.float32]
    submission: Submission
    weighed: Compactness
    dataset: Dataset


def load_evidence(path: Path, submission: Path, data_root: Path | None = None) -> Evidence:
    """Read a result and all that belongs to it.

    Args:
        path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        CorobenchError: a file is missing or broken, is of another set, or belongs to other weights
            or images.
    """
    from corobench.benchmark.submission import load_submission

    result, table, run = read_scored(path)
    entry = load_submission(submission, result.track)
    if entry.weights_sha256 != result.weights_sha256:
        raise ResultError(f"{path}: does not belong to the weights of {submission}")
    weighed = entry.measure()
    require_weighed(result, weighed, path, submission)
    stored = read_adversarial(beside(path, ADVERSARIAL), entry.track.shape)
    verify_set(path, result)  # after reading: what fits now is what was read
    dataset = load_test(result.track, data_root)
    if dataset.fingerprint != result.data.fingerprint:
        raise ResultError(f"{path}: does not belong to the images of {dataset.source}")
    _require_images(table, dataset, path)
    adversarial = decoded(stored, dataset)
    return Evidence(path, result, table, run, adversarial, entry, weighed, dataset)


def load_adversarial(path: Path, data_root: Path | None = None) -> NDArray[np.float32]:
    """The adversarial images of a result, however they are stored: float32 (m, C, H, W).

    Args:
        path: the result file; its adversarial images lie beside it.
        data_root: folder of the dataset, which is read only where the images are coded.

    Raises:
        CorobenchError: a file is missing or broken, or belongs to other images.
    """
    result = read_result(path)
    stored = read_adversarial(beside(path, ADVERSARIAL), get_track(result.track).shape)
    if isinstance(stored, CodedImages):
        return stored.decode(load_test(result.track, data_root))
    return stored


def find_damage(path: Path, result: Result) -> str:
    """What is missing or damaged beside a result file, in one line; empty where all is whole.

    Args:
        path: of the result file.
        result: as read from it.
    """
    try:
        verify_set(path, result)
        read_beside(path, result)
        read_adversarial(beside(path, ADVERSARIAL), get_track(result.track).shape)
    except ResultError as error:
        return error.message
    return ""


def _require_images(table: pd.DataFrame, dataset: Dataset, path: Path) -> None:
    """Refuse a table whose images and labels are not the first ones of the dataset.

    Raises:
        ResultError: names the table and the dataset.
    """
    rows = table[table["epsilon"] == table["epsilon"].iloc[0]]
    _, labels, indices = subset(dataset, len(rows))
    for name, expected in (("image", indices), ("label", labels)):
        found = rows[name].to_numpy()
        wrong = np.flatnonzero(found != expected)
        if len(wrong):
            first = int(wrong[0])
            raise ResultError(
                f"{table_path(path)}: {name}: expected {expected[first]} at position {first} as in "
                f"{dataset.source}, but found {found[first]} ({len(wrong)} of {len(rows)} differ)"
            )
