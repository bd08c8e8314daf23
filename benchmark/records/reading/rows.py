"""Rules that every row of an outcome table keeps: outcomes follow from their columns.

An attack or a certifier that gave no answer is no witness: what nobody recorded makes no image
right, proven or broken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.records.reading.columns import MISSING, NO, YES, BoolArray, Columns
from corobench.benchmark.records.result import (
    ATTACKED_BY,
    CERTIFIER_COLUMNS,
    CERTIFIERS,
    Outcome,
    Run,
)

ATTACKS = ("pgd50", "autoattack")
#: What may break an image: attacks, and certifiers whose search may come upon one that fools it.
BREAKERS = (*ATTACKED_BY, "alpha-CROWN", "BaB")
#: Certifiers whose column holds the proofs of cheaper ones, too.
CLOSING = ("alpha-CROWN", "BaB")
#: Attack -> names in `decided_by` of its parts.
_PARTS = {
    "pgd50": ("pgd50",),
    "autoattack": ("autoattack", "apgd-ce", "apgd-t", "fab-t", "square"),
}


def row_fault(rows: Columns, run: Run) -> str:
    """The first rule that rows of one epsilon break, with an image that breaks it; empty for none.

    In a frozen entry an image may be proven and attacked: the stored image is the evidence.

    Args:
        rows: of one epsilon.
        run: they belong to.
    """
    rules = {**_outcome_rules(rows, run), **_decision_rules(rows, run), **_number_rules(rows)}
    for what, broken in rules.items():
        if broken.any():
            image = int(rows.numbers["image"][np.flatnonzero(broken)[0]])
            return f"{what} (image {image}, {int(broken.sum())} in all)"
    return ""


def cheapest_prover(rows: Columns) -> NDArray[np.intp]:
    """int (rows,): place in `CERTIFIERS` of the cheapest certifier that proved each row; -1 for
    none."""
    found = np.full(len(rows), -1, dtype=np.intp)
    for place in reversed(range(len(CERTIFIERS))):
        found[rows.answers[CERTIFIER_COLUMNS[CERTIFIERS[place]]] == YES] = place
    return found


def _outcome_rules(rows: Columns, run: Run) -> dict[str, BoolArray]:
    outcome = {one: rows.texts["outcome"].equals(one) for one in Outcome}
    answered = rows.numbers["predicted"] >= 0
    wrong = answered & ~rows.is_right
    unfinished = outcome[Outcome.ERROR] | outcome[Outcome.TIMEOUT]
    certified, attacked = outcome[Outcome.CERTIFIED], outcome[Outcome.ATTACKED]
    proofs = np.stack([rows.answers[column] for column in CERTIFIER_COLUMNS.values()])
    proven = (proofs == YES).any(axis=0)
    contradicted = attacked & bool(run.audit.contradictions)
    attacks = np.stack([rows.answers[name] for name in ATTACKS])
    survived_all = (attacks == YES).all(axis=0)
    has_image = rows.numbers["adversarial"] >= 0
    known = np.any(list(outcome.values()), axis=0)
    return {
        "an unknown outcome": ~known,
        "a misclassified image with another outcome": wrong != outcome[Outcome.MISCLASSIFIED],
        "an image without a prediction that has another outcome than error or timeout": ~answered
        & ~unfinished,
        "a certified image that no certifier proved": certified & ~proven,
        "a proven image that is not certified": proven & ~certified & ~contradicted,
        "an image that is not right and that a certifier proved": proven & ~rows.is_right,
        "an attacked image without an adversarial image": attacked & ~has_image,
        "an adversarial image of an image that is not attacked": has_image & ~attacked,
        "an image that is not right and that an attack left right": (attacks == YES).any(axis=0)
        & ~rows.is_right,
        "a certified or undecided image that an attack broke, or has no answer on": (
            certified | outcome[Outcome.UNDECIDED]
        )
        & ~survived_all,
        "an image without an answer of an attack that has another outcome than attacked, error or "
        "timeout": (attacks == MISSING).any(axis=0) & ~(attacked | unfinished),
        "an image that an attack broke and that is neither attacked nor misclassified": (
            (attacks == NO).any(axis=0) & ~(attacked | outcome[Outcome.MISCLASSIFIED])
        ),
    }


def _decision_rules(rows: Columns, run: Run) -> dict[str, BoolArray]:
    """Who decided a row must be one who can, and must have answered so."""
    decided, outcome = rows.texts["decided_by"], rows.texts["outcome"]
    certified, attacked = outcome.equals(Outcome.CERTIFIED), outcome.equals(Outcome.ATTACKED)
    wrong = outcome.equals(Outcome.MISCLASSIFIED)
    by_nobody = np.zeros(len(rows), dtype=bool)
    for name, column in CERTIFIER_COLUMNS.items():
        by_nobody |= certified & decided.equals(name) & (rows.answers[column] != YES)
    for attack, parts in _PARTS.items():
        by_nobody |= attacked & decided.is_in(parts) & (rows.answers[attack] != NO)
    prover = cheapest_prover(rows)
    by_another = certified & (prover < 0)
    for place, name in enumerate(CERTIFIERS):
        by_another |= certified & (prover == place) & ~decided.equals(name)
    denied, so_far = by_nobody & False, by_nobody & False
    for name, column in CERTIFIER_COLUMNS.items():
        if name in CLOSING:
            denied |= so_far & (rows.answers[column] == NO)
        so_far |= rows.answers[column] == YES
    unasked = np.zeros(len(rows), dtype=bool)
    for name in run.not_asked:
        if name in CERTIFIER_COLUMNS:
            unasked |= rows.answers[CERTIFIER_COLUMNS[name]] != MISSING
    return {
        "a certified image that no certifier decided": certified & ~decided.is_in(CERTIFIERS),
        "an attacked image that nothing decided that can break one": attacked
        & ~decided.is_in(BREAKERS),
        "a misclassified image that something else decided": wrong & ~decided.equals("clean"),
        "an undecided image, or one without an answer, that something decided": ~(
            certified | attacked | wrong
        )
        & ~decided.equals(""),
        "an image decided by an attack or certifier whose own column says otherwise": by_nobody,
        "a certified image that another certifier decided than the cheapest that proved it": (
            by_another
        ),
        "a proven image that alpha-CROWN or BaB, whose column holds cheaper proofs, calls not "
        "proven": denied,
        "an answer of a certifier that was not asked": unasked,
    }


def _number_rules(rows: Columns) -> dict[str, BoolArray]:
    """Times, margins and places of images. A margin that is missing says nothing."""
    margin, seconds = rows.numbers["margin"], rows.numbers["seconds"]
    certified = rows.texts["outcome"].equals(Outcome.CERTIFIED)
    # A bound above 0 in float64 may be 0 in the float32 of a table.
    is_own = certified & rows.texts["carried_from"].equals("")
    return {
        "seconds that are no time of at least 0": ~(np.isfinite(seconds) & (seconds >= 0)),
        "a margin that is not finite": np.isinf(margin),
        "a margin of an image that is not right": ~np.isnan(margin) & ~rows.is_right,
        "a certified image, carried from nowhere, without a margin of at least 0": is_own
        & ~(margin >= 0),
        "adversarial: a row below -1": rows.numbers["adversarial"] < -1,
    }
