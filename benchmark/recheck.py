"""Re-measure the stored adversarial images of a result on the submitted model.

Nothing of the evaluation is trusted: the images are read again, each must lie in its ball at zero
tolerance and fool the model alone, at batch size 1.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark import store, threat
from benchmark.data import load_test
from benchmark.errors import ResultError
from benchmark.records import Outcome
from benchmark.stages.base import is_wrong, predict_one_by_one
from benchmark.submission import load_submission
from benchmark.tracks import parse_epsilon


@dataclass(frozen=True)
class Recheck:
    """What re-measuring found.

    Attributes:
        num_rows: attacked rows of the outcome table, one per image and epsilon.
        num_images: adversarial images they refer to.
        failures: one line per row whose image is outside its ball or fools nobody.
    """

    num_rows: int
    num_images: int
    failures: tuple[str, ...]


def recheck(result_path: Path, submission: Path, data_root: Path | None = None) -> Recheck:
    """Re-measure every attacked row of a result.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        CorobenchError: a file is missing or broken, or belongs to other weights or images.
    """
    result = store.read_result(result_path)
    table, _ = store.read_outcomes(result_path.with_name(f"{result_path.stem}.outcomes.parquet"))
    adversarial = _read_images(result_path.with_name(f"{result_path.stem}.adversarial.npz"))
    entry = load_submission(submission, result.track)
    if entry.weights_sha256 != result.weights_sha256:
        raise ResultError(f"{result_path}: belongs to other weights than {submission}")
    dataset = load_test(result.track, data_root)
    if dataset.fingerprint != result.data.fingerprint:
        raise ResultError(f"{result_path}: belongs to other images than {dataset.source}")

    rows = table[table["outcome"] == Outcome.ATTACKED]
    failures = []
    for row in rows.itertuples():
        what = f"image {row.image} at {row.epsilon}"
        if not 0 <= row.adversarial < len(adversarial):
            failures.append(f"{what}: its adversarial image is missing")
            continue
        image = torch.from_numpy(adversarial[row.adversarial])[None]
        clean = torch.from_numpy(dataset.take([int(row.image)]))
        if image.shape != clean.shape or not threat.is_within(
            image, clean, parse_epsilon(row.epsilon)
        ):
            failures.append(f"{what}: its adversarial image is outside the ball")
            continue
        label = torch.tensor([int(dataset.labels[row.image])])
        if not is_wrong(predict_one_by_one(entry.model, image), label):
            failures.append(f"{what}: the model is right on its adversarial image")
    return Recheck(len(rows), len(adversarial), tuple(failures))


def _read_images(path: Path) -> np.ndarray:
    """float32 (m, C, H, W)."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            images: np.ndarray = archive["images"]
    except (OSError, ValueError, KeyError) as error:
        raise ResultError(f"{path}: expected the adversarial images ({error})") from error
    if images.dtype != np.float32:
        raise ResultError(f"{path}: images: expected float32, but found {images.dtype}")
    return images
