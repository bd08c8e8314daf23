"""Roots, quotients and matrix products of activations, and norms without a mean: intervals alone.

Attention, RMSNorm, and vectors divided by their own length, however exporters write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.boxed import Boxed, known
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

Flags = NDArray[np.bool_]

_OUT = 2.0**-34
"""Relative error of some float64 operations, sums of up to 2**17 values included, with room."""

LEAST = 2.0**-100
"""A divisor, or a sum of squares under a root that divides, below this proves nothing."""


class MatrixProduct(Boxed):
    """The matrix products of two activations: sums of products, in any order.

    What is added right behind may be a first or last term of these sums (`Add`), and numbers that
    the operands are multiplied by may be multiplied with the sums instead (`Affine`).
    """

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        first, second = operands
        num = first.low.shape[-1]
        shape = first.low[..., :1] * second.low[..., :1, :]
        low, high, size = (np.zeros_like(shape) for _ in range(3))
        reached = np.zeros_like(shape)
        for k in range(num):
            a_low, a_high, a = (one[..., k, None] for one in (first.low, first.high, first.reached))
            b_low, b_high, b = (
                one[..., k, None, :] for one in (second.low, second.high, second.reached)
            )
            ends = [x * y for x in (a_low, a_high) for y in (b_low, b_high)]
            low += np.minimum.reduce(ends)
            high += np.maximum.reduce(ends)
            size += np.maximum(np.abs(a_low), np.abs(a_high)) * np.maximum(
                np.abs(b_low), np.abs(b_high)
            )
            reached += a * b
        least = first.factors[0] * second.factors[0]
        most = first.factors[1] * second.factors[1]
        flushed = SMALLEST * (
            4.0 * num
            + 8.0
            + 2.0 * first.reached.sum(axis=-1)[..., None]
            + 2.0 * second.reached.sum(axis=-2)[..., None, :]
        )
        lost = reached if least < SMALLEST else 0.0  # both factors as one are flushed to zero
        noise = noise_of(size, float(num) + 1.0, flushed * most + lost)
        noise = np.where((reached < LARGEST * least) & (most < LARGEST), noise, np.inf)
        # A row or a column that may hold no number makes all of its products such.
        rows, columns = _all(first.is_finite, (-1,)), _all(second.is_finite, (-2,))
        is_known = rows & columns
        found = known(low, high, np.where(is_known, noise, np.inf))
        return replace(
            found, num_terms=float(num) + 1.0, peak=reached, weights=(least, most), gain=most
        )


class Power(Boxed):
    """A whole power of at least 3: a few products, or a library's function.

    Where a product on the way is flushed to zero, |x| is below 1, and what is lost is below 2**-126
    times the size of the other factors.

    Args:
        exponent: at least 3.
    """

    def __init__(self, exponent: int) -> None:
        self.exponent = exponent

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high = given.low**self.exponent, given.high**self.exponent
        if self.exponent % 2 == 0:
            crosses = (given.low < 0) & (given.high > 0)
            low, high = np.where(crosses, 0.0, np.minimum(low, high)), np.maximum(low, high)
        size = np.maximum(given.reached, 1.0) ** self.exponent
        flushed = 4.0 * self.exponent * SMALLEST * size
        noise = noise_of(np.maximum(np.abs(low), np.abs(high)), 2.0 * self.exponent, flushed)
        noise = np.where(size < LARGEST, noise, np.inf)
        return known(low, high, noise, given)


class Root(Boxed):
    """The square root: of a deployed value that may be below 0 nothing is known.

    A value below 2**-126 may be flushed to zero, and its root is below 2**-63.
    """

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high = np.sqrt(np.maximum(given.low, 0.0)), np.sqrt(np.maximum(given.high, 0.0))
        lost = np.where(given.low < 2.0 * SMALLEST, 2.0**-62, 0.0)
        noise = gamma(8.0) * high * SLACK + lost
        return known(low, high, np.where(given.low >= 0, noise, np.inf), given)


class Quotient(Boxed):
    """One activation divided by another that is not 0, or 1 divided by it."""

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        second = operands[-1]
        one = np.ones_like(second.low)
        first = operands[0] if len(operands) == 2 else Interval(one, one)
        with np.errstate(all="ignore"):
            ends = [a / b for a in (first.low, first.high) for b in (second.low, second.high)]
            low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
            least = np.where(second.low > 0, second.low, -second.high)
            size = first.reached / least
        # As a product with the reciprocal: either may be flushed to zero.
        flushed = SMALLEST * (8.0 + 4.0 * first.size + 4.0 / np.maximum(least, LEAST))
        noise = noise_of(size, 4.0, flushed)
        is_known = (least >= LEAST) & (second.size <= 1.0 / LEAST)
        low, high = np.where(is_known, low, 0.0), np.where(is_known, high, 0.0)
        return known(low, high, np.where(is_known, noise, np.inf), first, second)


@dataclass(frozen=True)
class Length:
    """g(S) for the sum S of n squares: sqrt(S), sqrt(S / n + eps), or the larger of the former and
    a floor.

    Attributes:
        axes: of one image, counted from 1, that the squares are added over.
        shape: of one image.
        is_mean: whether S is divided by n.
        eps: added under the root.
        floor: a number the root is at least.
    """

    axes: tuple[int, ...]
    shape: Shape
    is_mean: bool = False
    eps: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.num > MAX_TERMS / 8:
            raise UncheckableError(f"a length of more than {MAX_TERMS // 8} values")
        if not (0.0 <= self.eps <= 2.0**60 and 0.0 <= self.floor <= 2.0**60):
            raise UncheckableError("a length with such an eps")

    @property
    def num(self) -> int:
        """n."""
        return int(np.prod([self.shape[axis - 1] for axis in self.axes]))

    def squared(self, total: Array) -> Array:
        """g(S) ** 2."""
        inside = total / self.num + self.eps if self.is_mean else total + self.eps
        return np.maximum(inside, self.floor**2)

    def sum(self, x: Array) -> Array:
        """Over the axes, kept with size 1."""
        found: Array = x.sum(axis=self.axes, keepdims=True)
        return found

    def error(self, least: Array) -> Array:
        """The relative error of a deployed g(S)**2 that is at least `least`; infinite where it is
        not small.

        All terms are at least 0, so that their sum is off by gamma(n + 8) of itself in any order,
        and eps, the division by n and the root by a few roundings more. Squares below 2**-126, and
        what is made of them, may be flushed to zero: that is absolute.
        """
        lost = (8.0 * self.num + 16.0) * SMALLEST
        relative = gamma(self.num + 32.0) * SLACK + lost / np.maximum(least, SMALLEST)
        return np.where((least >= LEAST) & (relative < 2.0**-6), relative, np.inf)


class LengthOf(Boxed):
    """The length itself: what a quotient that is not recognised divides by.

    Args:
        length: which.
        keep: whether the axes stay with size 1.
    """

    def __init__(self, length: Length, keep: bool) -> None:
        self.length, self.keep = length, keep

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        length = self.length
        least, most = _squares(given)
        low2, high2 = length.squared(length.sum(least)), length.squared(length.sum(most))
        # Below what float32 squares hold, 0 is a lower end, and sqrt(lost) an upper one.
        lost = np.sqrt((8.0 * length.num + 16.0) * SMALLEST)
        rounded = gamma(length.num + 32.0) * SLACK * np.sqrt(high2)
        noise = rounded + np.where(low2 >= LEAST, lost * lost / np.sqrt(LEAST), lost)
        reach = length.sum(given.reached**2)
        is_known = (reach * SLACK < LARGEST) & np.isfinite(high2)
        is_known = is_known & _all(given.is_finite, length.axes)
        low, high = np.sqrt(low2) * (1 - _OUT), np.sqrt(high2) * (1 + _OUT)
        if not self.keep:
            low, high, noise, is_known = (
                np.squeeze(one, axis=length.axes) for one in (low, high, noise, is_known)
            )
        return known(low, high, np.where(is_known, noise, np.inf))


class Normalised(Boxed):
    """x_i / g(S) times a weight, S the sum of the squares of x_i and others of one image.

    It rises in x_i, and its size falls in the sum of the other squares: the bounds are taken at the
    ends of x_i, with the least or the largest such sum of the box.

    **Rounding.** g(S)**2 is off by `Length.error`, so that its root is off by less than that, and
    the division, or a product with the reciprocal, and the weight in any grouping cost a few
    roundings more. Weights are between 2**-40 and 2**40 in size, or 0, so that no product on the
    way overflows, and what is flushed to zero on it is below 2**-126 times the factors after it.

    Args:
        length: g.
        weight: broadcastable to one image.
    """

    def __init__(self, length: Length, weight: Array) -> None:
        self.length, self.weight = length, weight
        size = np.abs(weight[weight != 0])
        if size.size and not (size.min() >= 2.0**-40 and size.max() <= 2.0**40):
            raise UncheckableError("weights of a normalisation below 2**-40 or above 2**40")

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        with np.errstate(all="ignore"):
            return self._bounds(given)

    def _bounds(self, given: Interval) -> Interval:
        length = self.length
        least, most = _squares(given)
        others_least = np.maximum(length.sum(least) * (1 - _OUT) - least, 0.0)
        others_most = np.maximum(length.sum(most) * (1 + _OUT) - most, 0.0)
        ends = []
        for end, sign in ((given.low, -1.0), (given.high, 1.0)):
            is_away = sign * end > 0
            others = np.where(is_away, others_least, others_most)
            root = np.sqrt(length.squared(end**2 + others))
            found = np.where(end == 0, 0.0, end / root)
            ends.append(found + sign * np.abs(found) * _OUT)
        smallest = length.squared(length.sum(least) * (1 - _OUT)) * (1 - _OUT)
        error = length.error(smallest) + gamma(24.0) * SLACK
        inverse = 1.0 / np.sqrt(np.maximum(smallest, LEAST))
        size = np.maximum(np.abs(ends[0]), np.abs(ends[1])) * np.abs(self.weight)
        flushed = 64.0 * SMALLEST * (1.0 + inverse) * (1.0 + np.abs(self.weight))
        reach = length.sum(given.reached**2)
        is_known = (reach * SLACK < LARGEST) & np.isfinite(error)
        is_known = is_known & _all(given.is_finite, length.axes)
        noise = np.where(is_known, size * error * SLACK + flushed, np.inf)
        both = [end * self.weight for end in ends]
        low, high = np.minimum(*both), np.maximum(*both)
        low, high = np.where(is_known, low, 0.0), np.where(is_known, high, 0.0)
        return known(low, high, noise, given)


def _squares(given: Interval) -> tuple[Array, Array]:
    """The least and the largest square of each value."""
    most = np.maximum(given.low**2, given.high**2)
    least = np.minimum(given.low**2, given.high**2)
    return np.where((given.low <= 0) & (given.high >= 0), 0.0, least), most


def _all(flags: Flags, axes: tuple[int, ...]) -> Flags:
    return np.asarray(flags.all(axis=axes, keepdims=True), dtype=bool)
