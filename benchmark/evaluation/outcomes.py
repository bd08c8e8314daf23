"""Facts of an evaluation -> outcome table, one row per image and epsilon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from corobench.benchmark.records.result import (
    CERTIFIER_COLUMNS,
    OUTCOME_COLUMNS,
    Audit,
    Outcome,
    contradiction,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from corobench.benchmark.evaluation.facts import EpsilonFacts, Facts


def outcome_table(
    facts: Facts, images: NDArray[np.int64], labels: NDArray[np.int64]
) -> pd.DataFrame:
    """Decide every image at every epsilon.

    An image that is both proven and broken counts as attacked, for its adversarial image was
    re-measured; :func:`audit` reports it and the entry is frozen.

    Args:
        facts: of the evaluation, in published order.
        images: int64 (n,), index of each image in its test set.
        labels: int64 (n,).
    """
    frames = [
        _epsilon_rows(facts, epsilon, known, images, labels)
        for epsilon, known in facts.epsilons.items()
    ]
    return pd.concat(frames, ignore_index=True)


def audit(facts: Facts, images: NDArray[np.int64]) -> Audit:
    """What attacking certified images found.

    Args:
        facts: of the evaluation, in published order.
        images: int64 (n,), index of each image in its test set.
    """
    contradictions = [
        contradiction(int(images[row]), epsilon, known.proven_by[row], known.broken_by[row])
        for epsilon, known in facts.epsilons.items()
        for row in np.flatnonzero(known.proven & (known.broken_by != ""))
    ]
    num_images = sum(int(known.audited.sum()) for known in facts.epsilons.values())
    return Audit(num_images=num_images, contradictions=tuple(contradictions))


def errors(facts: Facts) -> tuple[str, ...]:
    """Why a stage gave no answer: one line per epsilon and reason, with the number of images."""
    lines = []
    for epsilon, known in facts.epsilons.items():
        reasons, counts = np.unique(
            known.failed[known.failed != ""].astype(str), return_counts=True
        )
        lines += [
            f"{count} images at {epsilon}: {reason}"
            for reason, count in zip(reasons, counts, strict=True)
        ]
    return tuple(lines)


def drop_unused(
    table: pd.DataFrame, images: list[NDArray[np.float32]]
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Keep only the adversarial images that a row of the table refers to.

    Returns:
        The table with its column ``adversarial`` renumbered, and float32 (m, C, H, W).
    """
    used = np.unique(table.loc[table["adversarial"] >= 0, "adversarial"])
    number = {int(old): new for new, old in enumerate(used)}
    renumbered = table["adversarial"].map(lambda old: number.get(int(old), -1)).astype("int32")
    kept = np.array([images[old] for old in used], dtype=np.float32)
    return table.assign(adversarial=renumbered), kept


def _epsilon_rows(
    facts: Facts,
    epsilon: str,
    known: EpsilonFacts,
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> pd.DataFrame:
    correct, proven = facts.correct, known.proven
    broken = known.attacked
    wrong = ~correct & (facts.predicted >= 0)
    failed = np.asarray(known.failed != "", dtype=bool)
    stopped = known.stopped | (failed & known.by_clock)
    outcome = np.select(
        [wrong, broken, proven, failed & ~known.by_clock, stopped],
        [
            Outcome.MISCLASSIFIED.value,
            Outcome.ATTACKED.value,
            Outcome.CERTIFIED.value,
            Outcome.ERROR.value,
            Outcome.TIMEOUT.value,
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
            [wrong, broken, proven], ["clean", known.broken_by, known.proven_by], ""
        ),
        "carried_from": np.where(
            broken, known.broken_from, np.where(proven, known.proven_from, "")
        ),
        "margin": pd.array(known.margin, dtype="Float32"),
        "adversarial": np.where(broken, known.adversarial, -1),
        "seconds": known.seconds,
    }
    for certifier, column in CERTIFIER_COLUMNS.items():
        proofs = known.certified.get(certifier)
        column_values = pd.array([None] * len(images) if proofs is None else proofs, "boolean")
        column_values[known.unanswered.get(certifier, ~correct & False)] = pd.NA
        columns[column] = column_values
    for attack in ("pgd50", "autoattack"):  # the columns are named after the attacks
        columns[attack] = _answers_of(attack, facts, known)
    table = pd.DataFrame(columns)
    for column, (dtype, _) in OUTCOME_COLUMNS.items():
        table[column] = table[column].astype(dtype)
    table.loc[table["margin"].isna(), "margin"] = pd.NA
    return table[list(OUTCOME_COLUMNS)]


def _answers_of(attack: str, facts: Facts, known: EpsilonFacts) -> pd.arrays.BooleanArray:
    """Whether each image is still right after an attack; missing where nobody knows.

    An image that is wrong anyway is not right after it, and a proven one is, for it was proven. Of
    any other the attack itself must have answered.
    """
    broken = known.broken.get(attack)
    if broken is None:  # it was not run: of what is right without it nothing is known
        answers = pd.array(np.zeros(len(facts.correct), dtype=bool), dtype="boolean")
        answers[facts.correct | (facts.predicted < 0)] = pd.NA
        return answers
    unanswered = known.unanswered.get(attack, np.zeros(len(broken), dtype=bool))
    answers = pd.array(facts.correct & ~broken, dtype="boolean")
    answers[(unanswered & ~broken & ~known.proven) | (facts.predicted < 0)] = pd.NA
    return answers
