"""The best rule for how much each layer keeps, and the goals that were set for it.

The paper removes the same share of every layer. Other rules by magnitude alone (ERK, LAMP, dense
first and last layers, one threshold for all layers) know the objective as little as that one does,
so that they are the paper's method with another budget per layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corobench.leaderboard.averages import MethodAverage, largest_subsets, method_average
from corobench.leaderboard.families import Child, Family, number_format

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
        average: its mean retention.
        families: entry ids of the dense parents.
        goals: measure -> share to be kept.
    """

    times: int
    average: MethodAverage
    families: tuple[str, ...]
    goals: Mapping[str, float]


def best_rules(families: Sequence[Family]) -> tuple[BestRule, ...]:
    """For each size that has goals the best rule, where one has rows in enough families.

    It is chosen by the measure that it is told by, so that its average flatters it a little.
    """
    found = []
    for times, goals in GOALS.items():
        rules: dict[str, list[tuple[Family, Child]]] = defaultdict(list)
        for family in families:
            for child in family.children:
                if is_magnitude_alone(child) and abs(child.times / times - 1) <= NEAR:
                    rules[child.method].append((family, child))
        ranked = []
        for method, rows in rules.items():
            largest = largest_subsets(rows)
            names: dict[tuple[object, ...], list[str]] = defaultdict(list)
            for family, _ in largest:
                names[family.series].append(family.name)
            if len(names) >= LEAST_FAMILIES:
                average = method_average(method, largest)
                kept = average.kept["autoattack"]
                shown = tuple(sorted(min(seeds) for seeds in names.values()))
                ranked.append((-(kept.rate if kept else 0.0), method, average, shown))
        if ranked:
            _, _, average, shown = min(ranked, key=lambda one: one[:2])
            found.append(BestRule(times, average, shown, goals))
    return tuple(found)


def is_magnitude_alone(child: Child) -> bool:
    """Whether weights were removed once by magnitude, the robust objective before and after."""
    method = child.result.submission.method
    return (
        not child.by
        and number_format(child.result) == "float32"
        and method.criterion in CRITERIA
        and method.structure == "unstructured"
        and (method.pipeline, method.schedule) == ("after", "one-shot")
        and method.pretrain_objective == method.finetune_objective
    )
