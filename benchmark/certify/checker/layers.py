"""Affine layers: what they do to intervals, and to rows of coefficients on the way back.

Shape suffixes are those of `intervals`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corobench.benchmark.certify.checker.intervals import (
    FLAT,
    Interval,
    Origin,
    Shape,
    UncheckableError,
    crop,
    cut,
    windows,
)
from corobench.benchmark.certify.checker.rounding import (
    FREE_FOLDS,
    LARGEST,
    MAX_TERMS,
    SLACK,
    SMALLEST,
    Array,
    centre,
    gamma,
    noise_of,
)


class Affine:
    """A layer that is affine in its operands; subclasses give the linear part.

    Attributes:
        bias: float64, broadcastable to one image's output.
        num_terms: terms of each sum that are not zero, broadcastable.
        reach: sum of the absolute weights of each sum, broadcastable.
        weights: the smallest absolute weight that is not zero, and the largest.
        divisor: what a sum is divided by after it was added up.
    """

    bias: Array
    num_terms: Array
    reach: Array
    weights: tuple[float, float] = (1.0, 1.0)
    divisor: float = 1.0

    def linear(self, x: Array) -> Array:
        """W x for (N, ...)."""
        raise NotImplementedError

    def absolute(self, x: Array) -> Array:
        """|W| x for (N, ...)."""
        raise NotImplementedError

    def lost_if_flushed(self, size: Array, factor: float) -> Array | float:
        """What weights contribute at most that are below `SMALLEST`, or are so times a factor."""
        return self.absolute(size) if self.weights[0] * factor < SMALLEST else 0.0

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        """Rows (N, ...) on the output as rows on the operand, of the shape `shape`."""
        raise NotImplementedError

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        """The interval of the output, and the noise of its rounding."""
        (given,) = operands
        mid, rad = centre(given.low, given.high)
        spread = self.absolute(rad)
        size = self.absolute(np.abs(mid)) + spread + np.abs(self.bias)
        # A factor before the sum may be multiplied with the sum instead, or with its weights.
        least_factor, most_factor = given.factors
        flushed = 2.0 * SMALLEST * (self.reach + 4.0 * self.num_terms + 8.0) * most_factor
        # What was added behind the factor may cancel what was multiplied: the operand is small, but
        # not what meets such weights.
        is_moved = given.factors != (1.0, 1.0)
        moved = given.reached if is_moved else given.size
        lost = self.lost_if_flushed(moved, least_factor)
        noise = noise_of(size, self.num_terms, flushed + lost)
        # A sum without terms and bias is 0 in every deployment, whatever is folded into it.
        noise = np.where((self.num_terms == 0) & (self.bias == 0), 0.0, noise)
        middle = self.linear(mid) + self.bias
        most = float(np.max(self.num_terms, initial=1.0)) + 1.0
        peak = self.absolute(moved) + np.abs(self.bias) if is_moved else size
        peak = peak * self.divisor
        is_safe = (peak < LARGEST * least_factor) & (self.weights[1] * most_factor < LARGEST)
        noise = np.where(is_safe, noise, np.inf)
        low, high = middle - spread - noise, middle + spread + noise
        # Factors behind it may be multiplied with each other before they meet the weights, which
        # may hold the factor before the sum by then.
        weights = (
            min(self.weights[0] * least_factor, 1.0),
            max(self.weights[1] * most_factor, 1.0),
        )
        return Interval(low, high, noise, most, peak, weights, gain=most_factor)


def check_terms(num_terms: Array) -> None:
    if num_terms.size and num_terms.max() > MAX_TERMS:
        raise UncheckableError(f"a sum of more than {MAX_TERMS} terms")


_PRODUCT_BYTES = 2**21


def _extremes(weight: Array) -> tuple[float, float]:
    """The smallest absolute value that is not zero, and the largest; 1 where there is none."""
    size = np.abs(weight[weight != 0])
    return (float(size.min()), float(size.max())) if size.size else (1.0, 1.0)


def _tiny(weight: Array, factor: float = 1.0) -> Array | None:
    """The absolute weights that a deployment may flush to zero, itself or times a factor of at most
    1; None where there are none."""
    size = np.abs(weight)
    is_tiny = (size > 0) & (size * factor < SMALLEST)
    return np.where(is_tiny, size, 0.0) if is_tiny.any() else None


class Linear(Affine):
    """x W.T + b.

    Args:
        weight: (out, in).
        bias: (out,).
    """

    def __init__(self, weight: Array, bias: Array) -> None:
        self.weight, self.bias = weight, bias
        self._size, self.weights = np.abs(weight), _extremes(weight)
        self.num_terms = np.count_nonzero(weight, axis=1).astype(np.float64)
        check_terms(self.num_terms)
        self.reach = self._size.sum(axis=1)

    def linear(self, x: Array) -> Array:
        return x @ self.weight.T

    def absolute(self, x: Array) -> Array:
        return x @ self._size.T

    def lost_if_flushed(self, size: Array, factor: float) -> Array | float:
        if self.weights[0] * factor >= SMALLEST:
            return 0.0
        tiny = _tiny(self.weight, factor)
        return 0.0 if tiny is None else size @ tiny.T

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient @ self.weight, FLAT


class Conv(Affine):
    """A convolution of maps (C, H, W) with zero padding.

    Args:
        weight: (out, in / groups, kernel height, kernel width).
        bias: (out,).
        stride: down, across.
        pads: top, left, bottom, right.
        dilation: down, across.
        groups: of channels.
    """

    def __init__(
        self,
        weight: Array,
        bias: Array,
        stride: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> None:
        self.weight, self.stride, self.pads = weight, stride, pads
        self.dilation, self.groups = dilation, groups
        self.bias = bias[:, None, None]
        self._size, self.weights = np.abs(weight), _extremes(weight)
        self.num_terms = np.count_nonzero(weight, axis=(1, 2, 3))[:, None, None].astype(np.float64)
        check_terms(self.num_terms)
        self.reach = self._size.sum(axis=(1, 2, 3))[:, None, None]

    def linear(self, x: Array) -> Array:
        return self._convolve(x, self.weight)

    def absolute(self, x: Array) -> Array:
        return self._convolve(x, self._size)

    def lost_if_flushed(self, size: Array, factor: float) -> Array | float:
        if self.weights[0] * factor >= SMALLEST:
            return 0.0
        tiny = _tiny(self.weight, factor)
        return 0.0 if tiny is None else self._convolve(size, tiny)

    def _convolve(self, x: Array, weight: Array) -> Array:
        top, left, bottom, right = self.pads
        patches = windows(
            np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))),
            weight.shape[2:],
            self.stride,
            self.dilation,
        )
        num, _, height, width = patches.shape[:4]
        out, per_group = len(weight) // self.groups, weight.shape[1]
        parts = []
        for group in range(self.groups):
            channels = slice(group * per_group, (group + 1) * per_group)
            columns = patches[:, channels].transpose(0, 2, 3, 1, 4, 5)
            columns = columns.reshape(num * height * width, -1)
            rows = weight[group * out : (group + 1) * out].reshape(out, -1)
            parts.append((columns @ rows.T).reshape(num, height, width, out))
        return np.ascontiguousarray(np.concatenate(parts, axis=3).transpose(0, 3, 1, 2))

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        num, _, height, width = coefficient.shape
        down, across = self.stride
        step_down, step_across = self.dilation
        out, per_group, kernel_height, kernel_width = self.weight.shape
        # Rows go last in memory, where they are many and the rest of a window is small.
        found = np.zeros(
            (
                per_group * self.groups,
                (height - 1) * down + (kernel_height - 1) * step_down + 1,
                (width - 1) * across + (kernel_width - 1) * step_across + 1,
                num,
            )
        )
        last = coefficient.transpose(1, 2, 3, 0)
        per_out = out // self.groups
        # So many lines of a map at a time that products are still in the cache when they are added.
        line_bytes = max(1, self.weight[:per_out].nbytes // per_out * width * num)
        lines = max(1, _PRODUCT_BYTES // line_bytes)
        for group in range(self.groups):
            outputs = slice(group * per_out, (group + 1) * per_out)
            weight = self.weight[outputs].transpose(2, 3, 1, 0).reshape(-1, per_out)
            into = found[group * per_group : (group + 1) * per_group]
            for first in range(0, height, lines):
                given = last[outputs, first : first + lines]
                spread = (weight @ given.reshape(per_out, -1)).reshape(
                    kernel_height, kernel_width, per_group, -1, width, num
                )
                more = (spread.shape[3] - 1) * down + 1
                for i in range(kernel_height):
                    for j in range(kernel_width):
                        top, left = first * down + i * step_down, j * step_across
                        into[
                            :,
                            top : top + more : down,
                            left : left + (width - 1) * across + 1 : across,
                        ] += spread[i, j]
        place = (origin[0] * down - self.pads[0], origin[1] * across - self.pads[1])
        return crop(found.transpose(3, 0, 1, 2), place, shape)


class Scale(Affine):
    """x scale + shift, value by value: a batch-norm, a normalisation, a stored factor or summand.

    Args:
        scale: broadcastable to one image.
        shift: likewise.
        parts: likewise, sum of the absolute values that `shift` is computed from.
        inside: likewise, the largest factor on the way, such as 1 / sqrt(variance).
        before: likewise, the largest summand before a factor, such as the mean.
    """

    def __init__(
        self,
        scale: Array,
        shift: Array,
        parts: Array | None = None,
        inside: Array | None = None,
        before: Array | None = None,
    ) -> None:
        self.scale, self.bias = scale, shift
        self._parts = np.abs(shift) if parts is None else parts
        self._inside = np.abs(scale) if inside is None else np.maximum(np.abs(scale), inside)
        self._before = np.zeros(()) if before is None else np.abs(before)
        self.num_terms = np.ones(())
        self.reach = 2.0 * self._inside + 2.0

    def linear(self, x: Array) -> Array:
        return x * self.scale

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        mid, rad = centre(given.low, given.high)
        spread = np.abs(self.scale) * rad
        size = np.abs(self.scale) * (np.abs(mid) + rad) + self._parts
        # Folded into the weights before it, each product of that sum may be flushed.
        flushed = 2.0 * SMALLEST * (self.reach + 4.0 * given.num_terms + 16.0) * given.gain
        tiny = _tiny(np.broadcast_to(self.scale, given.low.shape[1:]))
        if tiny is not None:  # it is lost on the mean as well, whose product is in the shift
            flushed = flushed + tiny * (given.size + self._before)
        noise = noise_of(size, given.num_terms, flushed)
        on_the_way = (given.reached + self._before) * np.maximum(self._inside, 1.0) + self._parts
        # Folded into the weights before it, the factor may flush them to zero, or overflow.
        factor = np.abs(self.scale)
        is_lost = (factor != 0) & (factor * given.weights[0] < SMALLEST)
        folded = factor * (given.reached + self._before)
        noise = noise + np.where(is_lost, folded, 0.0)
        if given.num_folds >= FREE_FOLDS:
            noise = noise + gamma(2) * SLACK * folded
        noise = np.where((factor == 0) & (self._parts == 0), 0.0, noise)  # a pruned channel
        is_safe = (on_the_way < LARGEST) & (factor * given.weights[1] < LARGEST)
        noise = np.where(is_safe, noise, np.inf)
        middle = mid * self.scale + self.bias
        low, high = middle - spread - noise, middle + spread + noise
        least, most = _extremes(factor)
        # Any of the factors may be taken together, and others be left where they are.
        least, most = min(least, 1.0), max(most, 1.0)
        weights = (least * given.weights[0], most * given.weights[1])
        factors = (least * given.factors[0], most * given.factors[1])
        num_terms, num_folds = given.num_terms + 1.0, given.num_folds + 1
        about = num_terms, on_the_way, weights, num_folds, factors, given.gain
        return Interval(low, high, noise, *about)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient * cut(self.scale, origin, coefficient.shape), origin


class Add(Affine):
    """The sum of two operands of equal shape."""

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        first, second = operands
        num_terms = first.num_terms + second.num_terms
        gain = max(first.gain, second.gain)
        noise = noise_of(first.size + second.size, num_terms, 8.0 * SMALLEST * gain)
        # As one sum, the terms of each are rounded as often more as the other has terms.
        mixed = gamma(second.num_terms) * first.reached + gamma(first.num_terms) * second.reached
        noise = noise + SLACK * mixed
        peak = first.reached + second.reached
        noise = np.where(peak < LARGEST, noise, np.inf)
        low, high = first.low + second.low - noise, first.high + second.high + noise
        weights = (
            min(first.weights[0], second.weights[0]),
            max(first.weights[1], second.weights[1]),
        )
        num_folds = max(first.num_folds, second.num_folds) + 1
        return Interval(low, high, noise, num_terms, peak, weights, num_folds, gain=gain)
