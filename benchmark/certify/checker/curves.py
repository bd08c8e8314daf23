"""Smooth activations that are no sigmoid: SiLU, GELU, Mish, Softplus, ELU and their kin.

**Intervals.** Each either rises everywhere, or falls to one least value and rises from there. Its
place is known to some digits; around it a bound of the second derivative says how much lower than
at that place the function can be, which is nothing that float64 sees.

**Lines.** For a slope s, the offset is the least or largest value of g(z) = f(z) - s z on [l, u].
It is taken at the ends of N equal pieces of width w. Between two of them, a function whose second
derivative is at most M in size, and whose first one jumps by at most J, lies at most M w**2 / 8 +
J w / 4 beyond the line through them; so that much is added. Any slope gives valid lines. Of a few,
the one is taken whose line is tightest at the middle.

**Deployments** compute these from exponentials, erf, tanh and logarithms that are assumed to be
within `CURVE_ERROR`, absolutely or relative to what they give, in at most three steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from corobench.benchmark.certify.checker.activations import CURVE_ERROR, Activation, Lines, erf
from corobench.benchmark.certify.checker.intervals import Interval
from corobench.benchmark.certify.checker.rounding import LARGEST, SMALLEST, Array

_PIECES = 32

_FLOAT64 = 2.0**-44
"""Error of these functions in float64, per unit of 1 + |z|: far above that of any library."""


def _sigmoid(z: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * z)


def _softplus(z: Array) -> Array:
    return np.logaddexp(z, 0.0)


@dataclass(frozen=True)
class Curvature:
    """What is known of a function.

    Attributes:
        value: the function, in float64.
        bend: M, a bound of its second derivative's size.
        lowest: where it is least; None where it rises everywhere.
        jump: J, a bound of the jumps of its first derivative.
        scale: what the error of a deployment is relative to, beside |z|.
        factor: what a deployment may multiply z by on the way, such as 1 / alpha.
    """

    value: Callable[[Array], Array]
    bend: float
    lowest: float | None = None
    jump: float = 0.0
    scale: float = 1.0
    factor: float = 8.0


def _gelu(z: Array) -> Array:
    return 0.5 * z * (1.0 + erf(z / math.sqrt(2.0)))


def _gelu_tanh(z: Array) -> Array:
    return 0.5 * z * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))


def _exponential(z: Array, alpha: float, scale: float, width: float) -> Array:
    below = alpha * np.expm1(np.minimum(z, 0.0) / width)
    return scale * np.where(z > 0, z, below)


def elu(alpha: float) -> Curvature:
    """z above 0, alpha (exp(z) - 1) below.

    With alpha below 0 it falls from -alpha to 0 at 0, and rises from there.
    """
    lowest = 0.0 if alpha < 0 else None
    size = abs(alpha)
    return Curvature(
        lambda z: _exponential(z, alpha, 1.0, 1.0), size, lowest, abs(1.0 - alpha), 1.0 + size
    )


def celu(alpha: float) -> Curvature:
    """z above 0, alpha (exp(z / alpha) - 1) below; alpha above 0.

    ONNX defines it as alpha elu(z / alpha), of which z / alpha may be no float32.
    """
    return Curvature(
        lambda z: _exponential(z, alpha, 1.0, alpha),
        1.0 / alpha,
        None,
        0.0,
        1.0 + alpha,
        max(8.0, 1.0 / alpha),
    )


def softplus(beta: float) -> Curvature:
    """log(1 + exp(beta z)) / beta; beta above 0. A threshold of 20 or more changes it by 2**-28,
    and one of 80 or less keeps the exponential finite."""
    return Curvature(lambda z: _softplus(beta * z) / beta, 0.25 * beta, scale=1.0 + 1.0 / beta)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

CURVES: dict[str, Curvature] = {
    "gelu": Curvature(_gelu, 0.8, -0.7517915247),
    "gelu_tanh": Curvature(_gelu_tanh, 0.82, -0.7524614220),
    "hardswish": Curvature(lambda z: z * np.clip(z + 3.0, 0.0, 6.0) / 6.0, 1 / 3, -1.5, 0.5),
    "mish": Curvature(lambda z: z * np.tanh(_softplus(z)), 0.7, -1.1924312145),
    "selu": Curvature(
        lambda z: _exponential(z, SELU_ALPHA, SELU_SCALE, 1.0), 1.76, None, 0.71, 3.0
    ),
    "softsign": Curvature(lambda z: z / (1.0 + np.abs(z)), 2.0),
    "silu": Curvature(lambda z: z * _sigmoid(z), 0.5, -1.2784645428),
}
"""Name -> the function."""


class Smooth(Activation):
    """A function of which a bound of the second derivative is known.

    Args:
        known: what is known of it.
    """

    def __init__(self, known: Curvature) -> None:
        self.known = known

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high = self._range(given)
        noise = 4.0 * CURVE_ERROR * (self.known.scale + given.size) + 8.0 * SMALLEST
        # On the way a deployment may compute 6 z, or 4 z.
        is_known = given.is_finite & (self.known.factor * given.size < LARGEST)
        noise = np.where(is_known, noise, np.inf)
        low, high = (
            np.where(is_known, low - noise, -np.inf),
            np.where(is_known, high + noise, np.inf),
        )
        return Interval(low, high, noise)

    def _range(self, given: Interval) -> tuple[Array, Array]:
        """The least and the largest value, less and more what float64 loses."""
        value = self.known.value
        f_low, f_high = value(given.low), value(given.high)
        least = f_low
        if self.known.lowest is not None:
            least = value(np.clip(self.known.lowest, given.low, given.high))
        error = _FLOAT64 * (self.known.scale + given.size)
        return least - error, np.maximum(f_low, f_high) + error

    def lines(self, given: Interval) -> Lines:
        low, high = given.low, given.high
        width = (high - low) / _PIECES
        steps = np.arange(_PIECES + 1).reshape(-1, *[1] * low.ndim)
        z = np.minimum(low + steps * width, high)
        f = self.known.value(z)
        beyond = (self.known.bend * width / 8.0 + self.known.jump / 4.0) * width
        safe = np.where(width > 0, width, 1.0)
        middle, last = _PIECES // 2, _PIECES
        slopes = [
            np.where(width > 0, (f[after] - f[before]) / ((after - before) * safe), 0.0)
            for before, after in ((0, last), (0, 1), (middle - 1, middle + 1), (last - 1, last))
        ]
        error = _FLOAT64 * (self.known.scale + given.size)
        flat = np.zeros_like(low)
        least, most = self._range(given)
        below, above = (flat, least), (flat, most)
        centre = z[middle]
        for slope in slopes:
            gap = f - slope * z
            lost = beyond + error * (1.0 + np.abs(slope))
            below = _better(below, (slope, gap.min(axis=0) - lost), centre, 1.0)
            above = _better(above, (slope, gap.max(axis=0) + lost), centre, -1.0)
        return Lines(*below, *above)


Line = tuple[Array, Array]


def _better(first: Line, second: Line, centre: Array, sign: float) -> Line:
    """Slope and offset of the line that is higher at the centre, or lower where the sign is -1."""
    gain = sign * ((second[0] - first[0]) * centre + second[1] - first[1])
    is_second = gain > 0
    return np.where(is_second, second[0], first[0]), np.where(is_second, second[1], first[1])
