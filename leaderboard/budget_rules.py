"""The best rule for how much each layer keeps, and the goals that were set for it.

The paper removes the same share of every layer. Other rules by magnitude alone (ERK, LAMP, dense
first and last layers, one threshold for all layers) know the objective as little as that one does,
so that they are the paper's method with another budget per layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corobench.leaderboard.averages import (
    MethodAverage,
    kept_rate,
    largest_subsets,
    method_average,
)
from corobench.leaderboard.families import Child, Family

CRITERIA = frozenset(
    {
        "least-weight-magnitude",
        "least-weight-magnitude (ERK)",
        "least-weight-magnitude (first and last layer dense)",
        "layer-adaptive-magnitude",
    }
)

LEAST_FAMILIES = 3
"""A rule with rows in fewer families is no recipe."""

NEAR = 0.05
"""How far a network may be from so many times fewer weights, relative."""

GOALS: Mapping[int, Mapping[str, float]] = {
    10: {"clean": 0.99, "autoattack": 0.99, "vra": 1.0},
    20: {"clean": 0.95, "autoattack": 0.95, "vra": 0.95},
}
"""Times fewer weights -> measure -> share kept, written down before the rows were trained."""


@dataclass(frozen=True)
class BestRule:
    """The rule that keeps most after AutoAttack, on average over its families.

    Attributes:
        times: so many times fewer weights than the dense parents.
        goals: measure -> share to be kept.
        average: its mean retention; None where no rule has rows in enough families.
        families: entry ids of the dense parents.
        papers: the paper's method in the same families; None where it lacks one of them.
    """

    times: int
    goals: Mapping[str, float]
    average: MethodAverage | None = None
    families: tuple[str, ...] = ()
    papers: MethodAverage | None = None


def best_rules(families: Sequence[Family]) -> tuple[BestRule, ...]:
    """For each size that has goals the best rule.

    It is chosen by the measure that it is told by, and each rule by the families that it has, so
    that its average flatters it.
    """
    return tuple(_best_rule(families, times, goals) for times, goals in GOALS.items())


def _best_rule(families: Sequence[Family], times: int, goals: Mapping[str, float]) -> BestRule:
    rules: dict[str, list[tuple[Family, Child]]] = defaultdict(list)
    papers: dict[int, Child] = {}
    for family in families:
        for child in family.children:
            if is_magnitude_alone(child) and abs(child.times / times - 1) <= NEAR:
                rules[child.method].append((family, child))
                if child.uses_papers_method:
                    papers[id(family)] = child
    found = []
    for method, rows in rules.items():
        largest = largest_subsets(rows)
        names: dict[tuple[object, ...], list[str]] = defaultdict(list)
        for family, _ in largest:
            names[family.series].append(family.name)
        if len(names) < LEAST_FAMILIES:
            continue
        beside = [(family, papers[id(family)]) for family, _ in largest if id(family) in papers]
        has_all = len(beside) == len(largest) and beside[0][1].method != method
        found.append(
            BestRule(
                times,
                goals,
                method_average(method, largest),
                tuple(sorted(min(seeds) for seeds in names.values())),
                method_average(beside[0][1].method, beside) if has_all else None,
            )
        )
    return min(found, key=_rank) if found else BestRule(times, goals)


def _rank(rule: BestRule) -> tuple[float, str]:
    assert rule.average is not None
    return -kept_rate(rule.average.kept["autoattack"]), rule.average.method


def is_magnitude_alone(child: Child) -> bool:
    """Whether weights were removed once by magnitude, the robust objective before and after."""
    return child.is_pruned_once and child.result.submission.method.criterion in CRITERIA
