"""Intervals and paired tests, on scipy; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binomtest


class Interval(NamedTuple):
    """A confidence interval of a proportion, both ends in [0, 1]."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a binomial proportion (Wilson 1927), via scipy.

    Args:
        successes: 0..n.
        n: trials, at least 1.
        confidence: coverage in (0, 1).

    Raises:
        ValueError: `successes` outside 0..n or `n` below 1.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"Expected 0 <= successes <= n and n >= 1, but got {successes} of {n}")
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value for paired per-image results (McNemar 1947).

    Args:
        only_first: images that only the first entry gets right.
        only_second: images that only the second entry gets right.

    >>> mcnemar_exact(0, 5)
    0.0625
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(binomtest(only_first, discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p-values that may be compared with alpha each.

    Args:
        p_values: of all tests of one family, each in [0, 1].

    Returns:
        Corrected p-values in the same order, each in [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
