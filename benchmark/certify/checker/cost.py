"""What CROWN costs: the arithmetic of its backward passes, and the memory of the rows of one.

CROWN bounds every neuron before a nonlinear layer, or those of it that an image leaves open, by a
backward pass of two rows, one for its lower and one for its upper bound. In a map a row begins as a
window of one place and grows with every convolution on the way to the image, so that rows of early
layers cost little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.activations import Relu
from corobench.benchmark.certify.checker.averages import AveragePool
from corobench.benchmark.certify.checker.bends import Bend, Combination, Every, Extreme, Shift
from corobench.benchmark.certify.checker.exact import Pad, Pick, Reshape
from corobench.benchmark.certify.checker.layers import Add, Conv, Linear, Scale
from corobench.benchmark.certify.checker.network import NONLINEAR, Network
from corobench.benchmark.certify.checker.passes import Bounds

_ROWS_PER_NEURON = 2
_FLOAT_BYTES = 8
_KEEPS_WINDOWS = (
    *(Add, AveragePool, Combination, Conv, Every, Pad, Scale, Shift),
    *NONLINEAR.__args__,
)

Window = tuple[int, int]
"""Height and width of the part of a map that a row lies on."""


@dataclass(frozen=True)
class RowCost:
    """One row on its way to the image.

    Attributes:
        num_macs: multiply-adds; a value that is only moved, scaled or relaxed counts as one.
        num_bytes: largest memory that the row needs at one layer, in float64.
    """

    num_macs: int
    num_bytes: int


def whole_cost(network: Network) -> int:
    """Multiply-adds of CROWN on one image whose neurons are all open: the most it can take."""
    last = len(network.steps)
    return (
        sum(
            cost_of_neurons(network, number, int(np.prod(network.shapes[number])))
            for number in bounded_values(network)
        )
        + (network.num_classes - 1) * row_cost(network, last).num_macs
    )


def cost_of_neurons(network: Network, number: int, num_neurons: int) -> int:
    """Multiply-adds of bounding so many neurons of a value from both sides."""
    return _ROWS_PER_NEURON * num_neurons * row_cost(network, number).num_macs


def bounded_values(network: Network) -> list[int]:
    """Numbers of the values before nonlinear layers that CROWN can bound better than intervals.

    Up to the first layer that mixes values intervals are exact, and an activation right after
    another one is as tight as what goes into the first.
    """
    found = {
        source
        for step in network.steps
        if isinstance(step.layer, NONLINEAR | Shift)
        for source in step.sources
        if network.depths[source] > 1 and is_made_by_affine(network, source)
    }
    return sorted(found)


def is_made_by_affine(network: Network, number: int) -> bool:
    """Whether the last step before a value that computes anything is affine.

    An activation right after another one is as tight as what goes into the first, and a value less
    a kink as the value.
    """
    while number:
        step = network.steps[number - 1]
        if not isinstance(step.layer, Reshape | Pick | Pad | Every):
            return not isinstance(step.layer, NONLINEAR | Bend | Extreme | Shift)
        (number,) = step.sources
    return True


def open_neurons(network: Network, bounds: Bounds, number: int) -> NDArray[np.bool_]:
    """Which neurons of a value a backward pass may tighten with any use: bool, of its shape.

    Where only ReLUs read it, at whatever kink, those whose sign is open; of every other kind all.
    """
    given = bounds.values[number]
    readers = [step.layer for step in network.steps if number in step.sources]
    if all(isinstance(layer, Relu) for layer in readers if isinstance(layer, NONLINEAR)):
        is_open: NDArray[np.bool_] = ((given.low < 0) & (given.high > 0))[0]
        return is_open
    return np.ones(given.low.shape[1:], dtype=bool)


def interval_bytes(network: Network) -> int:
    """Largest memory that the interval of one image needs at one layer, in float64.

    A convolution lays the operands of each of its sums side by side.
    """
    floats = 1
    for step, shape in zip(network.steps, network.shapes[1:], strict=True):
        num = int(np.prod(shape))
        if isinstance(step.layer, Conv):
            num += int(np.prod(step.layer.weight.shape[1:])) * num // max(1, shape[0])
        floats = max(floats, num)
    return _FLOAT_BYTES * floats


def row_cost(network: Network, start: int) -> RowCost:
    """The cost of one row from a value, in the middle of a map where it is one, to the image."""
    shape = network.shapes[start]
    pending: dict[int, Window | None] = {start: (1, 1) if len(shape) == 3 else None}
    num_macs, num_bytes = 0, 1
    for number in range(start, 0, -1):
        if number not in pending:
            continue
        window = pending.pop(number)
        step = network.steps[number - 1]
        size = _size(network.shapes[number], window)
        macs, floats = size, size
        for source in step.sources:
            given = network.shapes[source]
            reached = _reached(step.layer, window, network.shapes[number], given)
            if isinstance(step.layer, Linear):
                macs += step.layer.weight.size
            elif isinstance(step.layer, Conv):
                kernel = int(np.prod(step.layer.weight.shape[1:]))
                macs += size * kernel
                floats += size * kernel // max(1, len(step.layer.weight)) * step.layer.groups
            floats += _size(given, reached)
            if source in pending:
                reached = _larger(pending[source], reached)
            pending[source] = reached
        num_macs, num_bytes = num_macs + macs, max(num_bytes, _FLOAT_BYTES * floats)
    return RowCost(num_macs, num_bytes)


def _size(shape: tuple[int, ...], window: Window | None) -> int:
    if window is None or len(shape) != 3:
        return int(np.prod(shape))
    return shape[0] * window[0] * window[1]


def _larger(first: Window | None, second: Window | None) -> Window | None:
    if first is None or second is None:
        return None
    return max(first[0], second[0]), max(first[1], second[1])


def _reached(
    layer: object, window: Window | None, made: tuple[int, ...], given: tuple[int, ...]
) -> Window | None:
    """The window of the operand that a window of the output is made of; None for all of it."""
    if window is None or not isinstance(layer, _KEEPS_WINDOWS) or len(given) != 3:
        return None
    if len(made) != 3:
        return None
    kernel, stride, dilation = (1, 1), (1, 1), (1, 1)
    if isinstance(layer, Conv):
        kernel, stride, dilation = layer.weight.shape[2:], layer.stride, layer.dilation
    elif hasattr(layer, "kernel"):
        kernel, stride = layer.kernel, layer.stride
    height, width = (
        min(most, (size - 1) * by + (k - 1) * apart + 1)
        for size, by, k, apart, most in zip(
            window, stride, kernel, dilation, given[1:], strict=True
        )
    )
    return height, width
