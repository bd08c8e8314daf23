"""The level of robustness beside that of the literature: what retention does not say.

A pruned network may keep all that a weak parent had. So the report shows, for each setting that the
literature reports, every dense network of this board, its best compact rows, and published figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.known import is_lower_end_known
from corobench.leaderboard.families import round_order
from corobench.leaderboard.measures import bracket


@dataclass(frozen=True)
class Published:
    """A row of the literature; shares in %.

    Attributes:
        network: and its weights.
        training: the objective, and how it was pruned.
        clean: right without an attack, or None where it is not told.
        proven: lower end, or None.
        unbroken: right after AutoAttack, or None.
        n: test images.
        source: whose figures these are.
    """

    network: str
    training: str
    clean: float | None
    proven: float | None
    unbroken: float | None
    n: int
    source: str


@dataclass(frozen=True)
class Goal:
    """What this project asks of its own rows, before it has them; shares in [0, 1].

    Attributes:
        track: of the rows.
        epsilon: radius.
        max_weights: weights other than zero, biases and norms counted.
        proven: share proven at least, or None.
        unbroken: share unbroken at least, or None.
        clean: share right at least, or None.
    """

    track: str
    epsilon: str
    max_weights: int
    proven: float | None = None
    unbroken: float | None = None
    clean: float | None = None

    def is_met_by(self, result: Result) -> bool:
        """Whether a row has all of it."""
        found = shares(result, self.epsilon)
        wanted = ((self.clean, found[0]), (self.proven, found[1]), (self.unbroken, found[2]))
        return all(least is None or (has is not None and has >= least) for least, has in wanted)


@dataclass(frozen=True)
class Level:
    """One setting: rows of this board and of the literature.

    Attributes:
        track: of the rows.
        epsilon: radius.
        dense: dense networks, by what is compared, best first.
        compact: compressed ones, at most `MAX_COMPACT`, best first.
        published: figures of the literature.
    """

    track: str
    epsilon: str
    dense: tuple[Result, ...]
    compact: tuple[Result, ...]
    published: tuple[Published, ...]


CTRAIN = "CTRAIN, published raw data"
FAST_AT = "FastAT, 2026, mean of three seeds"
LI = "Li et al., arXiv 2206.07311"
FLYING_BIRD = "Chen et al., arXiv 2202.09844"

#: (track, radius) -> what is published. Colour images are CIFAR-10's own, not a copy of them.
LITERATURE: dict[tuple[str, str], tuple[Published, ...]] = {
    ("cifar10", "2/255"): (
        Published("CNN5, 4.4 M", "MTL-IBP", 77.54, 64.51, None, 10_000, CTRAIN),
        Published("CNN7, 17.2 M", "MTL-IBP", 79.10, 64.47, None, 10_000, CTRAIN),
        Published("CNN5, 4.4 M", "SABR", 78.72, 62.59, None, 10_000, CTRAIN),
        Published("CNN5, 4.4 M", "CROWN-IBP", 75.84, 60.12, None, 10_000, CTRAIN),
        Published("CNN5, 4.4 M", "IBP", 70.85, 55.17, None, 10_000, CTRAIN),
        Published("a fifth of the weights", "pruned with an NRS loss", 62.2, 51.2, None, 200, LI),
    ),
    ("cifar10", "8/255"): (
        Published("ResNet-18", "PGD, averaged weights", 82.36, None, 50.49, 10_000, FAST_AT),
        Published("ResNet-18", "PGD", 85.35, None, 44.33, 10_000, FAST_AT),
        Published("ResNet-18, a tenth", "FlyingBird", 80.69, None, 46.49, 10_000, FLYING_BIRD),
    ),
}

GOALS = (
    Goal("cifar10", "2/255", 22_000, proven=0.46, clean=0.58),
    Goal("cifar10", "2/255", 500_000, proven=0.52),
    Goal("cifar10", "8/255", 22_000, unbroken=0.28),
    Goal("fashion-mnist", "1/10", 17_000, proven=0.79),
)
MAX_COMPACT = 5


def levels(results: Sequence[Result]) -> tuple[Level, ...]:
    """One level for each setting of the literature that has rows here.

    Of an entry with results of several rounds and subsets the newest round counts, and in it the
    largest subset.
    """
    largest = _largest(results)
    found = []
    for (track, epsilon), published in LITERATURE.items():
        rows = [one for one in largest if one.track == track and epsilon in one.epsilons]
        by_proof = published[0].proven is not None
        rows.sort(key=lambda one: _order(one, epsilon, by_proof))
        dense = tuple(one for one in rows if one.submission.parent is None)
        compact = tuple(one for one in rows if one.submission.parent is not None)[:MAX_COMPACT]
        if rows:
            found.append(Level(track, epsilon, dense, compact, published))
    return tuple(found)


def goals(results: Sequence[Result]) -> tuple[tuple[Goal, Result], ...]:
    """Each goal that has rows of its size here, with a row that meets it or else the nearest.

    Of rows that meet it those on more images come first: the first images of a test set may flatter
    a network by more than what it is above the goal.
    """
    largest = _largest(results)
    found = []
    for goal in GOALS:
        rows = [
            one
            for one in largest
            if one.track == goal.track
            and goal.epsilon in one.epsilons
            and one.compactness.num_nonzero <= goal.max_weights
        ]
        by_proof = goal.proven is not None
        rows.sort(key=lambda one: _order(one, goal.epsilon, by_proof))
        met = [one for one in rows if goal.is_met_by(one)]
        if rows:
            found.append((goal, max(met, key=lambda one: one.n) if met else rows[0]))
    return tuple(found)


def shares(result: Result, epsilon: str) -> tuple[float, float | None, float]:
    """Shares right, proven (None where no certifier could be asked) and unbroken, in [0, 1]."""
    score = result.epsilons[epsilon]
    drawn = bracket(score, result.n)
    proven = drawn.low_rate if is_lower_end_known(score) else None
    return result.clean / result.n, proven, drawn.not_attacked.rate


def _largest(results: Sequence[Result]) -> list[Result]:
    largest: dict[tuple[str, str], Result] = {}
    for result in results:
        key = (result.track, result.entry)
        if key not in largest or _age(result) > _age(largest[key]):
            largest[key] = result
    return list(largest.values())


def _age(result: Result) -> tuple[list[int], int]:
    return round_order(result), result.n


def _order(result: Result, epsilon: str, by_proof: bool) -> tuple[float, str]:
    _, proven, unbroken = shares(result, epsilon)
    return -((proven or 0.0) if by_proof else unbroken), result.entry
