"""The paper's method against rivals over several trainings of each, images and seeds together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corobench.benchmark.scoring.seeds import SeedTest, over_seeds_and_images
from corobench.benchmark.scoring.statistics import holm
from corobench.leaderboard.families import MEASURES, Child, Family, by_series

ALPHA = 0.05


@dataclass(frozen=True)
class SeedComparison:
    """One rival over the seeds that both have.

    Attributes:
        series: entry id of the first family's parent.
        rival: its method.
        measure: in words.
        test: of the paper's method less the rival.
        n: images.
        p_holm: corrected over all of these tests.
    """

    series: str
    rival: str
    measure: str
    test: SeedTest
    n: int
    p_holm: float = 1.0

    @property
    def is_shown(self) -> bool:
        """Whether there is a difference, at 5 % over all of them."""
        return self.p_holm < ALPHA


def seed_comparisons(families: Sequence[Family]) -> list[SeedComparison]:
    """Tests of the paper's method against each rival of its size that has two seeds or more.

    A seed is one dense parent; what was pruned from it is paired by it.
    """
    found = []
    for members in by_series(families):
        for (_, method), pairs in _pairs(members).items():
            if len(pairs) < 2:
                continue
            for measure in ("autoattack", "vra"):
                ours, theirs = ([pair[side].flags[measure] for pair in pairs] for side in (0, 1))
                if not any(flags.any() for flags in (*ours, *theirs)):
                    continue
                test = over_seeds_and_images(ours, theirs, is_paired=True)
                n = members[0].parent.n
                found.append(SeedComparison(members[0].name, method, MEASURES[measure], test, n))
    corrected = holm([one.test.p_value for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def _pairs(members: Sequence[Family]) -> dict[tuple[str, str], list[tuple[Child, Child]]]:
    """(the paper's method, a rival's) -> both children of each seed that has them."""
    pairs: dict[tuple[str, str], list[tuple[Child, Child]]] = defaultdict(list)
    for family in members:
        for papers in family.papers:
            for rival in family.rivals(papers):
                pairs[papers.method, rival.method].append((papers, rival))
    return pairs
