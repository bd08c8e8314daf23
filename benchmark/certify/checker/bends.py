"""Functions made of straight pieces, and the larger or smaller of two values, as sums of ReLUs.

A function of straight pieces with kinks t_1 < ... < t_n and slopes s_0, ..., s_n is

    f(z) = f(t_1) + s_0 (z - t_1) + sum_k (s_k - s_(k-1)) relu(z - t_k),

such as clip(z, a, b) = a + relu(z - a) - relu(z - b) and leaky(z) = s z + (1 - s) relu(z); and
max(a, b) = a + relu(b - a). So whatever works on ReLUs works on them: lines, slopes, splits.

**No deployment computes these sums.** They are equations between real numbers, true of whatever
the deployed operand is, so that the steps z - t_k, b - a and the sum itself charge no noise. What
the *deployed* function rounds is charged by the step that gives its result:

- A clip, a maximum, a minimum and an absolute value give one of the numbers they compare, or its
  negative: nothing is rounded.
- A leaky ReLU rounds one product, of values below 0. It is charged what the sum would round,
  gamma(n) (|s| + |1 - s|) |z|, which is more, so that a deployment as a sum is covered as well.
- A hard sigmoid rounds a z + b, and is cut to [0, 1] after it: see `hard_sigmoid`.

The interval of the result is that of the function itself, not of the sum.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from corobench.benchmark.certify.checker.intervals import (
    Interval,
    Origin,
    Shape,
    UncheckableError,
    cut,
    spread_out,
)
from corobench.benchmark.certify.checker.layers import Affine
from corobench.benchmark.certify.checker.rounding import SLACK, SMALLEST, Array, gamma, noise_of

_OUT = 2.0**-50
"""Relative error of a few float64 operations, with room."""


def outward(low: Array, high: Array, size: Array) -> tuple[Array, Array]:
    """Ends moved outward by more than float64 errors of operations on values of that size."""
    return low - size * _OUT, high + size * _OUT


class Shift(Affine):
    """z - t for a kink t: exact.

    Args:
        kink: broadcastable to one image.
    """

    def __init__(self, kink: Array) -> None:
        self.kink, self.bias = kink, -kink

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        size = given.size + np.abs(self.kink)
        return Interval(*outward(given.low - self.kink, given.high - self.kink, size))

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient, origin


class Combination(Affine):
    """A sum of operands of equal shape times factors, in real numbers.

    Attributes:
        factors: per operand, broadcastable to one image; None for one that only its interval needs.
    """

    factors: tuple[Array | None, ...]

    def parts(self, coefficient: Array, origin: Origin) -> list[Array | None]:
        """The rows of each operand."""
        return [
            None if factor is None else coefficient * cut(factor, origin, coefficient.shape)
            for factor in self.factors
        ]


class Difference(Combination):
    """The second operand less the first: exact."""

    bias, factors = np.zeros(()), (np.full((), -1.0), np.ones(()))

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        first, second = operands
        low, high = second.low - first.high, second.high - first.low
        return Interval(*outward(low, high, first.size + second.size))


class Extreme(Combination):
    """The larger or smaller of two values: exact, as a ReLU is.

    Its operands are both values, then the ReLU of the second less the first, or of the first less
    the second.

    Args:
        is_largest: whether it is the larger one.
    """

    bias = np.zeros(())

    def __init__(self, is_largest: bool) -> None:
        self._best = np.maximum if is_largest else np.minimum
        self.factors = (np.ones(()), None, np.full((), 1.0 if is_largest else -1.0))

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        first, second = operands[0], operands[1]
        low, high = self._best(first.low, second.low), self._best(first.high, second.high)
        is_known = first.is_finite & second.is_finite
        return Interval(np.where(is_known, low, -np.inf), np.where(is_known, high, np.inf))


class Bend(Combination):
    """A function of straight pieces; its operands are z, then relu(z - kink) per kink.

    Args:
        kinks: ascending, each broadcastable to one image.
        values: the function at each kink, likewise.
        slopes: of the pieces, one more than kinks, likewise.
        is_exact: whether its deployment rounds nothing.
        rounded: what a deployment rounds in any case.
    """

    def __init__(
        self,
        kinks: Sequence[Array],
        values: Sequence[Array],
        slopes: Sequence[Array],
        is_exact: bool,
        rounded: float = 0.0,
    ) -> None:
        self.kinks, self.values, self.slopes = tuple(kinks), tuple(values), tuple(slopes)
        self.is_exact, self.rounded = is_exact, rounded
        if any(((size > 0) & (size < SMALLEST)).any() for size in map(np.abs, (*kinks, *slopes))):
            raise UncheckableError("a kink or a slope that may be flushed to zero")
        self.bias = self.values[0] - self.slopes[0] * self.kinks[0]
        steps = [after - before for before, after in itertools.pairwise(slopes)]
        first = self.slopes[0] if self.slopes[0].any() else None
        self.factors = (first, *steps)
        self._most = sum(map(np.abs, self.values), np.zeros(()))
        self._reach = sum((np.abs(step) for step in steps), np.abs(self.slopes[0]))
        steepest = np.max([np.abs(slope).max() for slope in slopes])
        gentlest = np.min([np.abs(slope[slope != 0]).min(initial=1.0) for slope in slopes])
        self.weights = min(float(gentlest), 1.0), max(float(steepest), 1.0)

    def value(self, z: Array) -> Array:
        """The function, piece by piece: without the cancellation of its sum."""
        found = self.values[0] + self.slopes[0] * (z - self.kinks[0])
        for kink, value, slope in zip(self.kinks, self.values, self.slopes[1:], strict=True):
            found = np.where(z > kink, value + slope * (z - kink), found)
        return found

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        given = operands[0]
        places = [np.clip(kink, given.low, given.high) for kink in self.kinks]
        found = [self.value(z) for z in (given.low, given.high, *places)]
        low, high = np.minimum.reduce(found), np.maximum.reduce(found)
        # Two numbers are added on a piece, of which none is larger than this.
        size = np.maximum(np.abs(low), np.abs(high)) + 2.0 * self._most
        noise = self._noise(given)
        low, high = outward(low - noise, high + noise, size)
        low = np.where(given.is_finite, low, -np.inf)
        high = np.where(given.is_finite, high, np.inf)
        return Interval(low, high, noise, weights=self.weights)

    def _noise(self, given: Interval) -> Array:
        """What the deployment rounds: nothing, or a bounded number, or what the sum would."""
        if self.is_exact:
            return np.zeros_like(given.low)
        if self.rounded:
            return np.full_like(given.low, self.rounded)
        flushed = 8.0 * SMALLEST * (1.0 + self._reach)
        return noise_of(self._reach * given.size, 2.0 * len(self.kinks) + 2.0, flushed)


class Every(Affine):
    """One place of every window of a map, such as its upper left value: exact.

    Args:
        place: down, across.
        stride: down, across.
        size: of the output, down and across.
    """

    bias = np.zeros(())

    def __init__(
        self, place: tuple[int, int], stride: tuple[int, int], size: tuple[int, int]
    ) -> None:
        self.place, self.stride, self.size = place, stride, size

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high, peak = (self.taken(one) for one in (given.low, given.high, given.reached))
        return given.like(low, high, peak)

    def taken(self, x: Array) -> Array:
        """The values of maps (N, C, H, W)."""
        rows, columns = (
            slice(first, first + (size - 1) * step + 1, step)
            for first, step, size in zip(self.place, self.stride, self.size, strict=True)
        )
        found: Array = x[..., rows, columns]
        return found

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        pads = (-self.place[0], -self.place[1], 0, 0)
        return spread_out([[coefficient]], self.stride, pads, origin, shape)


# ------------------------------------------------------------------------------ functions


def clip(low: Array | None, high: Array | None) -> Bend:
    """Values cut to a range that has one end or two.

    Where the ends are the wrong way round, the upper one wins, in torch, numpy and ONNX alike: the
    range has no width there.
    """
    zero, one = np.zeros(()), np.ones(())
    if low is not None and high is not None:
        low = np.minimum(low, high)
    ends = [end for end in (low, high) if end is not None]
    slopes = [one] if low is None else [zero, one]
    slopes = slopes if high is None else [*slopes, zero]
    return Bend(ends, ends, slopes, is_exact=True)


def leaky(slope: Array) -> Bend:
    """A ReLU with a slope below 0."""
    zero = np.zeros(())
    return Bend([zero], [zero], [slope, np.ones(())], is_exact=False)


def absolute() -> Bend:
    """The absolute value."""
    zero, one = np.zeros(()), np.ones(())
    return Bend([zero], [zero], [-one, one], is_exact=True)


def hard_sigmoid(slope: float, middle: float) -> Bend:
    """slope z + middle, cut to [0, 1].

    Let p be the exact slope z + middle, of which a deployment computes p + e, by a product and a
    sum, or by a sum and a product or quotient, or folded: |e| <= gamma(6) (|p| + 2 |middle|). Where
    |p| <= 2, e is at most gamma(6) (2 + 2 |middle|). Where p > 2 and |middle| < 2**10, p + e is
    still above 1, and where p < -2 it is below 0: both are cut to the right end. The cut moves
    nothing further apart, and (z + 3) cut to [0, 6] and divided by 6 rounds once more: gamma(8).
    """
    if not slope > 0 or abs(middle) > 2.0**10:
        raise UncheckableError("a hard sigmoid that does not rise, or is far from 0")
    zero, one, rise = np.zeros(()), np.ones(()), np.full((), slope)
    kinks = [np.full((), -middle / slope), np.full((), (1.0 - middle) / slope)]
    rounded = float(gamma(8.0)) * (2.0 + 2.0 * abs(middle)) * SLACK
    return Bend(kinks, [zero, one], [zero, rise, zero], is_exact=False, rounded=rounded)
