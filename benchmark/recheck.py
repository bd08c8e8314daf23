"""Re-measure the stored adversarial images of a result on the submitted model.

Nothing of the evaluation is trusted: the images are read again, each must lie in its ball at zero
tolerance and fool the model alone, at batch size 1.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark import threat
from benchmark.evidence import Evidence, load_evidence
from benchmark.records import Outcome
from benchmark.reports import Recheck
from benchmark.stages.base import is_wrong, predict_one_by_one
from benchmark.tracks import parse_epsilon


def recheck(result_path: Path, submission: Path, data_root: Path | None = None) -> Recheck:
    """Re-measure every attacked row of a result.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.

    Raises:
        CorobenchError: a file is missing or broken, or belongs to other weights or images.
    """
    return recheck_evidence(load_evidence(result_path, submission, data_root))


def recheck_evidence(evidence: Evidence) -> Recheck:
    """The same for a result that is read already."""
    dataset, adversarial = evidence.dataset, evidence.adversarial
    model = evidence.submission.model
    rows = evidence.table[evidence.table["outcome"] == Outcome.ATTACKED]
    failures = []
    for row in rows.itertuples():
        what = f"image {row.image} at {row.epsilon}"
        if not 0 <= row.adversarial < len(adversarial):
            failures.append(f"{what}: its adversarial image is missing")
            continue
        if not 0 <= row.image < len(dataset) or row.label != dataset.labels[row.image]:
            failures.append(f"{what}: no image of the test set with label {row.label}")
            continue
        image = torch.from_numpy(adversarial[row.adversarial])[None]
        clean = torch.from_numpy(dataset.take([int(row.image)]))
        if image.shape != clean.shape or not threat.is_within(
            image, clean, parse_epsilon(row.epsilon)
        ):
            failures.append(f"{what}: its adversarial image is outside the ball")
            continue
        label = torch.tensor([int(dataset.labels[row.image])])
        if not is_wrong(predict_one_by_one(model, image), label):
            failures.append(f"{what}: the model is right on its adversarial image")
    return Recheck(len(rows), len(adversarial), tuple(failures))
