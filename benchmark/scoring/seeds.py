"""Two methods, several trainings of each: differences that hold over images and over seeds.

A test over images alone asks about these very networks. Whoever trains again draws another seed.
Both are sampled here: the seeds of each arm, and the images, which all networks share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

POWER = 0.8
"""Chance with which a difference of the detectable size would be shown."""


@dataclass(frozen=True)
class SeedTest:
    """A difference of two accuracies over seeds and images.

    Attributes:
        difference: of the means, first less second, in [-1, 1].
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: two-sided, of no difference; 1 where it cannot be estimated.
        detectable: smallest difference that would be shown with a chance of 80 %.
        num_seeds: trainings of each arm.
        is_paired: whether the trainings were paired by seed.
    """

    difference: float
    low: float
    high: float
    p_value: float
    detectable: float
    num_seeds: tuple[int, int]
    is_paired: bool


def over_seeds_and_images(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    is_paired: bool = False,
    confidence: float = 0.95,
) -> SeedTest:
    """Test two arms on the same images, a few trainings each.

    Seeds and images are crossed random effects: each network sees every image. The variance of the
    difference of the means is estimated as that between seeds, divided by their number, plus that
    between images of the mean difference, divided by theirs; the interaction is counted in both,
    which errs on the side of no difference. The degrees of freedom are Satterthwaite's
    (Biometrics 1946).

    Args:
        first: for each training of one arm, bool (N,), right or not, in one order of images.
        second: likewise.
        is_paired: training s of both began with the same weights and data order, as a pruned
            network and another from the same parent; then as many of each.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two trainings of an arm, other numbers of images, or pairs that do
            not match.

    >>> right = np.ones(100, dtype=bool)
    >>> wrong = np.zeros(100, dtype=bool)
    >>> over_seeds_and_images([right, right], [wrong, wrong]).difference
    1.0
    """
    one, other = _stack(first), _stack(second)
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"Expected the same images, but got {one.shape[1]} and {other.shape[1]}")
    if is_paired and len(one) != len(other):
        raise ValueError(f"Expected pairs, but got {len(one)} and {len(other)} trainings")
    per_image = one.mean(axis=0) - other.mean(axis=0)
    parts = [(per_image.var(ddof=1) / per_image.size, per_image.size - 1)]
    if is_paired:
        by_seed = (one - other).mean(axis=1)
        parts.append((by_seed.var(ddof=1) / len(by_seed), len(by_seed) - 1))
    else:
        for arm in (one, other):
            parts.append((arm.mean(axis=1).var(ddof=1) / len(arm), len(arm) - 1))
    difference = float(per_image.mean())
    variance = sum(part for part, _ in parts)
    numbers = (len(one), len(other))
    if variance == 0.0:
        p_value = 0.0 if difference else 1.0
        return SeedTest(difference, difference, difference, p_value, 0.0, numbers, is_paired)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    power = float(stats.t.ppf(POWER, freedom)) * error
    return SeedTest(
        difference=difference,
        low=max(-1.0, difference - reach),
        high=min(1.0, difference + reach),
        p_value=float(2 * stats.t.sf(abs(difference) / error, freedom)),
        detectable=reach + power,
        num_seeds=numbers,
        is_paired=is_paired,
    )


def _stack(arm: Sequence[ArrayLike]) -> NDArray[np.float64]:
    if len(arm) < 2:
        raise ValueError(f"Expected at least two trainings of each arm, but got {len(arm)}")
    return np.stack([np.asarray(one, dtype=np.float64) for one in arm])
