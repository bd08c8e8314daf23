"""Stopping early: red as soon as a loss is proven, green once none can be proven any more.

The images of a subset lie in the published order, so that the first n are a random sample of all.

**Red.** Each look may spend a share of alpha, and the shares of all looks sum to 1. So the chance
that any look calls a metric red that truly lost no more than allowed is at most alpha, whatever the
looks have to do with each other (Bonferroni's inequality).

**Green.** From the counts so far those on all images are predicted, with the uncertainty of what is
not seen yet (predictive probability: Spiegelhalter, Freedman and Blackburn 1986). Where hardly any
future is red, the comparison stops. That can turn red into green and never the reverse.

How often either happens is simulated by ``perf/gate_rates.py``; docs/ci.md states it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.stats import norm

from corobench.benchmark.gate.noninferiority import score
from corobench.benchmark.gate.rule import Judged, Paired, Rule, Verdict, judge

NUM_DRAWS = 2000
"""Futures that are drawn per metric."""

PRIOR = 0.5
"""Added to each of the three counts: Jeffreys' prior."""

SURE_PASS = 0.1
"""Green, once no metric fails in more than this share of its futures."""

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Of the baseline's images, where the comparison looks."""

EARLY_ALPHA = 0.1
"""Share of alpha that each look but the last may spend; the last one has the rest."""

LEAST_IMAGES = 50


def looks(total: int) -> tuple[int, ...]:
    """Numbers of images at which the comparison looks; the last is `total`.

    >>> looks(500), looks(1000), looks(60)
    ((50, 125, 250, 500), (100, 250, 500, 1000), (60,))
    """
    sizes = {round(share * total) for share in SHARES}
    return tuple(sorted(size for size in sizes if size >= LEAST_IMAGES or size == total))


def share_of_alpha(n: int, sizes: Sequence[int]) -> float:
    """What the look at n images may spend; over all looks it sums to 1.

    Args:
        n: one of `sizes`.
        sizes: numbers of images at all looks, ascending.

    >>> [round(share_of_alpha(n, looks(500)), 3) for n in looks(500)], share_of_alpha(60, [60])
    ([0.1, 0.1, 0.1, 0.7], 1.0)
    """
    return EARLY_ALPHA if n < sizes[-1] else 1.0 - EARLY_ALPHA * (len(sizes) - 1)


def settled(
    metrics: Sequence[Paired], n: int, sizes: Sequence[int], rule: Rule
) -> list[Judged] | None:
    """What the look at the first n images says.

    Args:
        metrics: counts on these images.
        n: one of `sizes`.
        sizes: numbers of images at all looks, ascending; the last are all images.
        rule: of the verdict.

    Returns:
        One verdict per metric; None where more images are needed, never at the last look. At an
        earlier one a metric that lost too much so far is "still open", and so is one that could
        still fail where another is red.
    """
    judged = judge(metrics, rule, share_of_alpha(n, sizes))
    if n == sizes[-1]:
        return judged
    can_fail = [_can_still_fail(metric, sizes, rule, len(metrics)) for metric in metrics]
    if any(one.verdict == Verdict.FAIL for one in judged):
        return [_or_open(one, can) for one, can in zip(judged, can_fail, strict=True)]
    return None if any(can_fail) else [_or_open(one, can_fail=False) for one in judged]


def _or_open(one: Judged, can_fail: bool) -> Judged:
    is_open = one.verdict == Verdict.WARN or (one.verdict == Verdict.PASS and can_fail)
    return replace(one, verdict=Verdict.OPEN) if is_open else one


def _can_still_fail(metric: Paired, sizes: Sequence[int], rule: Rule, num_metrics: int) -> bool:
    """Whether it fails on all images in more than a few of its futures.

    Every metric bears the whole correction there: where none is below alpha divided by their
    number, Holm's test rejects nothing, and where one is, it rejects that one.
    """
    total = sizes[-1]
    alpha = rule.alpha * share_of_alpha(total, sizes) / num_metrics
    counts = (metric.only_baseline, metric.only_candidate, metric.n)
    return _chance_to_fail(*counts, total, rule.margin, alpha) > SURE_PASS


@lru_cache(maxsize=100_000)
def _chance_to_fail(
    only_baseline: int, only_candidate: int, n: int, total: int, margin: float, alpha: float
) -> float:
    """Share of the futures in which a metric fails, by the score's normal approximation.

    Its p-values are a little below the exact ones, so that this share is a little too large.
    """
    if margin >= 1:
        return 0.0
    lost, won = futures(only_baseline, only_candidate, n, total).T
    return float((score(lost, won, total, margin) >= norm.isf(alpha)).mean())


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
