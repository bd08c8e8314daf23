"""Name the class that each stored adversarial image of a result is taken for.

The submitted network is asked about every image alone, as the referee does. The result stays as it
is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.files.atomic import canonical_json, prepare_folder, write_atomic
from corobench.benchmark.network.device import exact_float32, one_thread
from corobench.benchmark.records.aside import SCHEMA, owner
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.records.result_set import ADVERSARIAL, sha256_of
from corobench.benchmark.records.taken import NO_CLASS, Taken, taken_path
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one


@one_thread()
@exact_float32()
def name_classes(result_path: Path, submission: Path, data_root: Path | None = None) -> Path:
    """Write the classes of a result's adversarial images.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.

    Returns:
        Path of the file.

    Raises:
        CorobenchError: a file is missing or broken, belongs to other weights or images, or an
            image that is stored as adversarial is classified correctly.
    """
    evidence = load_evidence(result_path, submission, data_root)
    result, path = evidence.result, taken_path(result_path.absolute())
    taken = Taken(
        schema=SCHEMA,
        **owner(result),
        adversarial_sha256=sha256_of(beside(result_path, ADVERSARIAL)),
        predicted=tuple(predictions(evidence).tolist()),
    )
    prepare_folder(path.parent)
    write_atomic(path, f"{canonical_json(taken.model_dump(mode='json', by_alias=True))}\n".encode())
    return path


@torch.no_grad()
def predictions(evidence: Evidence) -> NDArray[np.int64]:
    """int64 (m,), the class of each stored adversarial image; see :class:`Taken`.

    Raises:
        ResultError: an image is classified correctly.
    """
    table, images = evidence.table, evidence.adversarial
    rows = table[(table["outcome"] == Outcome.ATTACKED) & (table["adversarial"] >= 0)]
    labels = np.full(len(images), -1, dtype=np.int64)
    labels[rows["adversarial"].to_numpy()] = rows["label"].to_numpy()
    found = np.full(len(images), NO_CLASS, dtype=np.int64)
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        logits = predict_one_by_one(evidence.submission.model, torch.from_numpy(image.copy())[None])
        if label >= 0 and not is_wrong(logits, torch.tensor([label])):
            raise ResultError(
                f"{evidence.path}: row {row} of its adversarial images is classified correctly; "
                "see `corobench recheck`"
            )
        if torch.isfinite(logits).all():
            others = logits[0].clone()
            if label >= 0:
                others[label] = -torch.inf
            found[row] = int(others.argmax())
    return found
