"""Bounds of neurons over the images of a box whose margin is at most a threshold.

Let g be a linear lower bound of a margin over some images of the box. Of these, only one with
g(x) <= t can have a margin of at most t. A neuron z with the linear lower bound r over the box is
there at least r(x) + gamma (g(x) - t), for any gamma >= 0: the bracket is not above 0. The smallest
value of that linear function over the box is a bound of z for all images that matter.

All values are those of a float32 deployment: r and g are less what rounding costs (`Line`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.intervals import Origin, cut
from corobench.benchmark.certify.checker.passes import Line
from corobench.benchmark.certify.checker.rounding import Array, sum_error

_VALUES_AT_ONCE = 2**20


def gamma_of(exponent: NDArray[np.uint8]) -> Array:
    """The multiplier that a byte stands for: 0, or 2**((e - 160) / 8).

    >>> gamma_of(np.array([0, 160, 168], dtype=np.uint8)).tolist()
    [0.0, 1.0, 2.0]
    """
    whole = exponent.astype(np.float64)
    return np.where(exponent > 0, np.exp2((whole - 160.0) / 8.0), 0.0)


@dataclass
class NeuronRows:
    """Linear lower bounds, over the box, of some neurons of a tree and of their negatives.

    Attributes:
        neurons: int (n,), which of the tree.
        row: float64 (2 n, k), coefficients of a window of the image, times the box's radius.
        origin: of the window.
        window: its shape, channels first.
        centre: float64 (2 n,), values at the centre, less what rounding costs.
    """

    neurons: NDArray[np.int64]
    row: Array
    origin: Origin
    window: tuple[int, ...]
    centre: Array

    @classmethod
    def of(cls, neurons: NDArray[np.int64], line: Line, radius: Array) -> NeuronRows:
        """Those of a backward pass from the neurons and their negatives.

        Args:
            neurons: int (n,).
            line: of 2 n rows of one image.
            radius: float64 (C, H, W), of the box.
        """
        rows = line.rows[0]
        scaled = rows * cut(radius, line.origin, rows.shape)
        return cls(
            neurons, scaled.reshape(len(rows), -1), line.origin, rows.shape[1:], line.centre_BR[0]
        )


class Constraint:
    """What g(x) <= t says, for R subdomains.

    Args:
        line: g, for R rows of one image.
        radius: float64 (C, H, W), of the box.
        threshold: t.
    """

    def __init__(self, line: Line, radius: Array, threshold: float) -> None:
        rows = line.rows[0]
        scaled = rows * cut(radius, line.origin, rows.shape)
        self._scaled = np.zeros((len(rows), *radius.shape))
        top, left = line.origin
        self._scaled[..., top : top + rows.shape[-2], left : left + rows.shape[-1]] = scaled
        self._gap = threshold - line.centre_BR[0]
        self._total = np.abs(scaled).sum(axis=(1, 2, 3))

    def bounds(self, given: NeuronRows, exponent: NDArray[np.uint8]) -> Array:
        """Lower bounds of neurons and of their negatives.

        Args:
            given: n neurons.
            exponent: uint8 (2 n, R), which multiplier.

        Returns:
            float64 (2 n, R); -inf where the multiplier is 0 or nothing finite is known.
        """
        found = np.full(exponent.shape, -np.inf)
        rows, columns = np.nonzero(exponent)
        if not len(rows):
            return found
        shape = (len(self._scaled), *given.window)
        window = np.ascontiguousarray(cut(self._scaled, given.origin, shape))
        window = window.reshape(len(window), -1)
        share = np.abs(window).sum(axis=1)
        gamma = gamma_of(exponent[rows, columns])
        size = np.empty(len(rows))
        step = max(1, _VALUES_AT_ONCE // max(1, window.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            both = window[columns[part]] * gamma[part, None]
            both += given.row[rows[part]]
            size[part] = np.abs(both, out=both).sum(axis=1)
        centre, gap = given.centre[rows], self._gap[columns]
        rest = gamma * (gap + self._total[columns] - share[columns])
        terms = np.abs(centre) + size + gamma * (np.abs(gap) + 2.0 * self._total[columns])
        own = np.abs(given.row).sum(axis=1)[rows]
        error = sum_error(4 * self._scaled[0].size) * (terms + own)
        bound = centre - size - rest - error
        found[rows, columns] = np.where(np.isfinite(bound), bound, -np.inf)
        return found
