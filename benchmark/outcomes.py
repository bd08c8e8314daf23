"""Facts of an evaluation -> outcome table, one row per image and epsilon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmark.errors import ContradictionError
from benchmark.records import CERTIFIER_COLUMNS, OUTCOME_COLUMNS, Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmark.pipeline import EpsilonFacts, Facts


def outcome_table(
    facts: Facts, images: NDArray[np.int64], labels: NDArray[np.int64]
) -> pd.DataFrame:
    """Decide every image at every epsilon.

    Args:
        facts: of the evaluation, in published order.
        images: int64 (n,), index of each image in its test set.
        labels: int64 (n,).

    Raises:
        ContradictionError: an image is proven right and broken at the same epsilon.
    """
    frames = [
        _epsilon_rows(facts, epsilon, known, images, labels)
        for epsilon, known in facts.epsilons.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _epsilon_rows(
    facts: Facts,
    epsilon: str,
    known: EpsilonFacts,
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> pd.DataFrame:
    correct, proven = facts.correct, known.proven
    broken = np.asarray(known.broken_by != "", dtype=bool)
    if (proven & broken).any():
        rows = np.flatnonzero(proven & broken)
        raise ContradictionError(
            f"epsilon {epsilon}: {len(rows)} images are certified by {known.proven_by[rows[0]]} "
            f"and broken by {known.broken_by[rows[0]]}, first image {int(images[rows[0]])}; "
            "a certifier or an attack is wrong, so nothing is published"
        )
    failed = np.asarray(known.failed != "", dtype=bool)
    outcome = np.select(
        [~correct, proven, broken, failed],
        [
            Outcome.MISCLASSIFIED.value,
            Outcome.CERTIFIED.value,
            Outcome.ATTACKED.value,
            Outcome.ERROR.value,
        ],
        Outcome.UNDECIDED.value,
    )
    columns: dict[str, object] = {
        "image": images,
        "position": np.arange(len(images)),
        "label": labels,
        "predicted": facts.predicted,
        "epsilon": epsilon,
        "outcome": outcome,
        "decided_by": np.select(
            [~correct, proven, broken], ["clean", known.proven_by, known.broken_by], ""
        ),
        "carried_from": np.where(
            proven, known.proven_from, np.where(broken, known.broken_from, "")
        ),
        "margin": pd.array(known.margin, dtype="Float32"),
        "adversarial": np.where(broken, known.adversarial, -1),
        "seconds": known.seconds,
    }
    for certifier, column in CERTIFIER_COLUMNS.items():
        answers = known.certified.get(certifier)
        columns[column] = pd.array([None] * len(images) if answers is None else answers, "boolean")
    for attack, column in (("pgd50", "pgd50"), ("autoattack", "autoattack")):
        survived = correct & ~known.broken.get(attack, ~correct)
        unknown = failed & np.asarray(known.failed != "") & ~broken & ~proven
        answers = pd.array(survived, dtype="boolean")
        answers[unknown] = pd.NA
        columns[column] = answers
    table = pd.DataFrame(columns)
    for column, (dtype, _) in OUTCOME_COLUMNS.items():
        table[column] = table[column].astype(dtype)
    table.loc[table["margin"].isna(), "margin"] = pd.NA
    return table[list(OUTCOME_COLUMNS)]
