"""Both ends of a stored result's bracket, measured again on the submitted model.

Nothing of the evaluation is trusted. Every image is classified anew. Of the upper end the images
are read again: each must lie in its ball at zero tolerance and fool the model alone, at batch size
1. Of the lower end every certificate is checked anew (`benchmark.review.reprove`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps
from corobench.benchmark.records.reports import Recheck
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.review import reprove
from corobench.benchmark.review.curve import recheck_curve
from corobench.benchmark.tracks import Protocol, parse_epsilon


def recheck(
    result_path: Path,
    submission: Path,
    data_root: Path | None = None,
    *,
    proofs: bool = True,
    curve: bool = False,
    report: Reporter | None = None,
    steps: Steps | None = None,
) -> Recheck:
    """Re-measure every prediction and attacked row of a result, and check every certificate anew.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        data_root: folder of the dataset, or None for the usual search.
        proofs: whether certificates are checked, too. Those of protocol 1.0 never are: they were
            given by other rules.
        curve: whether the security curve beside the result is measured again, too.
        report: progress of that; standard error by default.
        steps: told of each of its steps.

    Raises:
        CorobenchError: a file is missing or broken, or belongs to other weights or images.
    """
    evidence = load_evidence(result_path, submission, data_root)
    found = replace(recheck_evidence(evidence), moved=tuple(_moved(evidence)))
    if curve:
        with report or Reporter(f"{evidence.result.entry}, curve") as progress:
            found = replace(found, curve=recheck_curve(evidence, progress, steps=steps))
    if not proofs or not reprove.has_checked_proofs(evidence.result.protocol):
        return found
    return replace(
        found,
        num_proofs=reprove.num_proofs(evidence),
        unproven=tuple(reprove.unproven(evidence, Protocol())),
    )


def _moved(evidence: Evidence) -> Iterator[str]:
    """Images that the model gets right and the table does not, or the other way round."""
    table, dataset = evidence.table, evidence.dataset
    for row in table[table["epsilon"] == table["epsilon"].iloc[0]].itertuples():
        if row.predicted < 0:  # without an answer then
            continue
        label = torch.tensor([int(dataset.labels[row.image])])
        image = torch.from_numpy(dataset.take([int(row.image)]))
        with torch.no_grad():
            wrong = bool(is_wrong(predict_one_by_one(evidence.submission.model, image), label))
        if wrong == (row.predicted == int(label)):
            yield f"image {row.image}: the model gets it {'wrong' if wrong else 'right'}"


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
        image = torch.from_numpy(adversarial[row.adversarial].copy())[None]
        clean = torch.from_numpy(dataset.take([int(row.image)]))
        if image.shape != clean.shape or not threat.is_within(
            image, clean, parse_epsilon(row.epsilon)
        ):
            failures.append(f"{what}: its adversarial image is outside the ball")
            continue
        label = torch.tensor([int(dataset.labels[row.image])])
        if not is_wrong(predict_one_by_one(model, image), label):
            failures.append(f"{what}: the model classifies its adversarial image correctly")
    return Recheck(len(rows), len(adversarial), tuple(failures))
