"""Intervals, paired tests, corrections and rank groups, on numpy and scipy; imports no torch.

Everything here takes counts or per-image answers of the published order, whose first n images are
a random sample of all (the order is a sort by sha256). Coverage of every interval and error rates
of every test are simulated in ``tests/unit/test_statistics_simulated.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import binom, binomtest

RESAMPLES = 2000
"""Of the bootstrap."""
MIN_PARENT_COUNT = 10
"""Images that a dense parent must have right for a retention (RULES.md): with fewer, a standard
deviation of that count alone is a third of it."""


class Interval(NamedTuple):
    """A confidence interval, of a proportion with both ends in [0, 1]."""

    low: float
    high: float


class Kept(NamedTuple):
    """A retention: kept share of the parent's count, with its interval."""

    rate: float
    low: float
    high: float


class Standing(NamedTuple):
    """Where an entry stands among others on the same images.

    Attributes:
        best: the best rank it can hold, from 1: one more than the entries shown to be better.
        worst: the worst rank it can hold: the number of entries less those shown to be worse.
        group: number of its rank group, from 1.
    """

    best: int
    worst: int
    group: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a binomial proportion (Wilson 1927).

    It covers the truth as often as stated on average over proportions, and may miss by a point or
    two at single ones; :func:`clopper_pearson` never covers less often than stated, and is wider.

    Args:
        successes: 0..n.
        n: trials, at least 1.
        confidence: coverage in (0, 1).

    Raises:
        ValueError: `successes` outside 0..n or `n` below 1.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    _require_counts(successes, n)
    z, rate = float(ndtri(0.5 + confidence / 2)), successes / n
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(n * rate * (1 - rate) + z * z / 4)
    low = 0.0 if successes == 0 else centre - half
    return Interval(low, 1.0 if successes == n else centre + half)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a binomial proportion (Clopper and Pearson 1934), via scipy.

    Args:
        successes: 0..n.
        n: trials, at least 1.
        confidence: least coverage, in (0, 1).

    Raises:
        ValueError: `successes` outside 0..n or `n` below 1.

    >>> [round(end, 4) for end in clopper_pearson(8, 10)]
    [0.4439, 0.9748]
    """
    _require_counts(successes, n)
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))


def _require_counts(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"Expected 0 <= successes <= n and n >= 1, but got {successes} of {n}")


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value for paired per-image results (McNemar 1947).

    Args:
        only_first: images that only the first entry gets right.
        only_second: images that only the second entry gets right.

    >>> mcnemar_exact(0, 5)
    0.0625
    """
    return float(mcnemar_exact_many(only_first, only_second))


