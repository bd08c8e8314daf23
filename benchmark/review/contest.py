"""Break a row: adversarial images from anybody, judged by the referee, tighten a result.

Only what is measured here counts: an image must lie in the ball at zero tolerance and fool the
submitted model alone, at batch size 1. A proof that it contradicts freezes the entry.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.records.reading.arrays_file import read_arrays
from corobench.benchmark.records.reports import Contested
from corobench.benchmark.records.result import Audit, Contest, Outcome, contradiction
from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import finish_set, write_set
from corobench.benchmark.scoring.score import score
from corobench.benchmark.tracks import parse_epsilon

#: What decided a row that a contest broke, in the outcome table.
DECIDED_BY = "contest"


def contest(
    result_path: Path,
    images_path: Path,
    submission: Path,
    data_root: Path | None = None,
    *,
    by: str = "",
    write: bool = False,
) -> Contested:
    """Judge adversarial images from a third party.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        images_path: npz with ``images``, float32 (m, C, H, W) in [0, 1], and ``indices``, whole
            numbers (m,), each image's index in the test set.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.
        by: who found the images, for people.
        write: replace the result and the files beside it.

    Raises:
        CorobenchError: a file is missing or broken, belongs to other weights or images, or to a
            frozen round.
    """
    if write:
        rounds.require_open(result_path.parent)
        finish_set(result_path)
    evidence = load_evidence(result_path, submission, data_root)
    images, indices = _read(images_path, evidence)
    table = evidence.table.copy()
    kept: list[NDArray[np.float32]] = []
    contradictions: list[str] = []
    broken = dict.fromkeys(evidence.run.epsilons, 0)
    rejected = []
    num_confirmed = 0
    for number, (image, index) in enumerate(zip(images, indices.tolist(), strict=True)):
        epsilons, reason = _judge(evidence, image, index)
        if not epsilons:
            rejected.append(f"image {number} (test image {index}): {reason}")
            continue
        num_confirmed += 1
        at = len(evidence.adversarial) + len(kept)
        changed = _break_rows(table, index, epsilons, at, contradictions)
        for epsilon in changed:
            broken[epsilon] += 1
        if changed:
            kept.append(image)
    record = Contest(
        sha256=hashlib.sha256(images_path.read_bytes()).hexdigest(),
        by=by,
        num_images=len(images),
        num_confirmed=num_confirmed,
        broken=broken,
    )
    audit = evidence.run.audit
    run = evidence.run.model_copy(
        update={
            "contests": (*evidence.run.contests, record),
            "audit": Audit(
                num_images=audit.num_images,
                contradictions=(*audit.contradictions, *contradictions),
            ),
        }
    )
    after = score(table, run)
    if write and any(broken.values()):
        stored = evidence.adversarial.reshape(-1, *evidence.submission.track.shape)
        images_after = np.concatenate([stored, np.stack(kept)])
        after = write_set(result_path, table, run, images_after, evidence.dataset)
    return Contested(evidence.result, after, len(images), num_confirmed, broken, tuple(rejected))


def _read(path: Path, evidence: Evidence) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    arrays = read_arrays(path, ("images", "indices"))
    images, indices = arrays["images"], arrays["indices"]
    shape = evidence.submission.track.shape
    if images.dtype != np.float32 or images.shape[1:] != shape or images.ndim != 4:
        raise ResultError(
            f"{path}: images: expected float32 (m, {', '.join(map(str, shape))}) in [0, 1], "
            f"but found {images.dtype} {images.shape}"
        )
    if indices.dtype.kind not in "iu" or indices.shape != (len(images),):
        raise ResultError(
            f"{path}: indices: expected {len(images)} integers, one per image, "
            f"but found {indices.dtype} {indices.shape}"
        )
    if not len(images):
        raise ResultError(f"{path}: images: expected at least one image")
    return images.astype(np.float32), indices.astype(np.int64)


def _judge(
    evidence: Evidence, image_CHW: NDArray[np.float32], index: int
) -> tuple[tuple[str, ...], str]:
    """Epsilons at which an image breaks its row, ascending, and otherwise why none."""
    rows = evidence.table[evidence.table["image"] == index]
    if rows.empty:
        return (), f"not among the {evidence.result.n} images of this result"
    if (rows["predicted"] < 0).any():
        return (), "this result has no prediction of the clean image that it could break"
    clean = torch.from_numpy(evidence.dataset.take([index]))
    image = torch.from_numpy(image_CHW)[None]
    within = [
        epsilon
        for epsilon in evidence.run.epsilons
        if bool(threat.is_within(image, clean, parse_epsilon(epsilon)))
    ]
    if not within:
        distance = float(threat.distance(image, clean))
        return (), f"distance {distance:.6g}: not in the ball of any epsilon, or outside [0, 1]"
    label = torch.tensor([int(evidence.dataset.labels[index])])
    if not is_wrong(predict_one_by_one(evidence.submission.model, image), label):
        return (), "the model classifies it correctly"
    return tuple(within), ""


def _break_rows(
    table: pd.DataFrame,
    index: int,
    epsilons: tuple[str, ...],
    adversarial: int,
    contradictions: list[str],
) -> list[str]:
    """Mark the rows of one image that stood as attacked, in place; their epsilons."""
    standing = ~table["outcome"].isin([str(Outcome.MISCLASSIFIED), str(Outcome.ATTACKED)])
    changed: list[str] = []
    for epsilon in epsilons:
        row = table.index[(table["image"] == index) & (table["epsilon"] == epsilon) & standing]
        if not len(row):
            continue
        if (table.loc[row, "outcome"] == Outcome.CERTIFIED).all():
            prover = table.loc[row[0], "decided_by"]
            contradictions.append(contradiction(index, epsilon, prover, DECIDED_BY))
        table.loc[row, "outcome"] = str(Outcome.ATTACKED)
        table.loc[row, "decided_by"] = DECIDED_BY
        table.loc[row, "carried_from"] = changed[0] if changed else ""
        table.loc[row, "adversarial"] = adversarial
        changed.append(epsilon)
    return changed
