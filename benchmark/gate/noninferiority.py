"""Has a metric lost more than is allowed? The exact unconditional test on paired answers; no torch.

Of n images the baseline alone has `lost` right and the candidate alone `won`. With the shares of
such images among all there could be, P and Q, the metric truly loses P - Q. The null hypothesis is
that this is no more than `margin`; losing nothing at all is a much narrower one, and testing that
one is wrong far more often than alpha where a loss is allowed and happens.

- The statistic is the score of Tango (1998): the excess lost - won - n margin over its standard
  deviation under P - Q = margin, with the maximum likelihood of Q.
- Its p-value is exact: the chance of a score at least as large, added up over all counts, at the
  worst Q (Hsueh, Liu and Chen 2001; Sidik 2003). The score grows with `lost` and falls with `won`,
  so that P - Q = margin is the worst of all losses that are allowed.
- Q is looked for only where it can lie: in the exact interval of Clopper and Pearson, which misses
  it with a chance of at most `MISSED`, and that chance is added (Berger and Boos 1994).

How it was chosen: docs/decisions/0004-gate.md.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv
from scipy.stats import binom

MISSED = 1e-8
"""Chance that the share of won images lies outside of where it is looked for; the least p-value."""

STEP = 0.125
"""Between the shares that are tried, in standard deviations of the estimated share."""

NEGLIGIBLE = 1e-12
"""Chance, on either side, of counts of won images that are left out of the sum."""


def score(lost: ArrayLike, won: ArrayLike, n: int, margin: float) -> NDArray[np.float64]:
    """Tango's score for "the loss is at most the margin" (Statistics in Medicine 17, 1998).

    With margin 0 it is McNemar's (lost - won) / sqrt(lost + won).

    Args:
        lost: images that only the baseline has right, of any shape.
        won: images that only the candidate has right, of the same shape; lost + won <= n.
        n: images, at least 1.
        margin: share that may be lost, in [0, 1).

    Returns:
        float64 of that shape: standard deviations above the margin; 0 where nothing differs.

    >>> float(score(20, 4, 500, 0.0).round(3)), float(score(20, 4, 500, 0.01).round(3))
    (3.266, 2.372)
    """
    b, c = np.asarray(lost, dtype=np.float64), np.asarray(won, dtype=np.float64)
    linear = 2 * n * margin - (b + c) - (b - c) * margin
    share = (np.sqrt(linear**2 + 8 * n * c * margin * (1 - margin)) - linear) / (4 * n)
    variance = n * (2 * share + margin * (1 - margin))
    excess = b - c - n * margin
    return np.divide(excess, np.sqrt(variance), out=np.zeros_like(excess), where=variance > 0)


@lru_cache(maxsize=200_000)
def p_value(lost: int, won: int, n: int, margin: float) -> float:
    """The chance to lose so much or more, where the true loss is no more than the margin.

    Whoever rejects at p <= alpha is wrong with a chance of at most alpha, at every n, true loss
    within the margin, and share of images on which the two differ.

    Args:
        lost: images that only the baseline has right.
        won: images that only the candidate has right.
        n: images.
        margin: share that may be lost, at least 0.

    Returns:
        In [MISSED, 1]; 1 where no more than the margin was lost.

    Raises:
        ValueError: counts below 0 or above n, or a margin below 0.

    >>> p_value(5, 0, 500, 0.01), round(p_value(20, 4, 500, 0.01), 4)
    (1.0, 0.016)
    """
    if min(lost, won) < 0 or lost + won > n or margin < 0:
        raise ValueError(
            f"Expected lost >= 0, won >= 0, lost + won <= n and margin >= 0, but got {lost}, "
            f"{won}, {n} and {margin}"
        )
    if lost - won - n * margin <= 1e-9 * n:
        return 1.0
    least = float(score(lost, won, n, margin)) - 1e-9
    low, high = _where_the_share_lies(won, n, margin)
    tried = _grid(low, high, n, STEP)
    chances = _tail(tried, least, n, margin)
    best = int(chances.argmax())
    finer = np.linspace(tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)], 17)
    most = max(chances[best], _tail(finer, least, n, margin).max())
    return float(min(1.0, most + MISSED))


def _where_the_share_lies(won: int, n: int, margin: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of the share won, as far as the margin leaves room for it."""
    low = float(betaincinv(won, n - won + 1, MISSED / 2)) if won else 0.0
    high = float(betaincinv(won + 1, n - won, 1 - MISSED / 2))
    return low, min(high, (1 - margin) / 2)


def _grid(low: float, high: float, n: int, step: float) -> NDArray[np.float64]:
    """Shares from low to high, `step` standard deviations of an estimated share apart.

    The arcsine of the root of a share is estimated equally well everywhere: 1 / (2 sqrt(n)).
    """
    first, last = math.asin(math.sqrt(low)), math.asin(math.sqrt(high))
    num = 2 + math.ceil((last - first) * 2 * math.sqrt(n) / step)
    shares = np.sin(np.linspace(first, last, num)) ** 2
    clipped: NDArray[np.float64] = np.clip(shares, low, high)
    return clipped


def _tail(shares: NDArray[np.float64], least: float, n: int, margin: float) -> NDArray[np.float64]:
    """The chance of a score of at least `least`, for each true share won, at a loss of the margin.

    The number won is binomial; given that, the number lost is binomial among the other images.
    """
    first = int(binom.ppf(NEGLIGIBLE, n, shares.min()))
    last = int(binom.isf(NEGLIGIBLE, n, shares.max()))
    won = np.arange(max(first, 0), last + 1)
    fewest = fewest_lost(won, least, n, margin)
    won, fewest = won[fewest <= n - won], fewest[fewest <= n - won]
    share = shares[:, None]
    to_lose = np.minimum(1.0, (share + margin) / (1 - share))
    weights = binom.pmf(won, n, share)
    seen, at = np.nonzero(weights > NEGLIGIBLE / n)
    chances = np.zeros_like(weights)
    chances[seen, at] = betainc(fewest[at], n - won[at] - fewest[at] + 1, to_lose[seen, 0])
    return np.asarray((weights * chances).sum(axis=1))


def fewest_lost(won: ArrayLike, least: float, n: int, margin: float) -> NDArray[np.int64]:
    """For each number won, the smallest number lost whose score is at least `least`.

    Args:
        won: int (k,), in 0..n.
        least: score, above 0.
        n: images.
        margin: share that may be lost, in [0, 1).

    Returns:
        int64 (k,); n - won + 1 where none is.

    >>> fewest_lost(np.array([0, 4]), 1.96, 500, 0.01).tolist()
    [10, 18]
    """
    c = np.asarray(won, dtype=np.int64)
    too_few = np.minimum(np.floor(c + n * margin).astype(np.int64), n - c)
    enough = n - c + 1
    while (open_ := enough - too_few > 1).any():
        middle = np.where(open_, (too_few + enough) // 2, too_few)
        reached = score(middle, c, n, margin) >= least
        enough = np.where(open_ & reached, middle, enough)
        too_few = np.where(open_ & ~reached, middle, too_few)
    return enough
