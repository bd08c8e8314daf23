"""How far a float32 deployment may be from exact arithmetic, whatever its order of summation.

A layer z = W a + b is deployed as z = W a + b + d. Let k be the number of terms of a sum that are
not zero, and S = sum |w| |a| + |b|. Every product and every partial sum is rounded once, so that
each term passes at most k + 1 roundings in any order, with or without fused multiply-add, and

    |d| <= gamma(k + 1) S,    gamma(k) = k u / (1 - k u),    u = 2**-24

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1 and 4.2). A factor, a
summand, a batch-norm or a shortcut right behind a sum may be folded into it: its terms are then
rounded as often as those of the sum, and a few times more when they are folded: `EXTRA_TERMS`, and
`FREE_FOLDS` where there are many. Two sums that are added may become one sum of all their terms. A
factor right before a sum may be multiplied with the sum, or its weights, instead.

Numbers below 2**-126 may be flushed to zero, as operands or as results. A flushed weight costs all
of |w| |a|, a flushed activation 2**-126 |w|, a flushed result 2**-126.

The checker's own arithmetic is float64. Its error in one sum of k terms is at most k 2**-53 S or
so, 500 million times smaller than d as long as k is below `MAX_TERMS`; `SLACK` pays for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT = 2.0**-24
"""Unit roundoff of float32."""

UNIT64 = 2.0**-53
"""Unit roundoff of float64."""

SMALLEST = 2.0**-126
"""The smallest float32 that no deployment flushes to zero."""

LARGEST = 2.0**126
"""Where a partial sum may come near the largest float32, nothing is proven."""

EXTRA_TERMS = 10
"""Roundings of a term beyond those of its sum: weights scaled or folded before they are used."""

FREE_FOLDS = 5
"""Layers behind a sum that `EXTRA_TERMS` pays for: each may be a factor and a summand, and folding
it rounds every term of the sum twice more, whatever they cancel to. Further ones pay themselves."""

MAX_TERMS = 2**20
"""Sums of more terms are not checked: `SLACK` would not pay for float64."""

SLACK = 1.0 + 2.0**-7
"""Factor on every noise bound.

It pays for the float64 errors of the same layer: of z itself, of S, and of the product of a row of
coefficients with W on the way back, which is at most `MAX_TERMS` 2**-53 of the row's share of S.
gamma(`EXTRA_TERMS`) 2**-7 = 4.6e-9 is more than ten times all three, 3 * 2**20 * 2**-53 = 3.5e-10.
"""


def gamma(num_terms: Array | float) -> Array | float:
    """gamma(k) of float32 for k roundings; infinite for more than 4 `MAX_TERMS`.

    At k u = 1 the formula turns negative: sums of sums of sums reach that.

    >>> round(float(gamma(10)) * 2**24, 3)
    10.0
    """
    share = np.minimum(num_terms, 4 * MAX_TERMS) * UNIT
    return np.where(np.asarray(num_terms) > 4 * MAX_TERMS, np.inf, share / (1.0 - share))


def noise_of(size: Array, num_terms: Array | float, flushed: Array | float) -> Array:
    """A bound of |d| for sums of `num_terms` terms.

    Args:
        size: S, of any shape.
        num_terms: k of each sum, broadcastable.
        flushed: what numbers flushed to zero may cost, broadcastable.

    Returns:
        Bounds of the shape of `size`; infinite where a partial sum may overflow.
    """
    noise = gamma(num_terms + 1 + EXTRA_TERMS) * size * SLACK + flushed
    return np.where(size * SLACK < LARGEST, noise, np.inf)


def sum_error(num_values: int) -> float:
    """The relative error of a float64 sum of so many values, in any order."""
    return (2 * num_values + 64) * UNIT64


def centre(low: Array, high: Array) -> tuple[Array, Array]:
    """Midpoint and radius of intervals, so that mid - rad <= low and high <= mid + rad.

    >>> bool(centre(np.array([0.1]), np.array([0.3]))[1][0] >= 0.1)
    True
    """
    mid = 0.5 * low + 0.5 * high
    rad = np.maximum(high - mid, mid - low)
    return mid, rad * (1.0 + 2.0**-50) + np.abs(mid) * 2.0**-51
