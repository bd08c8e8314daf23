"""A network as the checker sees it: steps in order, and the two ways to bound them.

Forward: the interval of every step, with the noise that its rounding adds. Backward: a row of
coefficients on one step's output is carried to the image, step by step, and concretised there. What
is lost to rounding on the way is subtracted, see `rounding`.

Shape suffixes: B images, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from corobench.benchmark.certify.checker.activations import Activation, MaxPool, Relu
from corobench.benchmark.certify.checker.averages import AveragePool
from corobench.benchmark.certify.checker.bends import Combination, Every, Shift
from corobench.benchmark.certify.checker.blocks import blocks, part_of
from corobench.benchmark.certify.checker.boxed import Boxed
from corobench.benchmark.certify.checker.exact import Concat, Pad, Pick, Reshape
from corobench.benchmark.certify.checker.intervals import (
    FLAT,
    Interval,
    Origin,
    Shape,
    UncheckableError,
    cut,
    whole,
)
from corobench.benchmark.certify.checker.layers import Add, Affine, Conv, Scale
from corobench.benchmark.certify.checker.passes import Bounds, Line, Lower, Slopes
from corobench.benchmark.certify.checker.rounding import SMALLEST, Array, sum_error

NONLINEAR = Activation | MaxPool | Boxed
"""Layers that lie between two lines or two constants, instead of being affine."""

_KEEPS_WINDOWS = (AveragePool, Conv, Every, Pad, Scale, Shift)

Layer = Affine | NONLINEAR | Reshape | Pick | Concat | Pad
Coefficients = tuple[Array, Origin]


@dataclass(frozen=True)
class Step:
    """One layer and the numbers of the values it works on; the value 0 is the image."""

    layer: Layer
    sources: tuple[int, ...]


class Network:
    """Steps in order.

    Args:
        input_shape: channels, height, width.
        steps: each on values that were made before it; the last one gives the logits.

    Attributes:
        shapes: of every value, for one image.
        depths: how many layers that mix values, or nonlinear ones, lie between the image and each
            value. Intervals are exact up to the first of them.
        relus: numbers of the values that ReLUs give, in order.
        constants: per value what its step adds whatever its operands, of its shape; None for
            nothing.
    """

    def __init__(self, input_shape: Shape, steps: Sequence[Step]) -> None:
        self.input_shape, self.steps = tuple(input_shape), tuple(steps)
        zero = np.zeros((1, *self.input_shape))
        with np.errstate(all="ignore"):
            self.shapes = [value.low.shape[1:] for value in self.bounds(zero, zero).values]
        self.depths = [0]
        for step in self.steps:
            before = max(self.depths[source] for source in step.sources)
            mixes = not isinstance(
                step.layer, Scale | Shift | Every | Reshape | Pick | Pad | Concat
            )
            self.depths.append(before + mixes)
        self._error = sum_error(2 * sum(int(np.prod(shape)) for shape in self.shapes))
        self.relus = tuple(
            number
            for number, step in enumerate(self.steps, start=1)
            if isinstance(step.layer, Relu)
        )
        self.constants = [self._constant_of(number) for number in range(len(self.shapes))]

    def _constant_of(self, number: int) -> Array | None:
        if number == 0:
            return None
        step, found = self.steps[number - 1], None
        if isinstance(step.layer, Affine) and not isinstance(step.layer, Add):
            found = step.layer.bias
        elif isinstance(step.layer, Pad) and step.layer.value:
            found = step.layer.constant(self.shapes[step.sources[0]])
        if found is None or not found.any():
            return None
        return np.broadcast_to(found, self.shapes[number])

    @property
    def num_classes(self) -> int:
        """Logits per image."""
        return int(np.prod(self.shapes[-1]))

    def bounds(
        self,
        low: Array,
        high: Array,
        refine: Callable[[Bounds, int], Interval | None] | None = None,
    ) -> Bounds:
        """The interval of every value over boxes.

        Args:
            low: float64 (B, C, H, W), lower corners.
            high: float64 like `low`.
            refine: called with what is known so far and the number of a value right before a
                nonlinear step reads it; gives a tighter interval of it, or None.
        """
        # A pixel below SMALLEST may be flushed, and what only moves or compares it charges nothing.
        low = np.where((low > 0) & (low < SMALLEST), 0.0, low)
        high = np.where((high < 0) & (high > -SMALLEST), 0.0, high)
        found = Bounds([Interval(low, high, None)], len(low))
        refined: set[int] = set()
        for step in self.steps:
            if refine is not None and isinstance(step.layer, NONLINEAR | Shift):
                for source in step.sources:
                    better = None if source in refined else refine(found, source)
                    refined.add(source)
                    if better is not None:
                        found.values[source] = better
            found.values.append(step.layer.bounds([found.values[n] for n in step.sources]))
        return found

    def lower(
        self,
        bounds: Bounds,
        start: int,
        coefficient: Array,
        origin: Origin = FLAT,
        slopes: Mapping[int, Slopes] | None = None,
        to_the_image: bool = True,
    ) -> Lower:
        """Lower bounds of rows of coefficients times a value, over each box.

        Args:
            bounds: of all values before it and of itself.
            start: number of the value.
            coefficient: float64 (B, R, ...), of the value's shape or of a window of it.
            origin: of the window.
            slopes: ReLU -> what a search chose, for B = 1; CROWN's slopes by default. Where they
                have bounds, the result holds for the images of the box that keep them.
            to_the_image: False stops at the outputs of nonlinear steps and takes their intervals
                (IBP with the last affine layers merged).
        """
        with np.errstate(all="ignore"):
            return _Backward(self, bounds, coefficient, slopes or {}, to_the_image).run(
                start, origin
            )


class _Backward:
    """One backward pass."""

    def __init__(
        self,
        network: Network,
        bounds: Bounds,
        coefficient: Array,
        slopes: Mapping[int, Slopes],
        to_the_image: bool,
    ) -> None:
        self.network, self.bounds, self.slopes = network, bounds, slopes
        self.coefficient, self.to_the_image = coefficient, to_the_image
        self.num_images, self.num_rows = coefficient.shape[:2]
        shape = (self.num_images, self.num_rows)
        self.constant, self.noise, self.total = (np.zeros(shape) for _ in range(3))
        self.pending: dict[int, Coefficients] = {}
        self.at_image: tuple[Array, Origin, Array] | None = None

    def run(self, start: int, origin: Origin) -> Lower:
        flat = self.coefficient.reshape(-1, *self.coefficient.shape[2:])
        self.pending[start] = (flat, origin)
        for number in range(start, -1, -1):
            if number in self.pending:
                self._carry(number, *self.pending.pop(number))
        lost = self.noise + self.network._error * self.total
        bound = self.constant - lost
        line = None
        if self.at_image is not None:
            rows, window, radius = self.at_image
            line = Line(rows, window, bound + radius)
        return Lower(np.where(np.isfinite(bound), bound, -np.inf), self.noise, line)

    def _carry(self, number: int, flat: Array, origin: Origin) -> None:
        """Take the rows of one value to what it is made of."""
        rows = self._rows(flat)
        step = self.network.steps[number - 1] if number else None
        ends_here = step is None or isinstance(step.layer, Boxed)
        if step is not None and not self.to_the_image:
            ends_here = isinstance(step.layer, NONLINEAR | Combination)
        charges, constant = self.bounds.charges(number, self.network.constants[number], ends_here)
        lost = self._charged(rows, charges, origin)
        self.total += lost[..., 0]
        if constant is not None:
            self.constant += self._dot(rows, constant, origin)[..., 0]
        if ends_here:
            self.constant -= lost[..., 1]
            if number == 0:
                self.at_image = rows, origin, lost[..., 1]
            return
        self.noise += lost[..., 1]
        assert step is not None
        layer, sources = step.layer, step.sources
        if isinstance(layer, Activation):
            self._through_activation(number, layer, sources[0], rows, origin)
        elif isinstance(layer, MaxPool):
            self._through_max(layer, sources[0], rows, origin)
        elif isinstance(layer, Add):
            for source in sources:
                self._put(source, flat, origin)
        elif isinstance(layer, Combination):
            for source, part in zip(sources, layer.parts(flat, origin), strict=True):
                if part is not None:
                    self._put(source, part, origin)
        elif isinstance(layer, Concat):
            flat = whole(flat, origin, self.network.shapes[number])
            for source, part in zip(sources, layer.parts(flat), strict=True):
                self._put(source, part, FLAT)
        else:
            assert not isinstance(layer, Boxed)  # rows end at what it gives
            if not isinstance(layer, _KEEPS_WINDOWS):
                flat, origin = whole(flat, origin, self.network.shapes[number]), FLAT
            shape = self.network.shapes[sources[0]]
            self._put(sources[0], *layer.back(flat, origin, shape))

    def _through_activation(
        self, number: int, layer: Activation, source: int, rows: Array, origin: Origin
    ) -> None:
        given = self.bounds.values[source]
        chosen = self.slopes.get(number)
        if chosen is not None and isinstance(layer, Relu):
            inside = given
            if chosen.low is not None and chosen.high is not None:
                inside = replace(given, low=chosen.low, high=chosen.high)
            lines = layer.lines(inside, chosen.low_slope)
        else:
            if number not in self.bounds.lines:
                self.bounds.lines[number] = layer.lines(given)
            lines = self.bounds.lines[number]
        lines = lines.window(origin, rows.shape)
        low_slope, low_offset, high_slope, high_offset = (
            # (R, ...) of one image, or (B, ...) for all rows
            part[None] if chosen is not None else part[:, None]
            for part in vars(lines).values()
        )
        carried = np.empty_like(rows)
        axes = tuple(range(2, rows.ndim))
        for at, part in blocks(rows):
            above, below = np.maximum(part, 0.0), np.minimum(part, 0.0)
            offsets = below * part_of(high_offset, at)
            if not isinstance(layer, Relu):  # the lower line of a ReLU goes through 0
                offsets += above * part_of(low_offset, at)
            self.constant[:, at[0]] += offsets.sum(axis=axes)
            self.total[:, at[0]] += np.abs(offsets, out=offsets).sum(axis=axes)
            above *= part_of(low_slope, at)
            below *= part_of(high_slope, at)
            np.add(above, below, out=part_of(carried, at))
        if chosen is not None and chosen.sign is not None and chosen.multiplier is not None:
            # sign z >= 0 is known, so that subtracting a multiple of it keeps a lower bound.
            charge = np.maximum(chosen.multiplier, 0.0) * chosen.sign
            charge = cut(charge, origin, rows.shape)[None]
            carried = carried - charge
            extra = np.broadcast_to(np.abs(charge), rows.shape)
            self.total += self._dot(extra, given.size[..., None], origin)[..., 0]
        self._put(source, carried.reshape(-1, *rows.shape[2:]), origin)

    def _through_max(self, layer: MaxPool, source: int, rows: Array, origin: Origin) -> None:
        given = self.bounds.values[source]
        place, beats, most = (
            cut(part, origin, rows.shape)[:, None] for part in layer.choices(given)
        )
        below = np.minimum(rows, 0.0)
        axes = tuple(range(2, rows.ndim))
        offsets = np.where(beats | (below == 0), 0.0, below * most)
        self.constant += offsets.sum(axis=axes)
        self.total += np.abs(offsets).sum(axis=axes)
        carried = np.maximum(rows, 0.0) + np.where(beats, below, 0.0)
        flat = carried.reshape(-1, *rows.shape[2:])
        places = np.broadcast_to(place, rows.shape).reshape(flat.shape)
        self._put(source, *layer.back(flat, places, origin, self.network.shapes[source]))

    def _put(self, number: int, flat: Array, origin: Origin) -> None:
        """Add rows to those that wait at a value."""
        if not flat.size:
            return  # all of it lies on padding
        known = self.pending.get(number)
        self.pending[number] = (flat, origin) if known is None else _joined(known, (flat, origin))

    def _rows(self, flat: Array) -> Array:
        return flat.reshape(self.num_images, self.num_rows, *flat.shape[1:])

    def _charged(self, rows: Array, columns: Array, origin: Origin) -> Array:
        """`_dot` of the absolute rows."""
        found = np.zeros((*rows.shape[:2], columns.shape[-1]))
        for at, part in blocks(rows):
            found[:, at[0]] += self._dot(np.abs(part), columns[:, at[1]], origin)
        return found

    def _dot(self, rows: Array, columns: Array, origin: Origin) -> Array:
        """(B, R, ...) times (B or 1, ..., columns), summed over all but B, R and the columns."""
        if rows.ndim == 5 and columns.shape[2:4] != rows.shape[3:]:
            height, width = rows.shape[3:]
            columns = columns[:, :, origin[0] : origin[0] + height, origin[1] : origin[1] + width]
        num_rows, num = rows.shape[1], columns.shape[-1]
        if self.num_images == 1 and rows.strides[1] == rows.itemsize:  # rows last in memory
            flat = np.moveaxis(rows[0], 0, -1).reshape(-1, num_rows)
            product: Array = (columns.reshape(-1, num).T @ flat).T[None]
            return product
        first = rows.reshape(self.num_images, num_rows, -1)
        return first @ columns.reshape(len(columns), -1, num)


def _joined(first: Coefficients, second: Coefficients) -> Coefficients:
    """The sum of rows on two windows of one map."""
    (a, at_a), (b, at_b) = first, second
    if a.shape == b.shape and at_a == at_b:
        return a + b, at_a
    top, left = min(at_a[0], at_b[0]), min(at_a[1], at_b[1])
    height = max(at_a[0] + a.shape[-2], at_b[0] + b.shape[-2]) - top
    width = max(at_a[1] + a.shape[-1], at_b[1] + b.shape[-1]) - left
    found = np.zeros((*a.shape[:-2], height, width))
    for part, at in ((a, at_a), (b, at_b)):
        rows = slice(at[0] - top, at[0] - top + part.shape[-2])
        columns = slice(at[1] - left, at[1] - left + part.shape[-1])
        found[..., rows, columns] += part
    return found, (top, left)


def require_flat_logits(network: Network) -> None:
    """Refuse a network whose output is not one row of logits.

    Raises:
        UncheckableError: it is not.
    """
    if len(network.shapes[-1]) != 1 or network.num_classes < 2:
        raise UncheckableError("an output that is not one row of logits")
