"""Intervals of values, and windows of maps.

Shape suffixes: B images, R rows of coefficients, C channels, H and W height and width. An array of
coefficients belongs to a *window* of a map: `origin` is the place (top, left) of its first value.
Arrays without height and width have the origin (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.rounding import Array

Origin = tuple[int, int]
Shape = tuple[int, ...]
FLAT: Origin = (0, 0)


class UncheckableError(Exception):
    """The checker does not know an operator, or a use of it."""


@dataclass
class Interval:
    """Bounds of what a step gives, for B images.

    Attributes:
        low: float64 (B, ...), lower bounds in the deployed network.
        high: float64 like `low`.
        noise: float64 like `low`, bounds of the rounding that this step adds; 0 where it is exact.
        num_terms: of the sum that gave the values. What is added or multiplied right behind it may
            be folded into that sum, and is then rounded as often as any of its terms.
        peak: float64 like `low`, what partial sums of it may reach; the values' size by default.
        weights: the smallest weight of that sum that is not zero, and the largest, in absolute
            value, times the factors behind it that make it smaller, or larger: what a further
            factor may be folded into.
        num_folds: how many factors and summands behind that sum may be folded into it so far.
        factors: the smallest and the largest product of some of the absolute factors that the
            values were multiplied by right before, 1 included: a deployment may multiply the next
            sum by it instead, or fold it into that sum's weights.
        gain: the largest such product before the sum that gave the values: what a deployment may
            multiply by behind them, after it flushed them to zero.
    """

    low: Array
    high: Array
    noise: Array | None = None
    num_terms: float = 1.0
    peak: Array | None = None
    weights: tuple[float, float] = (1.0, 1.0)
    num_folds: int = 0
    factors: tuple[float, float] = (1.0, 1.0)
    gain: float = 1.0

    @property
    def size(self) -> Array:
        """Bounds of the absolute values."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def reached(self) -> Array:
        """What the values and partial sums of them may reach."""
        return self.size if self.peak is None else np.maximum(self.peak, self.size)

    @property
    def is_finite(self) -> NDArray[np.bool_]:
        """Where a deployed value is a number: one that may overflow may be none, which no function
        of a bounded range mends."""
        return np.isfinite(self.low) & np.isfinite(self.high)

    def like(self, low: Array, high: Array, peak: Array | None) -> Interval:
        """Values that an exact step takes from these."""
        return replace(self, low=low, high=high, noise=None, peak=peak)


def windows(
    x: Array, kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Array:
    """Every window of a map: a view (N, C, height, width, kernel height, kernel width)."""
    num, channels, height, width = x.shape
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    out = [(size - r) // s + 1 for size, r, s in zip((height, width), reach, stride, strict=True)]
    steps = x.strides
    return as_strided(
        x,
        (num, channels, out[0], out[1], kernel[0], kernel[1]),
        (
            steps[0],
            steps[1],
            steps[2] * stride[0],
            steps[3] * stride[1],
            steps[2] * dilation[0],
            steps[3] * dilation[1],
        ),
        writeable=False,
    )


def crop(window: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
    """The part of a window (..., h, w) that lies on the map: what hangs over is padding."""
    top, left = max(0, -origin[0]), max(0, -origin[1])
    height = max(0, min(window.shape[-2], shape[-2] - origin[0]))
    width = max(0, min(window.shape[-1], shape[-1] - origin[1]))
    return window[..., top:height, left:width], (origin[0] + top, origin[1] + left)


def cut(full: Array, origin: Origin, like: Shape) -> Array:
    """The part of an array (..., H, W) that a window of the shape `like` covers.

    Sizes of 1, which broadcast, stay, and so do single numbers. One axis alone is the width.
    """
    if full.ndim == 1 and len(like) >= 4:
        full = full[None]
    if full.ndim < 2 or len(like) < 4 or full.shape[-2:] == tuple(like[-2:]):
        return full
    rows = slice(None) if full.shape[-2] == 1 else slice(origin[0], origin[0] + like[-2])
    columns = slice(None) if full.shape[-1] == 1 else slice(origin[1], origin[1] + like[-1])
    return full[..., rows, columns]


def whole(window: Array, origin: Origin, shape: Shape) -> Array:
    """A window (N, ...) put on the whole value of the shape `shape`, zeros elsewhere."""
    if tuple(window.shape[1:]) == tuple(shape):
        return window
    found = np.zeros((len(window), *shape))
    top, left = origin
    found[..., top : top + window.shape[-2], left : left + window.shape[-1]] = window
    return found


def spread_out(
    parts: Sequence[Sequence[Array]],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    origin: Origin,
    shape: Shape,
) -> tuple[Array, Origin]:
    """Rows on windows as rows on the map they are taken from.

    Args:
        parts: for each place of the kernel what its value counts, (N, C, h, w).
        stride: down, across.
        pads: top, left, bottom, right.
        origin: of the rows on the output.
        shape: of the map.
    """
    num, channels, height, width = parts[0][0].shape
    down, across = stride
    found = np.zeros(
        (
            num,
            channels,
            (height - 1) * down + len(parts),
            (width - 1) * across + len(parts[0]),
        )
    )
    for i, line in enumerate(parts):
        for j, part in enumerate(line):
            found[
                :,
                :,
                i : i + (height - 1) * down + 1 : down,
                j : j + (width - 1) * across + 1 : across,
            ] += part
    return crop(found, (origin[0] * down - pads[0], origin[1] * across - pads[1]), shape)
