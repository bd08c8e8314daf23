"""Rows of one image at several radii against each other, and what a decision was carried from.

A ball holds every smaller one: what breaks an image in the smaller ball breaks it in the larger
one, and what is proven in the larger ball is proven in the smaller one. An evaluation carries such
a decision over and writes down the radius that it is from; so the table alone shows whether there
is such a decision at that radius.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from corobench.benchmark.errors import ConfigError, ResultError
from corobench.benchmark.records.reading.columns import NO, YES, BoolArray, Columns, Text
from corobench.benchmark.records.reading.rows import ATTACKS, cheapest_prover, row_fault
from corobench.benchmark.records.result import (
    CERTIFIER_COLUMNS,
    CERTIFIERS,
    Outcome,
    Run,
    contradiction,
)
from corobench.benchmark.tracks import parse_epsilon

Rule = tuple[str, str, BoolArray]
"""Column at a radius, what was expected there, and the rows that break it."""


def require_rows(columns: Columns, run: Run, where: str) -> None:
    """Refuse a table whose rows contradict their own columns, or each other.

    Args:
        columns: the table, whose rows are those of its run (`belonging`).
        run: inside it.
        where: file or entry, for messages.

    Raises:
        ResultError: names `where`, the radius, the rule, and an image that breaks it.
    """
    for number, epsilon in enumerate(run.epsilons):
        fault = row_fault(columns.rows(slice(number * run.n, (number + 1) * run.n)), run)
        if fault:
            raise ResultError(f"{where}: epsilon {epsilon}: {fault}")
    fault = radii_fault(columns, run)
    if fault:
        raise ResultError(f"{where}: {fault}")


def radii_fault(columns: Columns, run: Run) -> str:
    """The first rule between rows of several radii that a table breaks; empty for none.

    Args:
        columns: the table, whose rows are those of its run (`belonging`).
        run: inside it.
    """
    epsilons = run.epsilons
    try:
        radii = [parse_epsilon(epsilon) for epsilon in epsilons]
    except ConfigError as error:
        return f"run record: epsilons: {error}"
    if radii != sorted(set(radii)):
        return f"run record: epsilons: expected ascending radii, found {', '.join(epsilons)}"
    parts = [columns.rows(slice(k * run.n, (k + 1) * run.n)) for k in range(len(epsilons))]
    for smaller, larger in pairwise(range(len(epsilons))):
        pair = [(epsilons[place], parts[place]) for place in (smaller, larger)]
        for what, expected, broken in _monotone(*pair):
            if broken.any():
                return _said(what, expected, parts[0], broken)
    for place, (epsilon, rows) in enumerate(zip(epsilons, parts, strict=True)):
        broken = ~_is_carried(place, epsilons, parts)
        if broken.any():
            source = rows.texts["carried_from"].at(int(np.flatnonzero(broken)[0]))
            return _said(
                f"carried_from at {epsilon}",
                f"a radius with such a decision, or nothing, found {source!r}",
                rows,
                broken,
            )
    return _stored_fault(columns) or _contradictions_fault(epsilons, parts, run)


def _stored_fault(columns: Columns) -> str:
    """The rows name the stored images 0, 1, 2 and so on, and leave none out."""
    used = np.unique(columns.numbers["adversarial"])
    used = used[used >= 0]
    missing = np.flatnonzero(used != np.arange(len(used)))
    if not len(missing):
        return ""
    return f"adversarial: expected a row that names image {missing[0]} of {int(used[-1]) + 1}"


def _said(what: str, expected: str, rows: Columns, broken: BoolArray) -> str:
    image = int(rows.numbers["image"][np.flatnonzero(broken)[0]])
    return f"{what}: expected {expected} (image {image}, {int(broken.sum())} in all)"


def _monotone(small: tuple[str, Columns], large: tuple[str, Columns]) -> Iterator[Rule]:
    """Broken in the smaller ball is broken in the larger one; proven the other way round."""
    (smaller, inner), (larger, outer) = small, large
    attacked = [rows.texts["outcome"].equals(Outcome.ATTACKED) for rows in (inner, outer)]
    yield (
        f"outcome at {larger}",
        f"attacked as at {smaller}",
        attacked[0] & ~attacked[1],
    )
    for attack in ATTACKS:
        stands = (inner.answers[attack] == NO) & (outer.answers[attack] == YES)
        yield f"{attack} at {larger}", f"broken as at {smaller}", stands
    for column in CERTIFIER_COLUMNS.values():
        there = (outer.answers[column] == YES) & ~attacked[0]
        missing = there & (inner.answers[column] != YES)
        yield f"{column} at {smaller}", f"proven as at {larger}", missing


def _is_carried(place: int, epsilons: tuple[str, ...], parts: list[Columns]) -> BoolArray:
    """bool (n,): whether each row names no radius, or one that has its decision.

    What broke an image is carried from a smaller radius where the same broke it with the same
    image; a proof from a larger one where the same certifier gave it.
    """
    rows = parts[place]
    source, decided = rows.texts["carried_from"], rows.texts["decided_by"]
    attacked = rows.texts["outcome"].equals(Outcome.ATTACKED)
    certified = rows.texts["outcome"].equals(Outcome.CERTIFIED)
    allowed = source.equals("")
    for other in range(place):
        there = parts[other]
        same = there.texts["outcome"].equals(Outcome.ATTACKED)
        same &= _same(decided, there.texts["decided_by"])
        same &= rows.numbers["adversarial"] == there.numbers["adversarial"]
        allowed |= source.equals(epsilons[other]) & attacked & same
    for other in range(place + 1, len(parts)):
        proven = np.zeros(len(rows), dtype=bool)
        for name, column in CERTIFIER_COLUMNS.items():
            proven |= decided.equals(name) & (parts[other].answers[column] == YES)
        allowed |= source.equals(epsilons[other]) & certified & proven
    return allowed


def _same(first: Text, second: Text) -> BoolArray:
    """bool (rows,): where two columns of text say the same."""
    found = np.zeros(len(first.codes), dtype=bool)
    for text in first.counts():
        found |= first.equals(text) & second.equals(text)
    return found


def _contradictions_fault(epsilons: tuple[str, ...], parts: list[Columns], run: Run) -> str:
    """Those of the audit are the rows that are proven and broken, one line each."""
    lines = []
    for epsilon, rows in zip(epsilons, parts, strict=True):
        attacked = rows.texts["outcome"].equals(Outcome.ATTACKED)
        prover = cheapest_prover(rows)
        for row in np.flatnonzero(attacked & (prover >= 0)):
            breaker = rows.texts["decided_by"].at(int(row))
            image = int(rows.numbers["image"][row])
            lines.append(contradiction(image, epsilon, CERTIFIERS[prover[row]], breaker))
    claimed = sorted(run.audit.contradictions)
    if claimed == sorted(lines):
        return ""
    other = sorted({*claimed} ^ {*lines})
    return (
        f"audit.contradictions: expected the {len(lines)} rows that are proven and broken, found "
        f"{len(claimed)} ({other[0] if other else 'repeated'})"
    )
