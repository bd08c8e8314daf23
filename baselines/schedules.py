"""What changes during training, as pure functions of how far it has come.

Nothing here holds state: a resumed run asks for the same step and gets the same number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

LrName = Literal["constant", "cosine", "steps"]
Cumulative = Literal["linear", "geometric", "harmonic"]
RampShape = Literal["linear", "smooth"]

_SMOOTH_UNTIL, _POWER = 0.25, 4


def lr_factor(name: LrName, progress: float, milestones: Sequence[float], factor: float) -> float:
    """Learning rate relative to its start.

    Args:
        name: "constant"; "cosine" from 1 to 0; "steps" multiplies by `factor` at each milestone.
        progress: share of the stage's steps already taken, in [0, 1).
        milestones: shares of the stage, ascending, in [0, 1].
        factor: of one milestone.

    >>> [lr_factor("steps", p, (0.5, 0.75), 0.1) for p in (0.0, 0.5)]
    [1.0, 0.1]
    >>> lr_factor("cosine", 0.5, (), 0.1)
    0.5
    """
    if name == "cosine":
        return round(0.5 * (1.0 + math.cos(math.pi * progress)), 12)
    if name == "steps":
        return float(factor ** sum(progress >= milestone for milestone in milestones))
    return 1.0


def ramp(
    epoch: float, warmup_epochs: float, ramp_epochs: float, shape: RampShape = "linear"
) -> float:
    """Share of the radius in use: 0 while warming up, then up to 1.

    Args:
        epoch: epochs done, with the fraction of the current one.
        shape: "linear", or "smooth": a power of 4 for the first quarter of the ramp, and then the
            line to 1 that touches it there. This is how Xu et al. 2020 and those after them
            (Shi et al. 2021, MTL-IBP) grow the radius.

    >>> [ramp(epoch, 1, 4) for epoch in (0.5, 3, 5, 9)]
    [0.0, 0.5, 1.0, 1.0]
    >>> [round(ramp(epoch, 1, 4, "smooth"), 4) for epoch in (1.5, 2, 3.5, 5)]
    [0.0048, 0.0769, 0.5385, 1.0]
    """
    if epoch < warmup_epochs:
        return 0.0
    if ramp_epochs == 0:
        return 1.0
    share = min(1.0, (epoch - warmup_epochs) / ramp_epochs)
    if shape == "linear":
        return share
    # In units of the ramp: a * share ** 4 up to the quarter, with the slope of the line behind it.
    line = 1.0 - _SMOOTH_UNTIL
    scale = 1.0 / (_SMOOTH_UNTIL**_POWER + line * _POWER * _SMOOTH_UNTIL ** (_POWER - 1))
    if share < _SMOOTH_UNTIL:
        return float(scale * share**_POWER)
    middle = scale * _SMOOTH_UNTIL**_POWER
    return float(min(1.0, middle + (1.0 - middle) * (share - _SMOOTH_UNTIL) / line))


def between(start: float, end: float, progress: float) -> float:
    """Linear interpolation: `start` at progress 0, `end` at 1."""
    return start + (end - start) * progress


def keep_ratios(keep_ratio: float, num_steps: int, cumulative: Cumulative) -> tuple[float, ...]:
    """Kept share after each pruning round; the last one is `keep_ratio` itself.

    Args:
        keep_ratio: kept share at the end, in (0, 1].
        num_steps: rounds; 1 is one-shot.
        cumulative: how the removed share grows: "linear" by equal shares of all weights,
            "geometric" by equal shares of what is left, "harmonic" in proportion to i / (i + 10)
            for round i (the paper's line of code).

    >>> keep_ratios(0.25, 2, "geometric")
    (0.5, 0.25)
    >>> keep_ratios(0.1, 2, "linear")
    (0.55, 0.1)
    """

    def kept(step: int) -> float:
        if step == num_steps:
            return keep_ratio
        if cumulative == "geometric":
            return float(keep_ratio ** (step / num_steps))
        share = step / num_steps
        if cumulative == "harmonic":
            share = (step / (step + 10)) / (num_steps / (num_steps + 10))
        return 1.0 - (1.0 - keep_ratio) * share

    return tuple(round(kept(step), 9) for step in range(1, num_steps + 1))


def num_removed(numel: int, keep_ratio: Fraction | float) -> int:
    """Exactly ``floor((1 - keep_ratio) * numel)``, with the ratio read as the decimal it shows.

    In floating point ``(1 - 0.9) * 10`` is below 1; here it is 1.

    >>> num_removed(10, 0.9), num_removed(256, 0.1)
    (1, 230)
    """
    keep = keep_ratio if isinstance(keep_ratio, Fraction) else Fraction(repr(keep_ratio))
    return math.floor((1 - keep) * numel)
