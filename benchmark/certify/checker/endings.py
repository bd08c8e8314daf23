"""A last LogSoftmax: taken off for margins, which it only rounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corobench.benchmark.certify.checker.boxed import EXP_ERROR
from corobench.benchmark.certify.checker.intervals import FLAT, Interval, Origin, Shape
from corobench.benchmark.certify.checker.layers import Affine
from corobench.benchmark.certify.checker.rounding import LARGEST, SLACK, SMALLEST, Array, gamma


class LogSoftmax(Affine):
    """z - log sum exp z over the K values of one row.

    **Margins.** Whatever number a deployment subtracts, it is the same for all values of an image:
    it cancels in every difference, however wrong it is. What is left is the rounding of the
    subtractions, (z - max) - l, (z - l) - max or z - (max + l), with l the computed logarithm of
    sum exp(z - max), in [0, log K]. Each is two roundings of numbers of at most 2 max |z| + log K +
    1, so that a value is off by at most gamma(3) of that. Two logits that differ by less than this
    may become equal in float32, and a tie is wrong: that is charged to both as noise.

    So rows of coefficients that sum to 0 pass as they are, with that noise. Other rows prove
    nothing here.

    **Intervals** hold the values themselves: each rises in its own z and falls in the others. The
    error of the logarithm counts here: that of its sum, relative, and its own.
    """

    bias = np.zeros(())

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        num = given.low.shape[-1]
        size = 2.0 * given.size.max(axis=-1, keepdims=True) + np.log(num) + 1.0
        noise = np.broadcast_to(gamma(3.0) * size * SLACK + 8.0 * SMALLEST, given.low.shape)
        is_known = (given.is_finite & (size < LARGEST)).all(axis=-1, keepdims=True)
        noise = np.where(is_known, noise, np.inf)
        of_log = 2.0 * EXP_ERROR + gamma(num + 8.0) + gamma(4.0) * size
        low = _off(given.low, given.high) - noise - of_log
        high = _off(given.high, given.low) + noise + of_log
        low, high = np.where(is_known, low, -np.inf), np.where(is_known, high, np.inf)
        return Interval(low, high, noise)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        is_difference = coefficient.sum(axis=-1, keepdims=True) == 0
        return np.where(is_difference, coefficient, np.nan), FLAT


def _off(own: Array, others: Array) -> Array:
    """own_i - log(exp(own_i) + sum over j != i of exp(others_j))."""
    gaps = others[..., None, :] - own[..., :, None]
    gaps = np.where(np.eye(gaps.shape[-1], dtype=bool), 0.0, gaps)
    found: Array = -np.logaddexp.reduce(gaps, axis=-1)
    return found