def mcnemar_exact_many(only_first: ArrayLike, only_second: ArrayLike) -> NDArray[np.float64]:
    """The same for arrays of counts, of any one shape.

    >>> mcnemar_exact_many([0, 0, 1], [0, 5, 9]).round(4)
    array([1.    , 0.0625, 0.0215])
    """
    first, second = np.asarray(only_first), np.asarray(only_second)
    tail = binom.cdf(np.minimum(first, second), first + second, 0.5)
    p_values: NDArray[np.float64] = np.minimum(1.0, 2.0 * tail)
    return p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p-values that may be compared with alpha each.

    Args:
        p_values: of all tests of one family, each in [0, 1].

    Returns:
        Corrected p-values in the same order, each in [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    return [float(value) for value in holm_many(p_values)]


def holm_many(p_values: ArrayLike) -> NDArray[np.float64]:
    """The same for an array (k,) of p-values, of all pairs of a large board say.

    >>> holm_many([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    times = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, times * values[order]))
    return corrected


def rank_groups(right: Sequence[ArrayLike], alpha: float = 0.05) -> list[Standing]:
    """The ranks that each entry of a board can hold, and groups that cannot be told apart.

    Every pair of entries is compared by the exact McNemar test on the same images, Holm-corrected
    over all pairs of the board. With a chance of at least 1 - alpha no two entries of equal
    accuracy are told apart, and all ranges `best`..`worst` hold the true rank at once (Mogstad,
    Romano, Shaikh and Wilhelm, "Inference for ranks", 2024). An entry of the same accuracy as
    others may hold any of their ranks.

    Groups are cut from the top: an entry opens a new group where it is told apart from any member
    of the group before it. So no two members of a group are told apart. Two entries of neighbouring
    groups may still not be told apart; their ranges then overlap.

    Args:
        right: per entry bool (n,), whether each image is right by the measure that the board is
            sorted by, the same images in the same order for all; entries best first, that is, the
            number of right images never grows.
        alpha: chance of any false statement on this board, in (0, 1).

    Returns:
        One standing per entry, in the order of `right`; empty for no entries.

    Raises:
        ValueError: entries of different n, no images, not best first, or alpha outside (0, 1).

    >>> worse = [True] * 10 + [False] * 30
    >>> rank_groups([[True] * 40, [True] * 39 + [False], worse])
    [Standing(best=1, worst=2, group=1), Standing(best=1, worst=2, group=1), \
Standing(best=3, worst=3, group=2)]
    """
    if not 0 < alpha < 1:
        raise ValueError(f"Expected alpha in (0, 1), but got {alpha}")
    if not right:
        return []
    table = _same_images(right)
    first, second = np.triu_indices(len(table), k=1)
    # counts are exact in float64, whose product is much faster than that of integers
    wins = (table.astype(np.float64) @ (~table).T.astype(np.float64)).astype(np.int64)
    p_values = mcnemar_exact_many(wins[first, second], wins[second, first])
    told = holm_many(p_values) <= alpha
    is_better = np.zeros_like(wins, dtype=bool)
    is_better[first[told], second[told]] = True  # best first: the earlier one has more wins
    is_apart = is_better | is_better.T
    standings: list[Standing] = []
    group, opened = 1, 0
    for entry in range(len(table)):
        if is_apart[entry, opened:entry].any():
            group, opened = group + 1, entry
        best = 1 + int(is_better[:, entry].sum())
        worst = len(table) - int(is_better[entry].sum())
        standings.append(Standing(best, worst, group))
    return standings


def _same_images(right: Sequence[ArrayLike]) -> NDArray[np.bool_]:
    rows = [np.asarray(row, dtype=bool) for row in right]
    shapes = {row.shape for row in rows}
    if len(shapes) != 1 or rows[0].ndim != 1 or not rows[0].size:
        raise ValueError(
            f"Expected one bool array (n,) per entry with the same n >= 1, but got {sorted(shapes)}"
        )
    counts = [int(row.sum()) for row in rows]
    if counts != sorted(counts, reverse=True):
        raise ValueError(f"Expected entries best first, but the counts of right are {counts}")
    return np.stack(rows)


def retention(
    child: ArrayLike, parent: ArrayLike, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Kept | None:
    """Kept share of the parent's count, with a paired percentile bootstrap interval over images.

    Images are drawn again with replacement, child and parent together, from a fixed seed, so that
    the same answers give the same interval. Only the four counts of a draw matter (both right, one
    of them, neither), so a draw is one of the multinomial distribution. Where the two agree on
    every image, each draw gives 1; then the interval is what Clopper and Pearson allow for the
    images that could differ.

    Args:
        child: bool (n,).
        parent: bool (n,), on the same images.
        confidence: coverage in (0, 1).
        resamples: number of draws.

    Returns:
        None where the parent has fewer than `MIN_PARENT_COUNT` right images.

    Raises:
        ValueError: not the same images.

    >>> kept = retention(np.array([1, 1, 1, 0] * 50, bool), np.ones(200, bool))
    >>> kept.rate, kept.low < 0.75 < kept.high
    (0.75, True)
    """
    ours, base = np.asarray(child, dtype=bool), np.asarray(parent, dtype=bool)
    if ours.shape != base.shape or ours.ndim != 1:
        raise ValueError(f"Expected two bool arrays (n,), but got {ours.shape} and {base.shape}")
    if base.sum() < MIN_PARENT_COUNT:
        return None
    rate = float(ours.sum() / base.sum())
    if np.array_equal(ours, base):
        unseen = clopper_pearson(0, len(base), confidence).high * len(base) / float(base.sum())
        return Kept(rate, max(0.0, rate - unseen), rate + unseen)
    cells = np.bincount(2 * base + ours, minlength=4)  # neither, child only, parent only, both
    draws = np.random.default_rng(0).multinomial(len(base), cells / len(base), size=resamples)
    ratios = (draws[:, 1] + draws[:, 3]) / np.maximum(draws[:, 2] + draws[:, 3], 1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Kept(rate, float(low), float(high))
