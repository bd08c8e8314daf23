"""Nonlinear layers: intervals, and the two lines between which each value lies.

On an interval [l, u] every activation f has lines with

    low_slope z + low_offset <= f(z) <= high_slope z + high_offset      for l <= z <= u.

Offsets are rounded outward, so that the lines hold whatever the rounding of their slopes. The lines
of a ReLU are CROWN's (Zhang et al., NeurIPS 2018), its lower slope may be handed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from corobench.benchmark.certify.checker.intervals import (
    Interval,
    Origin,
    Shape,
    cut,
    spread_out,
    windows,
)
from corobench.benchmark.certify.checker.rounding import Array

_OUT = 2.0**-48
"""Relative error of a few float64 operations, with room."""


@dataclass
class Lines:
    """Slopes and offsets, each (B, ...) or broadcastable to it."""

    low_slope: Array
    low_offset: Array
    high_slope: Array
    high_offset: Array

    def window(self, origin: Origin, like: Shape) -> Lines:
        """The part that a window of coefficients covers."""
        return Lines(*(cut(part, origin, like) for part in vars(self).values()))


class Activation:
    """A nonlinear function of each value."""

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        """The interval of the output, and the noise of its rounding."""
        raise NotImplementedError

    def lines(self, given: Interval) -> Lines:
        """Lines over the interval of the operand."""
        raise NotImplementedError


class Relu(Activation):
    """max(z, 0): exact, and without noise where it is off."""

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        return Interval(np.maximum(given.low, 0.0), np.maximum(given.high, 0.0), None)

    def lines(self, given: Interval, low_slope: Array | None = None) -> Lines:
        """The lower line goes through 0; the upper one through both ends.

        Args:
            given: of the operand.
            low_slope: in [0, 1], used where the sign of the operand is open; CROWN's by default.
        """
        low, high = given.low, given.high
        is_on, is_off = low >= 0, high <= 0
        is_open = ~is_on & ~is_off
        width = np.where(is_open, high - low, 1.0)
        chord = np.where(is_open, np.minimum(high / width, 1.0), 1.0)
        # s l + t >= 0 and s u + t >= u make a line hold over [l, u], for relu is convex.
        offset = np.maximum(-chord * low, high - chord * high)
        offset = offset + np.abs(offset) * _OUT + np.maximum(-low, high) * _OUT
        if low_slope is None:
            low_slope = (high > -low).astype(np.float64)
        zero = np.zeros_like(low)
        return Lines(
            np.where(is_off, 0.0, np.where(is_on, 1.0, np.clip(low_slope, 0.0, 1.0))),
            zero,
            np.where(is_off, 0.0, chord),
            np.where(is_open, offset, 0.0),
        )


CURVE_ERROR = 2.0**-20
"""How far a float32 sigmoid, tanh or erf of a runtime may be from the exact one. Those of torch and
of onnxruntime stay within a few units of 2**-24."""


class Curve(Activation):
    """A sigmoid, tanh or erf: increasing, convex below 0 and concave above.

    Args:
        name: "sigmoid", "tanh" or "erf".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        functions: dict[str, Callable[[Array], Array]] = {
            "sigmoid": _sigmoid,
            "tanh": np.tanh,
            "erf": erf,
        }
        self._function = functions[name]

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high = self._function(given.low), self._function(given.high)
        noise = np.where(given.is_finite, CURVE_ERROR, np.inf)
        return Interval(low - noise, high + noise, noise)

    def lines(self, given: Interval) -> Lines:
        low, high = given.low, given.high
        f_low, f_high = self._function(low), self._function(high)
        width = high - low
        chord = np.where(width > 1e-9, (f_high - f_low) / np.where(width > 1e-9, width, 1.0), 0.0)
        middle = self._slope(0.5 * (low + high))
        safe = np.minimum(self._slope(low), self._slope(high))
        low_slope = np.where(low >= 0, chord, np.where(high <= 0, middle, safe))
        high_slope = np.where(high <= 0, chord, np.where(low >= 0, middle, safe))
        return Lines(
            low_slope,
            self._offset(low, high, low_slope, np.minimum),
            high_slope,
            self._offset(low, high, high_slope, np.maximum),
        )

    def _slope(self, z: Array) -> Array:
        if self.name == "erf":
            return _ERF_SLOPE * np.exp(-z * z)
        value = self._function(z)
        return 1.0 - value * value if self.name == "tanh" else value * (1.0 - value)

    def _offset(self, low: Array, high: Array, slope: Array, best: Callable[..., Array]) -> Array:
        """The extreme of f(z) - slope z: at an end, or where f has that slope."""
        if self.name == "tanh":
            place = np.arctanh(np.sqrt(np.clip(1.0 - slope, 0.0, 1.0 - 1e-16)))
        elif self.name == "erf":
            place = np.sqrt(-np.log(np.clip(slope / _ERF_SLOPE, 1e-300, 1.0)))
        else:
            root = np.sqrt(np.clip(1.0 - 4.0 * slope, 0.0, 1.0))
            place = np.log1p(root) - np.log(np.maximum(1.0 - root, 1e-300))
        found = best(self._function(low) - slope * low, self._function(high) - slope * high)
        for z in (np.clip(place, low, high), np.clip(-place, low, high)):
            found = best(found, self._function(z) - slope * z)
        error = 1e-12 * (1.0 + np.abs(slope) * np.maximum(np.abs(low), np.abs(high)))
        return found - error if best is np.minimum else found + error


erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])
_ERF_SLOPE = 2.0 / math.sqrt(math.pi)


def _sigmoid(z: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * z)


class Quantise(Activation):
    """Rounding to whole steps and back: (clip(round(z / s) + zero, low, high) - zero) s.

    It is increasing, so that it maps an interval to an interval. A runtime may divide by s or
    multiply by its reciprocal in float32; a value that this moves across a step counts as both. It
    may also add the zero point, or take the lower end of the range off, before it rounds (fbgemm,
    OpenVINO), and give code s - zero s, or code s + low end: what this loses grows with `offset`.

    Args:
        scale: s, positive, broadcastable to one image.
        zero: whole numbers, likewise.
        low: smallest whole number.
        high: largest whole number.
    """

    def __init__(self, scale: Array, zero: Array, low: int, high: int) -> None:
        self.scale, self.zero, self.low, self.high = scale, zero, low, high
        self.offset = np.maximum(np.abs(zero), np.abs(low - zero))

    def _step(self, z: Array, towards: float) -> Array:
        """The value of z, taken one rounding further down (-1) or up (+1)."""
        ratio = z / self.scale
        ratio = ratio + towards * ((np.abs(ratio) + self.offset) * 2.0**-20 + 2.0**-100)
        # Half a step rounds to even in one direction: both neighbours count.
        whole = np.ceil(ratio - 0.5) if towards < 0 else np.floor(ratio + 0.5)
        whole = np.clip(whole + self.zero, self.low, self.high) - self.zero
        return whole * self.scale

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high = self._step(given.low, -1.0), self._step(given.high, +1.0)
        size = np.maximum(np.abs(low), np.abs(high)) + self.offset * self.scale
        noise = np.where(self.offset > 0, 2.0**-21, 2.0**-22) * size
        noise = np.where(given.is_finite, noise, np.inf)
        return Interval(low - noise, high + noise, noise)

    def lines(self, given: Interval) -> Lines:
        """The staircase between two lines of slope 0 or 1, half a step apart from z or constant."""
        low, high = given.low, given.high
        bottom, top = self._step(low, -1.0), self._step(high, +1.0)
        most = (self.high - self.zero) * self.scale
        least = (self.low - self.zero) * self.scale
        far = np.maximum(np.abs(low), np.abs(high)) + self.offset * self.scale
        half = self.scale * (0.5 + 2.0**-40) + far * 2.0**-19
        is_wide = (high - low) > self.scale
        climbs_low = is_wide & (high <= most + 0.5 * self.scale)
        climbs_high = is_wide & (low >= least - 0.5 * self.scale)
        return Lines(
            climbs_low.astype(np.float64),
            np.where(climbs_low, -half, bottom),
            climbs_high.astype(np.float64),
            np.where(climbs_high, half, top),
        )


class MaxPool:
    """The largest value of every window of a map; exact.

    Args:
        kernel: height, width.
        stride: down, across.
        pads: top, left, bottom, right; padding is never the largest.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        pads: tuple[int, int, int, int],
    ) -> None:
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def _windows(self, x: Array) -> Array:
        """(B, C, h, w, places of the kernel)."""
        top, left, bottom, right = self.pads
        border = ((0, 0), (0, 0), (top, bottom), (left, right))
        padded = np.pad(x, border, constant_values=-np.inf)
        found = windows(padded, self.kernel, self.stride)
        return found.reshape(*found.shape[:4], -1)

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        return Interval(
            self._windows(given.low).max(axis=-1), self._windows(given.high).max(axis=-1), None
        )

    def choices(self, given: Interval) -> tuple[Array, Array, Array]:
        """The place with the largest lower bound, whether it beats all others, the largest value.

        Returns:
            int (B, C, h, w); bool alike; float64 alike, upper bounds of the output.
        """
        low, high = self._windows(given.low), self._windows(given.high)
        place = low.argmax(axis=-1)
        others = high.copy()
        np.put_along_axis(others, place[..., None], -np.inf, axis=-1)
        beats = low.max(axis=-1) >= others.max(axis=-1)
        return place, beats, high.max(axis=-1)

    def back(
        self, coefficient: Array, place: Array, origin: Origin, shape: Shape
    ) -> tuple[Array, Origin]:
        """Rows on the output as rows on the value at one place of each window."""
        width = self.kernel[1]
        parts = [
            [np.where(place == i * width + j, coefficient, 0.0) for j in range(width)]
            for i in range(self.kernel[0])
        ]
        return spread_out(parts, self.stride, self.pads, origin, shape)
