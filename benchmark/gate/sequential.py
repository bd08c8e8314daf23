"""Stopping early: is the verdict that the whole comparison will give settled already?

The images of a subset lie in the published order, so that the first n are a random sample of all N.
From the counts so far the counts at N are predicted, with the uncertainty of what is not seen yet
(predictive probability: Spiegelhalter, Freedman and Blackburn 1986). The comparison stops where the
verdict at N is nearly certain. The error rates of the whole procedure are simulated by
``perf/gate_rates.py``; docs/ci.md states them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import binom

from benchmark.gate.rule import Paired, Rule, Verdict

NUM_DRAWS = 2000
"""Futures that are drawn per metric."""

PRIOR = 0.5
"""Added to each of the three counts: Jeffreys' prior."""

SURE_PASS = 0.1
"""Green, once no metric fails in more than this share of its futures."""

SURE_FAIL = 0.99
"""Red, once a metric fails in at least this share of them."""

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Of the baseline's images, where the comparison looks."""

LEAST_IMAGES = 50


def looks(total: int) -> tuple[int, ...]:
    """Numbers of images at which the comparison looks; the last is `total`.

    >>> looks(500), looks(1000), looks(60)
    ((50, 125, 250, 500), (100, 250, 500, 1000), (60,))
    """
    sizes = {round(share * total) for share in SHARES}
    return tuple(sorted(size for size in sizes if size >= LEAST_IMAGES or size == total))


def settled(metrics: Sequence[Paired], total: int, rule: Rule) -> list[Verdict] | None:
    """The verdicts on `total` images, where they are as good as known.

    Every metric bears the whole correction: where none is below alpha divided by their number,
    Holm's test rejects nothing, and where one is, it rejects that one.

    Args:
        metrics: counts so far, all on the same n images.
        total: images of the whole comparison.
        rule: of the verdict.

    Returns:
        "fail" or "pass" per metric; None where more images are needed.
    """
    can_still_fail = False
    verdicts = []
    for metric in metrics:
        chance = _chance_to_fail(
            metric.only_baseline,
            metric.only_candidate,
            metric.n,
            total,
            rule.max_drop,
            rule.alpha / len(metrics),
        )
        verdicts.append(Verdict.FAIL if chance >= SURE_FAIL else Verdict.PASS)
        can_still_fail |= chance > SURE_PASS
    return None if can_still_fail and Verdict.FAIL not in verdicts else verdicts


@lru_cache(maxsize=100_000)
def _chance_to_fail(
    only_baseline: int, only_candidate: int, n: int, total: int, max_drop: float, alpha: float
) -> float:
    """Share of the futures in which a metric fails."""
    counts = futures(only_baseline, only_candidate, n, total)
    return float(_failing(counts, total, max_drop, alpha).mean())


def futures(only_baseline: int, only_candidate: int, n: int, total: int) -> np.ndarray:
    """Draws of the counts on all images, given those on the first n; the same at every call.

    Returns:
        int64 (NUM_DRAWS, 2): right in the baseline alone, and in the candidate alone.
    """
    random = np.random.default_rng(0)
    seen = np.array([only_baseline, only_candidate])
    rates = random.dirichlet([*(seen + PRIOR), n - seen.sum() + PRIOR], NUM_DRAWS)
    more = random.multinomial(total - n, rates)[:, :2]
    return np.asarray(seen + more)


def _failing(counts: np.ndarray, total: int, max_drop: float, alpha: float) -> np.ndarray:
    """Which draws lose too much, beyond chance."""
    only_baseline, only_candidate = counts.T
    drop = 100.0 * (only_baseline - only_candidate) / total
    most = _most_by_chance(total, alpha)[only_baseline + only_candidate]
    return np.asarray((drop > max_drop) & (only_candidate <= most))


@lru_cache(maxsize=64)
def _most_by_chance(total: int, alpha: float) -> np.ndarray:
    """Per number of images on which the two differ: how many the candidate may win at most.

    At so many or fewer the exact McNemar test says that its losses are no chance; -1 for never.
    """
    differing = np.arange(total + 1)
    most = binom.ppf(alpha / 2, differing, 0.5).astype(np.int64)
    most -= 2 * binom.cdf(most, differing, 0.5) > alpha
    return np.maximum(most, -1)
