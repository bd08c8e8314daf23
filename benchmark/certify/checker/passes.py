"""What the two ways to bound a network take and give.

Shape suffixes: B images, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from corobench.benchmark.certify.checker.activations import Lines
from corobench.benchmark.certify.checker.intervals import Interval, Origin
from corobench.benchmark.certify.checker.rounding import Array, centre


@dataclass
class Slopes:
    """What a search chose for one ReLU, per row, and what is known of its operand there.

    A row may be about some images of the box only. Where its bounds fix the sign of the operand, a
    multiple of what they say may be subtracted from a lower bound.

    Attributes:
        low_slope: float64 (R, ...) or (1, ...), in [0, 1].
        low: likewise, lower bounds of the operand for these images; None for those of the box.
        high: likewise, upper bounds.
        multiplier: likewise, at least 0, of the fixed signs; None for none.
    """

    low_slope: Array
    low: Array | None = None
    high: Array | None = None
    multiplier: Array | None = None

    @property
    def sign(self) -> Array | None:
        """+1 where z >= 0 is known of these images, -1 where z <= 0 is, 0 elsewhere."""
        if self.low is None or self.high is None:
            return None
        return np.where(self.low >= 0, 1.0, np.where(self.high <= 0, -1.0, 0.0))


@dataclass
class Bounds:
    """Intervals of the values 0 to the last one that was computed.

    Attributes:
        values: interval per value.
        num_images: B.
        lines: relaxations that were computed once.
        columns: likewise, what a backward pass multiplies rows with.
    """

    values: list[Interval]
    num_images: int
    lines: dict[int, Lines] = field(default_factory=dict)
    columns: dict[tuple[int, bool], tuple[Array, Array | None]] = field(default_factory=dict)

    def charges(
        self, number: int, constant: Array | None, ends_here: bool
    ) -> tuple[Array, Array | None]:
        """Columns for a value.

        Args:
            number: of the value.
            constant: what its step adds, of its shape for one image.
            ends_here: whether rows are concretised at it.

        Returns:
            (B, ..., 2) for absolute rows: what a float64 error is relative to, and noise, or the
            radius where rows end; (B or 1, ..., 1) for rows: the constant, or the middle.
        """
        key = (number, ends_here)
        if key not in self.columns:
            given = self.values[number]
            pair: tuple[Array, Array | None]
            if ends_here:
                mid, rad = centre(given.low, given.high)
                pair = np.stack([np.abs(mid) + rad, rad], axis=-1), mid[..., None]
            else:
                noise = np.zeros_like(given.low) if given.noise is None else given.noise
                size = given.size + noise
                if constant is not None:
                    size = size + np.abs(constant)
                pair = (
                    np.stack([size, noise], axis=-1),
                    None if constant is None else constant[None, ..., None],
                )
            self.columns[key] = pair
        return self.columns[key]


@dataclass
class Line:
    """Linear lower bounds: at every image x of the box, rows (x - mid) + centre.

    Attributes:
        rows: float64 (B, R, C, h, w), coefficients of a window of the image; 0 outside of it.
        origin: of the window.
        centre_BR: values at the centre of the box, less all that is lost to rounding.
    """

    rows: Array
    origin: Origin
    centre_BR: Array


@dataclass
class Lower:
    """What a backward pass gives.

    Attributes:
        bound_BR: float64, rigorous lower bounds; -inf where nothing finite is known.
        noise_BR: how much of it the rounding of the deployment costs.
        line: the same as linear functions of the image; None where it was not asked for.
    """

    bound_BR: Array
    noise_BR: Array
    line: Line | None = None
