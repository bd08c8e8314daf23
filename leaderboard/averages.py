"""Retention averaged over families: the paper's method, and every rival beside it.

Families differ in what a tenth of the weights can hold, so a rival is averaged together with the
paper's method over the families that have both, on the same images and seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from corobench.benchmark.scoring.statistics import Kept, retention
from corobench.leaderboard.families import MEASURES, Child, Family

#: "Ten times", between these.
TEN_TIMES = (9.5, 10.5)

_Of = TypeVar("_Of")


@dataclass(frozen=True)
class MethodAverage:
    """One method's mean retention.

    Attributes:
        method: of the entries.
        kept: measure -> mean over the families, or None where none of them has a ratio.
    """

    method: str
    kept: dict[str, Kept | None]


@dataclass(frozen=True)
class AverageGroup:
    """Rivals that have results in the same families and seeds, beside the paper's method there.

    Attributes:
        num_seeds: entry id of a family's dense parent, that of the first seed -> seeds of the
            training that count, in the report's order.
        papers: the paper's method, over these families and seeds.
        rivals: best after AutoAttack first.
    """

    num_seeds: dict[str, int]
    papers: MethodAverage
    rivals: tuple[MethodAverage, ...]


def average(families: Sequence[Family], measure: str) -> Kept | None:
    """Mean retention of the paper's method at ten times over the families.

    Seeds of one family are averaged first, and so count once together; of a family that has
    results on a smaller and a larger subset the larger one counts. VRA counts for families that are
    trained to be verified. The interval is that of the mean, from the bootstrap intervals taken as
    independent.
    """
    found = [(family, child) for family in families for child in ten_times(family)]
    return _average(largest_subsets(found), measure)


def average_as_long(families: Sequence[Family], measure: str) -> tuple[Kept | None, list[str]]:
    """As `average`, of the dense network that was trained as long as the child in all.

    Returns:
        The mean, and the entry ids of the dense parents of those families that have such a network.
    """
    found = []
    for family in families:
        for child in ten_times(family):
            dense = family.trained_as_long_as(child)
            if dense is not None:
                kept = {key: retention(child.flags[key], dense.flags[key]) for key in MEASURES}
                found.append((family, replace(child, kept=kept)))
    largest = largest_subsets(found)
    return _average(largest, measure), sorted({family.name for family, _ in largest})


def average_groups(families: Sequence[Family]) -> list[AverageGroup]:
    """Every rival at ten times beside the paper's method on the same families, as `average` does.

    Returns:
        One group per set of families, the widest first; rivals of the same families share one.
    """
    pairs: dict[str, list[tuple[Family, tuple[Child, Child]]]] = defaultdict(list)
    for family in families:
        for ours in ten_times(family):
            for rival in family.rivals(ours):
                pairs[rival.method].append((family, (ours, rival)))
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for method, found in pairs.items():
        pairs[method] = largest_subsets(found)
        together[tuple(id(family) for family, _ in pairs[method])].append(method)
    groups = []
    for methods in together.values():
        papers = [(family, ours) for family, (ours, _) in pairs[methods[0]]]
        rivals = [
            method_average(method, [(family, rival) for family, (_, rival) in pairs[method]])
            for method in methods
        ]
        rivals.sort(key=lambda one: (-kept_rate(one.kept["autoattack"]), one.method))
        seeds: dict[tuple[object, ...], list[str]] = defaultdict(list)
        for family, _ in papers:
            seeds[family.series].append(family.name)
        groups.append(
            AverageGroup(
                {min(names): len(names) for names in seeds.values()},
                method_average(papers[0][1].method, papers),
                tuple(rivals),
            )
        )
    return sorted(groups, key=lambda one: (-len(one.num_seeds), sum(one.num_seeds.values())))


def ten_times(family: Family) -> list[Child]:
    """Children by the paper's method with a tenth of the weights."""
    low, high = TEN_TIMES
    return [child for child in family.papers if low <= child.times <= high]


def largest_subsets(found: Sequence[tuple[Family, _Of]]) -> list[tuple[Family, _Of]]:
    """Of a family with results on several subsets those on the largest one."""
    largest: dict[tuple[object, ...], int] = defaultdict(int)
    for family, _ in found:
        largest[family.series] = max(largest[family.series], family.parent.n)
    return [one for one in found if one[0].parent.n == largest[one[0].series]]


def method_average(method: str, found: Sequence[tuple[Family, Child]]) -> MethodAverage:
    """Of the rows of one method, seeds first."""
    return MethodAverage(method, {measure: _average(found, measure) for measure in MEASURES})


def _average(found: Sequence[tuple[Family, Child]], measure: str) -> Kept | None:
    by_series: dict[tuple[object, ...], list[Kept]] = defaultdict(list)
    for family, child in found:
        kept = child.kept[measure]
        if kept is not None and (measure != "vra" or family.is_verifiable):
            by_series[family.series].append(kept)
    means = [_mean(seeds) for seeds in by_series.values()]
    return _mean(means) if means else None


def _mean(kept: Sequence[Kept]) -> Kept:
    if len(kept) == 1:
        return kept[0]
    rate = sum(one.rate for one in kept) / len(kept)
    below = np.sqrt(sum((one.rate - one.low) ** 2 for one in kept)) / len(kept)
    above = np.sqrt(sum((one.high - one.rate) ** 2 for one in kept)) / len(kept)
    return Kept(rate, rate - float(below), rate + float(above))


def kept_rate(kept: Kept | None) -> float:
    """0 where there is none."""
    return 0.0 if kept is None else kept.rate
