"""Numbers that a runtime takes for others.

onnxruntime makes a GELU of z (1 + erf(z / sqrt(2))) / 2 and of its form with tanh, wherever the
stored numbers are within a hundred thousandth of those of the function: it computes with its own.
That is more than the rounding of one operator, so such numbers are refused, unless they are the
nearest ones or next to them. Where a number is far from all of them, nothing is rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from corobench.benchmark.certify.checker.activations import Curve
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.layers import Scale
from corobench.benchmark.certify.checker.network import Step
from corobench.benchmark.certify.checker.rounding import Array

_FACTORS = (0.5, math.sqrt(0.5), 0.044715, math.sqrt(2.0 / math.pi))
_SUMMANDS = (1.0,)

_SAME = 2.0**-22
"""Relative difference that `CURVE_ERROR` pays for."""

_TAKEN = 2.0**-15
"""Relative difference up to which a runtime may take a number for another one."""


def refuse_nearly_gelu(steps: Sequence[Step]) -> None:
    """Refuse a network with an erf or a tanh, and with a number that is nearly one of a GELU's.

    Raises:
        UncheckableError: names the number.
    """
    if not any(isinstance(s.layer, Curve) and s.layer.name in ("erf", "tanh") for s in steps):
        return
    for step in steps:
        if isinstance(step.layer, Scale):
            _refuse_nearly(step.layer.scale, _FACTORS)
            _refuse_nearly(step.layer.bias, _SUMMANDS)


def _refuse_nearly(number: Array, known: Sequence[float]) -> None:
    if number.size != 1:
        return
    value = float(number.item())
    for one in known:
        if _SAME < abs(value / one - 1.0) < _TAKEN:
            raise UncheckableError(f"a number {value:.9g} that a runtime takes for {one:.9g}")
