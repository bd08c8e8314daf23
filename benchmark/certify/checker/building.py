"""Steps of a network, one after another: what every way to write an operator comes to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corobench.benchmark.certify.checker import dividing
from corobench.benchmark.certify.checker.activations import Curve, MaxPool
from corobench.benchmark.certify.checker.averages import Mean
from corobench.benchmark.certify.checker.boxed import Product
from corobench.benchmark.certify.checker.curves import CURVES, Smooth
from corobench.benchmark.certify.checker.exact import Concat, Pad, Pick, Reshape
from corobench.benchmark.certify.checker.intervals import Interval, UncheckableError
from corobench.benchmark.certify.checker.layers import Add, Scale
from corobench.benchmark.certify.checker.network import Layer, Step
from corobench.benchmark.certify.checker.roots import MatrixProduct, Quotient
from corobench.benchmark.certify.checker.rounding import MAX_TERMS, SMALLEST, Array

LEAST_DIVISOR = 2.0**-100
"""Smaller divisors may change by more than rounding where numbers are flushed to zero."""


class Value(int):
    """The number of a value, told from a plain number."""


class Size(int):
    """A size, told from a value."""


def require(one: Any) -> int:
    if not isinstance(one, Value):
        raise UncheckableError("an operator on constants")
    return int(one)


def array(tensor: Tensor) -> Array:
    if tensor.dtype != torch.float32:
        raise UncheckableError(f"weights of type {tensor.dtype}")
    found = tensor.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(found).all():
        raise UncheckableError("weights that are not finite")
    return found


def require_normal(what: str, value: Array) -> None:
    """Refuse divisors that a deployment may flush to zero, or nearly so.

    Raises:
        UncheckableError: names what divides.
    """
    if not (np.abs(value) >= LEAST_DIVISOR).all():
        raise UncheckableError(f"{what} below {LEAST_DIVISOR:.2e}")


class Builder:
    """Steps and their shapes.

    Args:
        input_shape: (C, H, W).
        max_as_relus: whether max pools become trees of ReLUs, where their windows are small.

    Attributes:
        borders: value -> a border around it that is never the largest value.
    """

    def __init__(self, input_shape: tuple[int, ...], max_as_relus: bool = False) -> None:
        self.max_as_relus = max_as_relus
        self.borders: dict[int, tuple[int, int, int, int]] = {}
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [input_shape]

    def add(self, layer: Layer, *sources: int) -> Value:
        """A step, and the shape that it gives."""
        if not self.borders.keys().isdisjoint(sources) and not isinstance(layer, MaxPool):
            raise UncheckableError("a border of -inf that no max pool reads")
        self.steps.append(Step(layer, sources))
        self.shapes.append(_shape_of(layer, [self.shapes[source] for source in sources]))
        return Value(len(self.steps))

    def to_shape(self, source: int, sizes: list[int], shape: tuple[int, ...]) -> Value:
        """Values in another shape, of which one size may be -1."""
        num = int(np.prod(shape))
        if sizes.count(-1) == 1:
            known = int(np.prod([size for size in sizes if size != -1]))
            sizes = [num // max(1, known) if size == -1 else size for size in sizes]
        if int(np.prod(sizes)) != num or min(sizes, default=0) < 1:
            raise UncheckableError("a reshape that mixes images")
        return self.add(Reshape(tuple(sizes)), source)

    def flatten(self, source: int, start: int, end: int) -> Value:
        """Axes from `start` to `end`, the batch being 0, as one."""
        shape = self.shapes[source]
        rank = len(shape) + 1
        start, end = start % rank, end % rank
        if start < 1:
            raise UncheckableError("a reshape that mixes images")
        joined = int(np.prod(shape[start - 1 : end]))
        return self.add(Reshape((*shape[: start - 1], joined, *shape[end:])), source)

    def mean_over(self, source: int, axes: Any, keep: bool, is_mean: bool = True) -> Value:
        """The mean over axes, or the sum."""
        shape = self.shapes[source]
        given = [axes] if isinstance(axes, int) else list(axes or ())
        over = tuple(sorted(axis % (len(shape) + 1) for axis in given))
        if not over or over[0] == 0:
            raise UncheckableError("a mean over the batch")
        return self.add(Mean(over, keep, shape, is_mean), source)

    def concat(self, operands: list[Any], axis: int) -> Value:
        """Operands side by side."""
        given = [one for one in operands if isinstance(one, Value)]
        sources = [
            require(one) if isinstance(one, Value) else self.stored(one, require(*given[:1]))
            for one in operands
        ]
        shapes = [self.shapes[source] for source in sources]
        axis %= len(shapes[0]) + 1
        if axis == 0:
            raise UncheckableError("a concatenation of images")
        return self.add(Concat(axis, shapes), *sources)

    def binary(self, kind: str, first: Any, second: Any) -> Value:
        """The sum, difference, product or quotient of two operands, of which one may be stored."""
        if isinstance(first, Value) and isinstance(second, Value):
            if kind in ("add", "sub"):
                first, second = self.broadcast(first, second)
            if kind == "add" and self.shapes[first] == self.shapes[second]:
                return self.add(Add(), first, second)
            if kind == "sub" and self.shapes[first] == self.shapes[second]:
                return self.add(Add(), first, self.negative(second))
            if kind == "mul":
                return self.product(first, second)
            if kind == "div":
                layer, sources = dividing.divided(self.steps, self.shapes, first, second)
                return self.add(layer, *sources)
            raise UncheckableError(f"the operator {kind} of two activations")
        if isinstance(first, Value):
            return self.with_constant(kind, first, second)
        if kind in ("add", "mul"):
            return self.with_constant(kind, require(second), first)
        if kind == "sub":  # c - x
            return self.with_constant("add", self.negative(require(second)), first)
        found = self.add(Quotient(), require(second))
        return self.with_constant("mul", found, first)

    def product(self, first: Value, second: Value) -> Value:
        """The product of two activations; z sigmoid(z) and z (1 + erf(z / sqrt(2))) are curves."""
        if len(self.shapes[first]) != len(self.shapes[second]):
            raise UncheckableError("the operator mul of two activations of unequal ranks")
        for one, other in ((first, second), (second, first)):
            step = self.steps[other - 1] if other else None
            layer = None if step is None or step.sources != (one,) else step.layer
            if isinstance(layer, Curve) and layer.name == "sigmoid":
                return self.add(Smooth(CURVES["silu"]), one)
            factor = self._gelu_factor(one, other)
            if factor is not None:
                found = self.add(Smooth(CURVES["gelu"]), self._scaled(one)[0])
                return found if factor == 1.0 else self.with_constant("mul", found, factor)
        quotient = dividing.times_reciprocal(self.steps, self.shapes, first, second)
        if quotient is not None:
            return self.add(quotient[0], *quotient[1])
        return self.add(Product(first == second), first, second)

    def matrix_product(self, first: Value, second: Value) -> Value:
        """The matrix product of two activations, each with two axes of its own at least."""
        shapes = self.shapes[first], self.shapes[second]
        if len(shapes[0]) != len(shapes[1]) or len(shapes[0]) < 2:
            raise UncheckableError("a matrix product that mixes images")
        if shapes[0][-1] != shapes[1][-2]:
            raise UncheckableError("operands that do not fit")
        if shapes[0][-1] > MAX_TERMS // 2:
            raise UncheckableError(f"a sum of more than {MAX_TERMS // 2} terms")
        return self.add(MatrixProduct(), first, second)

    def _gelu_factor(self, one: int, other: int) -> float | None:
        """f where the product of two values is f times a GELU, a power of 2; else None.

        The exact GELU is z (1 + erf(z / sqrt(2))) / 2, and exporters put the half anywhere.
        """
        base, scale, shift = self._scaled(one)
        inner, outer, offset = self._scaled(other)
        step = self.steps[inner - 1] if inner else None
        if step is None or not isinstance(step.layer, Curve) or step.layer.name != "erf":
            return None
        argument, narrowing, nothing = self._scaled(step.sources[0])
        factor = 2.0 * scale * outer
        is_one = (
            argument == base
            and shift == nothing == 0.0
            and outer == offset
            and {scale, outer} <= {0.5, 1.0, 2.0}
            and abs(narrowing * math.sqrt(2.0) - 1.0) <= 2.0**-22
        )
        return factor if is_one else None

    def _scaled(self, source: int) -> tuple[int, float, float]:
        """A value as a number times an earlier one plus a number, by at most three plain steps.

        What they round stays far below `CURVE_ERROR`.
        """
        scale, shift = 1.0, 0.0
        for _ in range(3):
            step = self.steps[source - 1] if source else None
            layer = None if step is None else step.layer
            if step is None or not isinstance(layer, Scale):
                break
            is_number = layer.scale.size == 1 and layer.bias.size == 1
            if not is_number or self.shapes[source] != self.shapes[step.sources[0]]:
                break
            factor, summand = float(layer.scale.item()), float(layer.bias.item())
            if not 0.25 <= abs(factor) <= 4.0 or abs(summand) > 1.0:
                break
            shift += scale * summand
            scale *= factor
            source = step.sources[0]
        return source, scale, shift

    def negative(self, source: int) -> Value:
        """Values with the other sign."""
        return self.add(Scale(np.full((), -1.0), np.zeros(())), source)

    def with_constant(self, kind: str, source: int, constant: Any) -> Value:
        """The same with a stored operand on the right."""
        shape = self.shapes[source]
        if isinstance(constant, Size) and constant < 0:
            raise UncheckableError("the number of images as a number")
        if isinstance(constant, tuple | list):
            raise UncheckableError("a shape as a number")
        if isinstance(constant, Tensor):
            constant = array(constant)
        value = np.asarray(constant, dtype=np.float64)
        if isinstance(constant, float | int):
            value = np.asarray(float(np.float32(constant)), dtype=np.float64)
        if value.ndim > len(shape):
            if value.shape[: value.ndim - len(shape)] != (1,) * (value.ndim - len(shape)):
                raise UncheckableError("a constant per image of the batch")
            value = value.reshape(value.shape[value.ndim - len(shape) :])
        try:
            wanted = np.broadcast_shapes(value.shape, shape)
        except ValueError as error:
            raise UncheckableError("a constant that does not fit") from error
        source, shape = self.expand(source, wanted), wanted
        one, zero = np.ones(()), np.zeros(())
        if kind == "add":
            return self.add(Scale(one, value), source)
        if kind == "sub":
            return self.add(Scale(one, -value), source)
        if kind == "mul":
            return self.add(Scale(value, zero), source)
        require_normal("a division by a number", value)
        return self.add(Scale(1.0 / value, zero), source)

    def pick(self, places: NDArray[np.signedinteger[Any]], source: int) -> Value:
        """Some values in another order; places are whole numbers."""
        return self.add(Pick(places), source)

    def expand(self, source: int, shape: tuple[int, ...]) -> Value:
        """Values repeated along axes, as a sum with a larger tensor does."""
        have = self.shapes[source]
        if have == shape:
            return Value(source)
        if len(have) != len(shape):
            raise UncheckableError("operands with another number of axes")
        places = np.broadcast_to(np.arange(int(np.prod(have))).reshape(have), shape)
        return self.pick(places, source)

    def broadcast(self, first: int, second: int) -> tuple[Value, Value]:
        """Two operands of one shape."""
        try:
            shape = np.broadcast_shapes(self.shapes[first], self.shapes[second])
        except ValueError as error:
            raise UncheckableError("operands that do not fit") from error
        return self.expand(first, shape), self.expand(second, shape)

    def stored(self, constant: Any, beside: int) -> Value:
        """A stored tensor as a value that is the same for every image.

        Args:
            constant: with an axis of one image.
            beside: any value.
        """
        value = array(constant) if isinstance(constant, Tensor) else np.asarray(constant)
        if value.ndim < 2 or len(value) != 1:
            raise UncheckableError("a constant per image of the batch")
        zeros = self.pick(np.zeros(value.shape[1:], dtype=np.int64), beside)
        return self.add(Scale(np.zeros(()), value[0]), zeros)

    def pad(self, pads: list[int], value: float, source: int) -> Value:
        """Pads as torch has them: left, right, top, bottom, then those of further axes."""
        pads = pads + [0] * (8 - len(pads))
        if len(self.shapes[source]) != 3 or any(pads[6:]) or min(pads) < 0:
            raise UncheckableError("padding of other axes than channels, height and width")
        value = float(np.float32(value))
        if 0 < abs(value) < SMALLEST:
            raise UncheckableError("a border that may be flushed to zero")
        left, right, top, bottom, before, behind = pads[:6]
        return self.add(Pad((top, left, bottom, right), value, (before, behind)), source)


def _shape_of(layer: Layer, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape a layer gives, found by asking it for the interval of zeros."""
    zeros = [Interval(zero, zero) for zero in (np.zeros((1, *shape)) for shape in shapes)]
    try:
        with np.errstate(all="ignore"):
            return layer.bounds(zeros).low.shape[1:]
    except (ValueError, IndexError) as error:
        raise UncheckableError("operands that do not fit") from error
