"""Clean predictions and certificates of all images, asked again on the handed-in weights.

Each certifier is asked as it was then: the cheap ones about every correct image, in the same
chunks; the closing ones in the same groups, of which those without a claimed proof are left out.
So under the same versions the answers are the very same, and each claimed proof must hold under
any version. Nothing is attacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.evaluation.closing import close, too_large
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.proving import certify
from corobench.benchmark.evaluation.stages import ContradictedBoundsError
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, Outcome
from corobench.benchmark.referee.judge import own_and_others
from corobench.benchmark.review.verification.claims import PROVERS, Claims
from corobench.benchmark.review.verification.mismatch import Mismatch

if TYPE_CHECKING:
    from corobench.benchmark.certify import Prover
    from corobench.benchmark.evaluation.facts import BoolArray

#: What stands in the place of the attack on images that a closing certifier need not be asked of.
_NOT_ASKED = "not asked again"
#: Between two processors the last bits of a bound differ, and sums of them: logits.
MARGIN_TOLERANCE = 1e-4


def ask(evaluation: Evaluation, claims: Claims) -> None:
    """Fill the facts of an evaluation with clean predictions and proofs.

    Args:
        evaluation: of the handed-in weights on the n images, with nothing known yet.
        claims: of the result.
    """
    not_asked = dict(evaluation.prepared.not_asked)
    try:
        _ask(evaluation, claims, evaluation.prepared.prover, not_asked)
    except ContradictedBoundsError as error:
        _ask(evaluation, claims, None, evaluation.disbelieve(error, not_asked))


def _ask(
    evaluation: Evaluation, claims: Claims, prover: Prover | None, not_asked: dict[str, str]
) -> None:
    facts, protocol = evaluation.facts, evaluation.protocol
    facts.not_asked = dict(not_asked)
    evaluation.clean()
    if prover is None:
        return
    for certifier in evaluation.prepared.early:
        if certifier not in not_asked:
            certify(evaluation, certifier)
    for certifier in evaluation.prepared.closing:
        if certifier in not_asked:
            continue
        groups = to_ask(claims, certifier, protocol.closing_group)
        if claims.evidence.run.not_asked.get(certifier) == too_large(protocol, certifier):
            # So that it proved nothing. Each open image must cost too much; that is counted soon.
            groups = {
                epsilon: still_open(claims, certifier, epsilon) for epsilon in claims.epsilons
            }
        if not any(group.any() for group in groups.values()):
            continue
        for epsilon, known in facts.epsilons.items():
            known.broken_by = np.where(groups[epsilon], "", _NOT_ASKED).astype(object)
        close(evaluation, certifier)
    for known in facts.epsilons.values():
        known.broken_by[known.broken_by == _NOT_ASKED] = ""


def to_ask(claims: Claims, certifier: str, group_size: int) -> dict[str, BoolArray]:
    """Images that a closing certifier is asked about again, per radius.

    They are whole groups of the images that were open then, so that each has the same companions,
    and images that it is said to have proven at a larger radius.
    """
    n = len(claims.images)
    carried = np.zeros(n, dtype=bool)
    chosen: dict[str, BoolArray] = {}
    for epsilon in reversed(claims.epsilons):
        by_it = claims.yes(CERTIFIER_COLUMNS[certifier], epsilon)
        by_it = by_it & ~claims.proven(epsilon, before=certifier)
        todo = np.flatnonzero(still_open(claims, certifier, epsilon) & ~carried)
        marks = by_it & carried
        for start in range(0, len(todo), group_size):
            group = todo[start : start + group_size]
            if by_it[group].any():
                marks[group] = True
        chosen[epsilon] = marks
        carried = carried | by_it
    return chosen


def still_open(claims: Claims, certifier: str, epsilon: str) -> BoolArray:
    """Bool (n,), images that were neither broken nor proven when a closing certifier was asked."""
    survived = claims.yes("pgd50", epsilon) | ~claims.answered("pgd50", epsilon)
    earlier = PROVERS[: PROVERS.index(certifier)]  # a search may have broken it, too
    by = claims.rows(epsilon)["decided_by"].isin(earlier).to_numpy(dtype=bool)
    survived = survived & ~(by & claims.is_outcome(epsilon, Outcome.ATTACKED))
    return np.asarray(claims.correct & survived & ~claims.proven(epsilon, before=certifier))


def compare(evaluation: Evaluation, claims: Claims, is_same: bool) -> Iterator[Mismatch]:
    """What clean predictions and proofs differ in.

    Args:
        evaluation: after `ask`.
        claims: of the result.
        is_same: the same versions and device as then, so that proofs that are not claimed, and
            margins, must agree, too.
    """
    facts, protocol = evaluation.facts, evaluation.protocol
    run = claims.evidence.run
    reasons = facts.not_asked if is_same else run.not_asked
    asked_here = {name for name in protocol.all_certifiers if name not in facts.not_asked}
    for name in protocol.all_certifiers:
        here, claimed = facts.not_asked.get(name), run.not_asked.get(name)
        told_otherwise = name in run.not_asked and claimed != reasons.get(name)
        if (name in asked_here) == (name in run.not_asked) or told_otherwise:
            yield Mismatch(
                f"not_asked.{name}",
                "asked" if claimed is None else f"not asked ({claimed})",
                "an answer" if here is None else f"not asked ({here})",
            )
    differ = claims.predicted != facts.predicted
    yield from claims.differ("predicted", differ, claims.predicted, facts.predicted)
    if differ.any():
        return  # the other columns differ in its wake
    for epsilon in claims.epsilons:
        yield from _proofs(evaluation, claims, epsilon, is_same)


def _proofs(
    evaluation: Evaluation, claims: Claims, epsilon: str, is_same: bool
) -> Iterator[Mismatch]:
    known = evaluation.facts.epsilons[epsilon]
    none = np.zeros(len(claims.images), dtype=bool)
    so_far = none
    for name, column in CERTIFIER_COLUMNS.items():
        claimed, own = claims.yes(column, epsilon), known.certified.get(name, none)
        so_far = so_far | own
        # A closing certifier is asked about what the cheaper ones left, and its column holds both.
        measured = so_far if name in evaluation.prepared.closing else own
        lost = claimed & ~measured
        yield from claims.differ(column, lost, "proven", "no proof", epsilon)
        if is_same and name in evaluation.prepared.early:
            won = own & ~claimed
            yield from claims.differ(column, won, "not proven", "proven", epsilon)
    certified = claims.is_outcome(epsilon, Outcome.CERTIFIED)
    yield from claims.differ("outcome", certified & ~known.proven, "certified", "no proof", epsilon)
    claimed = claims.rows(epsilon)["margin"].to_numpy(dtype=np.float64, na_value=np.nan)
    most = _clean_margins(evaluation)
    with np.errstate(invalid="ignore"):
        above = claims.correct & (claimed > most + MARGIN_TOLERANCE * np.maximum(1.0, most))
    yield from claims.differ("margin", above, claimed, most, epsilon)
    if is_same:
        yield from _margins(evaluation, claims, epsilon)


def _margins(evaluation: Evaluation, claims: Claims, epsilon: str) -> Iterator[Mismatch]:
    """Bounds are those of then; those of images that branch and bound was asked of not below."""
    known, rows = evaluation.facts.epsilons[epsilon], claims.rows(epsilon)
    claimed = rows["margin"].to_numpy(dtype=np.float64, na_value=np.nan)
    measured = known.margin.astype(np.float64)
    slack = MARGIN_TOLERANCE * np.maximum(1.0, np.abs(np.nan_to_num(measured)))
    last = evaluation.protocol.all_certifiers[-1]
    # Of what comes after it, a search that is not repeated may have found a better bound.
    exact = claims.proven(epsilon, before=last) | ~claims.correct
    with np.errstate(invalid="ignore"):
        other = exact & (np.isnan(claimed) != np.isnan(measured))
        other |= exact & (np.abs(claimed - measured) > slack)
        other |= ~exact & (claimed < measured - slack)
    yield from claims.differ("margin", other, claimed, measured, epsilon)
    source = rows["carried_from"].to_numpy(dtype=object)
    moved = claims.is_outcome(epsilon, Outcome.CERTIFIED) & (source != known.proven_from)
    yield from claims.differ("carried_from", moved, source, known.proven_from, epsilon)


def _clean_margins(evaluation: Evaluation) -> NDArray[np.float64]:
    """Float64 (n,), the margin of the image itself, above which no bound over its ball can be."""
    own, others = own_and_others(evaluation.logits, evaluation.y)
    return np.asarray((own - others).cpu().numpy(), dtype=np.float64)
