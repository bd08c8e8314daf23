"""Layers that are bounded by intervals alone: a backward pass ends at what they give.

A product of two activations, a normalisation by statistics of the image itself, a softmax. Bounds
of their operands may come from any method.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corobench.benchmark.certify.checker.intervals import Interval, Shape, UncheckableError
from corobench.benchmark.certify.checker.rounding import (
    LARGEST,
    MAX_TERMS,
    SLACK,
    SMALLEST,
    Array,
    gamma,
    noise_of,
)

EXP_ERROR = 2.0**-18
"""Relative error that a float32 exponential of a runtime is assumed to stay within. The fastest
ones of vector libraries claim 20 units of 2**-24."""

_OUT = 2.0**-40
"""Relative error of some float64 operations, sums of few values included, with room."""


_AT_ONCE = 32
"""Values of a softmax up to which all pairs are held at once."""


class Boxed:
    """A nonlinear layer without lines."""

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        """The interval of the output, and the noise of its rounding."""
        raise NotImplementedError


def known(low: Array, high: Array, noise: Array, *operands: Interval) -> Interval:
    """An interval widened by noise; without end where an operand may be no number."""
    is_known = np.isfinite(low) & np.isfinite(high) & np.isfinite(noise)
    for one in operands:
        is_known = is_known & one.is_finite
    low, high = low - noise, high + noise
    return Interval(np.where(is_known, low, -np.inf), np.where(is_known, high, np.inf), noise)


class Product(Boxed):
    """The product of two activations, of which one may be broadcast; one rounding.

    Args:
        is_square: whether both are the same one.
    """

    def __init__(self, is_square: bool = False) -> None:
        self.is_square = is_square

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        first, second = operands
        ends = [a * b for a in (first.low, first.high) for b in (second.low, second.high)]
        low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
        if self.is_square:
            crosses = (first.low < 0) & (first.high > 0)
            low = np.where(crosses, 0.0, np.minimum(first.low**2, first.high**2))
            high = np.maximum(first.low**2, first.high**2)
        flushed = SMALLEST * (4.0 + 2.0 * first.size + 2.0 * second.size)
        noise = noise_of(first.reached * second.reached, 2.0, flushed)
        return known(low, high, noise, first, second)


class Softmax(Boxed):
    """exp(z_i) / sum exp(z_j) over the last axis: each value between those at two corners.

    It rises in z_i and falls in every other z_j. A deployment takes the largest z off, so that no
    exponential overflows and the sum is at least about 1; an exponential that is flushed to zero
    was below 2**-126. Rounding z_i - max by u |z_i - max| is a relative error of exp of that size;
    it is charged as 2 u |z| on a value of at most 1, and the rest relative to a value of at most 1.
    Values of two classes that are not told apart by this may be equal in float32: ties prove
    nothing, as in the referee.
    """

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        num = given.low.shape[-1]
        least = _share(given.low, given.high)
        most = _share(given.high, given.low)
        largest = given.size.max(axis=-1, keepdims=True)
        relative = 4.0 * EXP_ERROR + gamma(num + 8.0) + gamma(4.0) * (2.0 * largest + 2.0)
        noise = np.broadcast_to(relative * SLACK * 2.0 + 8.0 * SMALLEST, given.low.shape)
        noise = np.where(largest < 2.0**16, noise, np.inf)
        return known(least, most, noise, given)


def _share(own: Array, others: Array) -> Array:
    """exp(own_i) / (exp(own_i) + sum over j != i of exp(others_j))."""
    num = own.shape[-1]
    if num > _AT_ONCE:
        total = np.empty_like(own)
        for place in range(num):
            gaps = np.minimum(others - own[..., place, None], 700.0)
            gaps[..., place] = 0.0
            total[..., place] = 1.0 / np.exp(gaps).sum(axis=-1)
        return total
    gaps = others[..., None, :] - own[..., :, None]
    gaps = np.where(np.eye(num, dtype=bool), 0.0, gaps)
    found: Array = 1.0 / np.exp(np.minimum(gaps, 700.0)).sum(axis=-1)
    return found


class Norm(Boxed):
    """(x - mean) / sqrt(variance + eps) w + b over groups of one image's own values.

    With d = x - mean and n values of a group, the variance is (d_i**2 + R) / n, R = sum over j != i
    of d_j**2. Each value d_i / sqrt(d_i**2 / n + R / n + eps) rises in d_i, and its size falls in
    R. The bounds are taken at the ends of d_i, with the largest or smallest R of the box; the d sum
    to 0, so that R is also at least d_i**2 / (n - 1).

    **Rounding.** A mean of n values is off by at most gamma(n + 2) mean |x|. A deployment computes
    the variance from the d or as mean(x**2) - mean**2: with X = mean(x**2), the first is off by at
    most 2 gamma(n + 3) X + gamma(n + 4) X and the second by gamma(n + 3) X + gamma(2 n + 6) X, and
    both by less than E = gamma(4 n + 32) X, second orders included. Where the variance may be so
    small that E reaches variance + eps, nothing is proven. Let r be the largest 1 / sqrt(variance +
    eps - E) of the box. The rest, x r w - mean r w + b in any grouping, rounds x and the mean
    themselves: gamma(n + 24) (|x| + mean |x|) r |w|, and |b| relative to itself. Where r |w| may be
    flushed to zero, as one factor or on |w| alone, all of (|x| + mean |x|) r |w| is lost, and where
    it or a product with it may overflow, nothing is proven.

    Args:
        axes: of one image, counted from 1, that are normalised together, after `split`.
        split: shape of one image in which groups are an axis of their own.
        weight: broadcastable to `split`.
        bias: likewise.
        eps: above 0.
    """

    def __init__(
        self, axes: tuple[int, ...], split: Shape, weight: Array, bias: Array, eps: float
    ) -> None:
        self.axes, self.split, self.weight, self.bias, self.eps = axes, split, weight, bias, eps
        self.num = int(np.prod([split[axis - 1] for axis in axes]))
        if self.num > MAX_TERMS / 8:
            raise UncheckableError(f"a normalisation of more than {MAX_TERMS // 8} values")
        if not eps >= 2.0**-60:
            raise UncheckableError("a normalisation whose eps is 0 or nearly so")

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        with np.errstate(all="ignore"):
            return self._bounds(given)

    def _bounds(self, given: Interval) -> Interval:
        shape = given.low.shape
        low, high = (x.reshape(-1, *self.split) for x in (given.low, given.high))
        size = np.maximum(np.abs(low), np.abs(high))
        d_low, d_high = self._centred(low, high)
        out = (size + self._mean(size)) * _OUT
        d_low, d_high = d_low - out, d_high + out
        square = self._mean(size * size)
        error = gamma(4.0 * self.num + 32.0) * square * SLACK + 64.0 * SMALLEST
        eps = self.eps * (1.0 - _OUT) - error
        least = np.where((d_low < 0) & (d_high > 0), 0.0, np.minimum(d_low**2, d_high**2))
        most = np.maximum(d_low**2, d_high**2)
        inverse = 1.0 / np.sqrt(self._mean(least) * (1.0 - _OUT) + eps)
        lost = gamma(self.num + 24.0) * (size + self._mean(size)) * SLACK + 64.0 * SMALLEST
        rounded = lost * inverse * (1.0 + _OUT)
        bottom = -self._largest(-d_low, least, most, eps, error)
        top = self._largest(d_high, least, most, eps, error)
        ends = [(bottom - rounded) * self.weight, (top + rounded) * self.weight]
        low, high = np.minimum(*ends) + self.bias, np.maximum(*ends) + self.bias
        reached = np.maximum(np.abs(ends[0]), np.abs(ends[1])) + np.abs(self.bias)
        weight = np.abs(self.weight)
        flushed = 64.0 * SMALLEST * (1.0 + inverse) * (1.0 + weight)
        # r w as one factor: where it may be flushed to zero, all of it is lost.
        spread = size + self._mean(size)
        smallest = 1.0 / np.sqrt(self._mean(most) * (1.0 + _OUT) + self.eps + error)
        is_lost = (weight > 0) & (weight * np.minimum(smallest, 1.0) < SMALLEST / (1.0 - _OUT))
        flushed = flushed + np.where(is_lost, spread * inverse * weight * (1.0 + _OUT), 0.0)
        noise = noise_of(reached, 8.0, flushed)
        factor = np.maximum(inverse, 1.0) * np.maximum(weight, 1.0)
        is_safe = (square * self.num < LARGEST) & np.isfinite(inverse)
        is_safe = is_safe & (np.maximum(spread, 1.0) * factor < LARGEST)
        noise = np.where(is_safe & np.isfinite(low) & np.isfinite(high), noise, np.inf)
        low, high, noise = (x.reshape(shape) for x in (low, high, noise))
        return known(low, high, noise, given)

    def _mean(self, x: Array) -> Array:
        mean: Array = x.mean(axis=self.axes, keepdims=True)
        return mean

    def _centred(self, low: Array, high: Array) -> tuple[Array, Array]:
        """x - mean, in which x has the share 1 - 1 / n and every other value -1 / n."""
        own = 1.0 - 1.0 / self.num
        others_low = self._mean(low) - low / self.num
        others_high = self._mean(high) - high / self.num
        return own * low - others_high, own * high - others_low

    def _largest(self, d: Array, least: Array, most: Array, eps: Array, error: Array) -> Array:
        """Upper bounds of d / sqrt(variance + eps) from those of d."""
        num = self.num
        rest_least = np.maximum(self._mean(least) - least / num, 0.0) * (1.0 - _OUT) + eps
        rest_most = (self._mean(most) - most / num) * (1.0 + _OUT) + self.eps + error
        # Above 0, with the smallest R. Where what is added to d**2 is not above 0, nothing rises.
        first = np.where(rest_least > 0, d / np.sqrt(d**2 / num + rest_least), np.inf)
        second = np.where(eps > 0, d / np.sqrt(d**2 / max(num - 1, 1) + eps), np.inf)
        below = d / np.sqrt(d**2 / num + rest_most)
        found = np.where(d > 0, np.minimum(first, second), below)
        return found + np.abs(found) * _OUT
