"""Layers that only move values: exact, in any arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corobench.benchmark.certify.checker.intervals import FLAT, Interval, Origin, Shape, crop
from corobench.benchmark.certify.checker.rounding import Array


class Reshape:
    """Each image's values in another shape; exact.

    Args:
        shape: of one image afterwards.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high, peak = (
            one.reshape(-1, *self.shape) for one in (given.low, given.high, given.reached)
        )
        return given.like(low, high, peak)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient.reshape(-1, *shape), FLAT


class Pick:
    """Some of the operand's values; exact: a slice, a transposition, or values repeated.

    Args:
        places: int, of the output's shape: which value of the flattened operand.
    """

    def __init__(self, places: np.ndarray) -> None:
        self.places = places
        self._repeats = len(np.unique(places)) < places.size

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high, peak = (
            one.reshape(len(one), -1)[:, self.places]
            for one in (given.low, given.high, given.reached)
        )
        return given.like(low, high, peak)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        found = np.zeros((len(coefficient), int(np.prod(shape))))
        rows = coefficient.reshape(len(coefficient), -1)
        if self._repeats:
            np.add.at(found.T, self.places.reshape(-1), rows.T)
        else:
            found[:, self.places.reshape(-1)] = rows
        return found.reshape(-1, *shape), FLAT


class Concat:
    """Operands side by side along one axis; exact.

    Args:
        axis: from 1, the batch being 0.
        shapes: of the operands, for one image.
    """

    def __init__(self, axis: int, shapes: Sequence[Shape]) -> None:
        self.axis = axis
        self.ends = np.cumsum([shape[axis - 1] for shape in shapes]).tolist()

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        low, high, peak = (
            np.concatenate([getattr(one, side) for one in operands], axis=self.axis)
            for side in ("low", "high", "reached")
        )
        most = max(one.num_terms for one in operands)
        weights = (
            min(one.weights[0] for one in operands),
            max(one.weights[1] for one in operands),
        )
        num_folds = max(one.num_folds for one in operands)
        factors = (
            min(one.factors[0] for one in operands),
            max(one.factors[1] for one in operands),
        )
        gain = max(one.gain for one in operands)
        return Interval(low, high, None, most, peak, weights, num_folds, factors, gain)

    def parts(self, coefficient: Array) -> list[Array]:
        """The rows of each operand."""
        return np.split(coefficient, self.ends[:-1], axis=self.axis)


class Pad:
    """A border of one value around a map; exact.

    Args:
        pads: top, left, bottom, right.
        value: of the border.
        channels: how many of that value come before and behind the map's own.
    """

    def __init__(
        self,
        pads: tuple[int, int, int, int],
        value: float,
        channels: tuple[int, int] = (0, 0),
    ) -> None:
        self.pads, self.value, self.channels = pads, value, channels

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        top, left, bottom, right = self.pads
        border = ((0, 0), self.channels, (top, bottom), (left, right))
        low, high = (
            np.pad(side, border, constant_values=self.value) for side in (given.low, given.high)
        )
        peak = np.pad(given.reached, border, constant_values=abs(self.value))
        return given.like(low, high, peak)

    def constant(self, shape: Shape) -> Array:
        """What the layer gives for an image of zeros of the shape `shape`."""
        zero = np.zeros((1, *shape))
        low: Array = self.bounds([Interval(zero, zero)]).low[0]
        return low

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        before = self.channels[0]
        own = coefficient[:, before : before + shape[0]]
        return crop(own, (origin[0] - self.pads[0], origin[1] - self.pads[1]), shape)
