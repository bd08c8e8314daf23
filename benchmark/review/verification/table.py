"""The rows of an outcome table against each other, where no row by itself is at fault.

What one row must keep is in `benchmark.records.reading.rows`, which every reader of a table
applies.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.data import subset
from corobench.benchmark.evaluation.evidence import Evidence
from corobench.benchmark.records.reading.rows import ATTACKS
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, Outcome
from corobench.benchmark.review.verification.claims import PROVERS, Claims
from corobench.benchmark.review.verification.mismatch import Mismatch


def claims_of(evidence: Evidence) -> Claims:
    """The claims of a result; that its rows are the published images was asked by its readers."""
    images = subset(evidence.dataset, evidence.run.n)[2]
    return Claims(evidence, evidence.run.epsilons, images)


def compare_rows(claims: Claims) -> list[Mismatch]:
    """What columns say against each other."""
    found = [*_adversarial(claims), *_contradictions(claims)]
    for epsilon in claims.epsilons:
        found += [*_numbers(claims, epsilon), *_decisions(claims, epsilon)]
    for smaller, larger in pairwise(claims.epsilons):
        found += _monotone(claims, smaller, larger)
    return found


def _adversarial(claims: Claims) -> Iterator[Mismatch]:
    """Each stored image is of a row; that each attacked row has one was asked before."""
    stored = len(claims.evidence.adversarial)
    table = claims.evidence.table
    used = set(table.loc[table["adversarial"] >= 0, "adversarial"].tolist())
    if used != set(range(stored)):
        yield Mismatch("adversarial", f"{len(used)} images that rows name", f"{stored} stored")


def _contradictions(claims: Claims) -> Iterator[Mismatch]:
    """Those of the audit are the rows that are proven and broken, one line each."""
    run, lines = claims.evidence.run, []
    for epsilon in claims.epsilons:
        rows, prover = claims.rows(epsilon), claims.prover(epsilon)
        both = np.flatnonzero(claims.is_outcome(epsilon, Outcome.ATTACKED) & (prover != ""))
        lines += [
            f"image {int(claims.images[row])} at {epsilon}: proven by {prover[row]}, "
            f"broken by {rows['decided_by'][row]}"
            for row in both
        ]
    claimed = sorted(run.audit.contradictions)
    if claimed != sorted(lines):
        other = sorted({*claimed} ^ {*lines})
        yield Mismatch(
            "audit.contradictions",
            f"{len(claimed)}",
            f"{len(lines)} rows that are proven and broken ({other[0] if other else 'repeated'})",
        )


def _numbers(claims: Claims, epsilon: str) -> Iterator[Mismatch]:
    rows = claims.rows(epsilon)
    seconds = rows["seconds"].to_numpy(dtype=np.float64)
    wrong = ~(np.isfinite(seconds) & (seconds >= 0))
    yield from claims.differ("seconds", wrong, seconds, "a time, at least 0", epsilon)
    margin = rows["margin"].to_numpy(dtype=np.float64, na_value=0.0)
    yield from claims.differ("margin", ~np.isfinite(margin), margin, "a finite number", epsilon)


def _decisions(claims: Claims, epsilon: str) -> Iterator[Mismatch]:
    """What is proven was decided by the first certifier that proved it."""
    by = claims.rows(epsilon)["decided_by"].to_numpy(dtype=object)
    attacked, certified = (
        claims.is_outcome(epsilon, outcome) for outcome in (Outcome.ATTACKED, Outcome.CERTIFIED)
    )
    expected = claims.prover(epsilon)
    yield from claims.differ("decided_by", certified & (by != expected), by, expected, epsilon)
    yield from _carried(claims, epsilon, attacked, certified)


def _carried(
    claims: Claims, epsilon: str, attacked: NDArray[np.bool_], certified: NDArray[np.bool_]
) -> Iterator[Mismatch]:
    """A decision is carried from a radius that has it: broken from a smaller one, proven from a
    larger one."""
    source = claims.rows(epsilon)["carried_from"].to_numpy(dtype=object)
    place = claims.epsilons.index(epsilon)
    allowed = np.asarray(source == "", dtype=bool)
    for other in claims.epsilons[:place]:
        from_there = attacked & claims.is_outcome(other, Outcome.ATTACKED)
        allowed |= (source == other) & from_there
    for other in claims.epsilons[place + 1 :]:
        from_there = certified & (claims.prover(other) != "")
        allowed |= (source == other) & from_there
    yield from claims.differ(
        "carried_from", ~allowed, source, "no such decision at that epsilon", epsilon
    )


def _monotone(claims: Claims, smaller: str, larger: str) -> Iterator[Mismatch]:
    """Broken in the smaller ball is broken in the larger one; proven the other way round."""
    attacked = [claims.is_outcome(epsilon, Outcome.ATTACKED) for epsilon in (smaller, larger)]
    lost = attacked[0] & ~attacked[1]
    yield from claims.differ("outcome", lost, "not attacked", f"attacked at {smaller}", larger)
    for attack in ATTACKS:
        fallen = ~claims.yes(attack, smaller) & claims.answered(attack, smaller)
        stands = fallen & claims.yes(attack, larger)
        yield from claims.differ(attack, stands, "right", f"broken at {smaller}", larger)
    for name in PROVERS:
        column = CERTIFIER_COLUMNS[name]
        there = claims.yes(column, larger) & ~claims.is_outcome(smaller, Outcome.ATTACKED)
        missing = there & ~claims.yes(column, smaller)
        yield from claims.differ(column, missing, "not proven", f"proven at {larger}", smaller)
