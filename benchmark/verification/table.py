"""The rows of an outcome table against the published images, and its columns against each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmark.contest import DECIDED_BY as CONTEST
from benchmark.data import subset
from benchmark.errors import DatasetError
from benchmark.evidence import Evidence
from benchmark.health import FEWER_STEPS
from benchmark.records import CERTIFIER_COLUMNS, Outcome
from benchmark.verification.claims import PROVERS, Claims
from benchmark.verification.mismatch import Mismatch

#: Parts of AutoAttack, and all that may break an image.
SUITE = ("apgd-ce", "apgd-t", "fab-t", "square", "autoattack")
BREAKERS = (*SUITE, "pgd50", FEWER_STEPS.name, "BaB", CONTEST)
ATTACKS = ("pgd50", "autoattack")
CHEAP = ("IBP", "CROWN-IBP", "CROWN")


def read(evidence: Evidence) -> tuple[Claims | None, list[Mismatch]]:
    """The claims, where each row is of the image that the published order has there.

    Returns:
        None where they are not; and what differs.
    """
    run, table, dataset = evidence.run, evidence.table, evidence.dataset
    try:
        _, labels, images = subset(dataset, run.n)
    except DatasetError:
        return None, [Mismatch("n", run.n, f"{len(dataset)} images in the test set")]
    if len(table) != run.n * len(run.epsilons):
        expected = f"{run.n} images at {len(run.epsilons)} radii"
        return None, [Mismatch("rows of the outcome table", len(table), expected)]
    claims = Claims(evidence, run.epsilons, images)
    found: list[Mismatch] = []
    for epsilon in run.epsilons:
        rows = claims.rows(epsilon)
        positions = rows["position"].to_numpy(dtype=np.int64)
        if not np.array_equal(positions, np.arange(run.n)):
            return None, [Mismatch("position", "others", f"0 to {run.n - 1}, each once", epsilon)]
        ids = rows["image"].to_numpy(dtype=np.int64)
        found += claims.differ("image", ids != images, ids, images, epsilon)
        truth = rows["label"].to_numpy(dtype=np.int64)
        found += claims.differ("label", truth != labels, truth, labels, epsilon)
        guess = rows["predicted"].to_numpy(dtype=np.int64)
        found += claims.differ("predicted", guess != claims.predicted, guess, claims.predicted)
    return (None if found else claims), found


def check(claims: Claims) -> list[Mismatch]:
    """What columns say against each other."""
    found = [*_adversarial(claims), *_contradictions(claims)]
    for epsilon in claims.epsilons:
        found += [*_numbers(claims, epsilon), *_decisions(claims, epsilon)]
    for smaller, larger in pairwise(claims.epsilons):
        found += _monotone(claims, smaller, larger)
    return found


def _adversarial(claims: Claims) -> Iterator[Mismatch]:
    """Each stored image is of a row, and each attacked row has one."""
    stored = len(claims.evidence.adversarial)
    table = claims.evidence.table
    used = set(table.loc[table["adversarial"] >= 0, "adversarial"].tolist())
    if used != set(range(stored)):
        yield Mismatch("adversarial", f"{len(used)} images that rows name", f"{stored} stored")
    for epsilon in claims.epsilons:
        attacked = claims.is_outcome(epsilon, Outcome.ATTACKED)
        named = (claims.rows(epsilon)["adversarial"] >= 0).to_numpy(dtype=bool)
        yield from claims.differ(
            "adversarial", named != attacked, named, attacked.astype(object), epsilon
        )


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
    classes = claims.evidence.submission.track.num_classes
    outside = (claims.predicted < -1) | (claims.predicted >= classes)
    yield from claims.differ("predicted", outside, claims.predicted, f"0 to {classes - 1}")


def _decisions(claims: Claims, epsilon: str) -> Iterator[Mismatch]:
    """Who decided follows from the outcome, and the columns of attacks from both."""
    rows = claims.rows(epsilon)
    by = rows["decided_by"].to_numpy(dtype=object)
    wrong, attacked, certified = (
        claims.is_outcome(epsilon, outcome)
        for outcome in (Outcome.MISCLASSIFIED, Outcome.ATTACKED, Outcome.CERTIFIED)
    )
    expected = np.where(wrong, "clean", np.where(certified, claims.prover(epsilon), ""))
    other = ~attacked & (by != expected)
    yield from claims.differ("decided_by", other, by, expected.astype(object), epsilon)
    unknown = attacked & ~np.isin(by.astype(str), BREAKERS)
    yield from claims.differ("decided_by", unknown, by, "no attack that there is", epsilon)
    not_asked = claims.evidence.run.not_asked
    for name, column in CERTIFIER_COLUMNS.items():
        answers = claims.yes(column, epsilon)
        without = answers & ~claims.correct
        yield from claims.differ(column, without, "proven", "wrong without an attack", epsilon)
        if name in not_asked:
            yield from claims.differ(
                column, claims.answered(column, epsilon), "an answer", "not asked", epsilon
            )
    for attack, parts in zip(ATTACKS, (("pgd50",), SUITE), strict=True):
        stands = claims.yes(attack, epsilon)
        broken = wrong | (attacked & np.isin(by.astype(str), parts))
        yield from claims.differ(attack, stands & broken, "right", f"broken by {parts[0]}", epsilon)
        fallen = ~stands & claims.answered(attack, epsilon) & claims.correct & ~attacked
        yield from claims.differ(attack, fallen, "broken", "an outcome but attacked", epsilon)
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
    yield from claims.differ("carried_from", ~allowed, source, "no such decision there", epsilon)


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
