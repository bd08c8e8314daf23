"""Affine layers that average: over windows of a map, and over axes.

Shape suffixes are those of `intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from corobench.benchmark.certify.checker.intervals import (
    FLAT,
    Origin,
    Shape,
    UncheckableError,
    cut,
    spread_out,
    windows,
)
from corobench.benchmark.certify.checker.layers import Affine, check_terms
from corobench.benchmark.certify.checker.rounding import Array


class AveragePool(Affine):
    """The mean of every window of a map.

    Args:
        kernel: height, width.
        stride: down, across.
        pads: top, left, bottom, right.
        counts_padding: whether padding counts in the divisor.
        shape: of the operand.
        beyond: what hangs over below and on the right, and counts nowhere.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        pads: tuple[int, int, int, int],
        counts_padding: bool,
        shape: Shape,
        beyond: tuple[int, int] = (0, 0),
    ) -> None:
        self.kernel, self.stride = kernel, stride
        self.pads = (pads[0], pads[1], pads[2] + beyond[0], pads[3] + beyond[1])
        self.bias = np.zeros(())
        self.divisor = float(kernel[0] * kernel[1])
        self.weights = (1.0 / self.divisor, 1.0)
        self.num_terms = np.full((), self.divisor + 2.0)
        self.reach = np.ones(())
        top, left, bottom, right = pads
        inside = np.pad(
            np.ones((1, 1, *shape[-2:])),
            ((0, 0), (0, 0), (top, bottom), (left, right)),
            constant_values=float(counts_padding),
        )
        inside = np.pad(inside, ((0, 0), (0, 0), (0, beyond[0]), (0, beyond[1])))
        num_counted = windows(inside, kernel, stride).sum(axis=(4, 5))[0]
        if (num_counted == 0).any():
            raise UncheckableError("average pooling of a window that counts nothing")
        self._share = 1.0 / num_counted

    def linear(self, x: Array) -> Array:
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        mean: Array = windows(padded, self.kernel, self.stride).sum(axis=(4, 5)) * self._share
        return mean

    def absolute(self, x: Array) -> Array:
        return self.linear(x)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        shared = coefficient * cut(self._share, origin, coefficient.shape)
        return spread_out(
            [[shared] * self.kernel[1]] * self.kernel[0], self.stride, self.pads, origin, shape
        )


@dataclass
class Mean(Affine):
    """The mean over axes of one image, as `mean` or a global pooling gives it, or the sum.

    Attributes:
        axes: from 1, the batch being 0.
        keep: whether the axes stay with size 1.
        shape: of the operand.
        is_mean: False for the sum.
    """

    axes: tuple[int, ...]
    keep: bool
    shape: Shape
    is_mean: bool = True
    bias: Array = field(default_factory=lambda: np.zeros(()))
    reach: Array = field(default_factory=lambda: np.ones(()))

    def __post_init__(self) -> None:
        num = float(np.prod([self.shape[axis - 1] for axis in self.axes]))
        self.divisor = num if self.is_mean else 1.0
        self.reach = np.full((), num / self.divisor)
        self.num_terms = np.full((), num + 2.0)
        self.weights = (1.0 / self.divisor, 1.0)
        check_terms(self.num_terms)

    def linear(self, x: Array) -> Array:
        mean: Array = x.sum(axis=self.axes, keepdims=self.keep) / self.divisor
        return mean

    def absolute(self, x: Array) -> Array:
        return self.linear(x)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        kept = [1 if axis + 1 in self.axes else size for axis, size in enumerate(shape)]
        share = coefficient.reshape(len(coefficient), *kept) / self.divisor
        return np.broadcast_to(share, (len(coefficient), *shape)).copy(), FLAT
