"""Largest values: of windows, of channels, of two operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corobench.benchmark.certify.checker.activations import MaxPool, Relu
from corobench.benchmark.certify.checker.bends import Difference, Every, Extreme
from corobench.benchmark.certify.checker.building import Builder, Value
from corobench.benchmark.certify.checker.exact import Pad, Reshape
from corobench.benchmark.certify.checker.intervals import UncheckableError

TREE_PLACES = 9
"""Windows of up to so many values may become trees of ReLUs."""


def extreme(builder: Builder, first: int, second: int, is_largest: bool) -> Value:
    """The larger or smaller of two values of equal shape."""
    operands = (first, second) if is_largest else (second, first)
    relu = builder.add(Relu(), builder.add(Difference(), *operands))
    return builder.add(Extreme(is_largest), first, second, relu)


def max_pool(
    builder: Builder,
    source: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> Value:
    """The largest value of every window: one step, or a tree of ReLUs where `Builder` wants it."""
    wants_tree = builder.max_as_relus and kernel[0] * kernel[1] <= TREE_PLACES
    if any(pads) and wants_tree:
        step = builder.steps[source - 1] if source and source not in builder.borders else None
        wants_tree = step is not None and isinstance(step.layer, Relu)
    if not wants_tree or len(builder.shapes[source]) != 3:
        return builder.add(MaxPool(kernel, stride, pads), source)
    if any(pads):  # behind a ReLU a border of 0 is never the only largest value
        source = builder.add(Pad(pads, 0.0), source)
    shape = builder.shapes[source]
    size = (
        (shape[1] - kernel[0]) // stride[0] + 1,
        (shape[2] - kernel[1]) // stride[1] + 1,
    )
    found = [
        builder.add(Every((i, j), stride, size), source)
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    while len(found) > 1:
        pairs = list(zip(found[::2], found[1::2], strict=False))
        rest = found[-1:] if len(found) % 2 else []
        found = [extreme(builder, *pair, is_largest=True) for pair in pairs] + rest
    return found[0]


def lowest_border(builder: Builder, module: Any, source: int) -> Value:
    """A border that is never the largest value; only a max pool may read it."""
    left, right, top, bottom = module.padding
    if len(builder.shapes[source]) != 3 or min(module.padding) < 0:
        raise UncheckableError("padding of other axes than height and width")
    found = builder.add(Reshape(builder.shapes[source]), source)
    builder.borders[found] = (top, left, bottom, right)
    return found


def max_of(builder: Builder, module: Any, source: int) -> Value:
    """A max pool as torch has it."""
    if pair(module.dilation) != (1, 1) or module.return_indices:
        raise UncheckableError("max pooling with dilation or indices")
    down, across = pair(module.padding)
    kernel = pair(module.kernel_size)
    stride = pair(module.stride if module.stride is not None else module.kernel_size)
    border = builder.borders.get(source, (0, 0, 0, 0))
    pads = (border[0] + down, border[1] + across, border[2] + down, border[3] + across)
    if module.ceil_mode:
        bottom, right = beyond(builder.shapes[source], kernel, stride, pads)
        pads = (pads[0], pads[1], pads[2] + bottom, pads[3] + right)
    return max_pool(builder, source, kernel, stride, pads)


def beyond(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
) -> tuple[int, int]:
    """What hangs over below and on the right where a number of windows is rounded up.

    The last window begins on the map or its upper left padding, else it is left out, as in torch.
    """
    found = []
    for axis in (0, 1):
        before, after = pads[axis], pads[axis + 2]
        size = shape[-2 + axis] + before + after
        num = -(-(size - kernel[axis]) // stride[axis]) + 1
        if (num - 1) * stride[axis] >= shape[-2 + axis] + before:
            num -= 1
        found.append(max(0, (num - 1) * stride[axis] + kernel[axis] - size))
    return found[0], found[1]


def global_max(builder: Builder, source: int, axes: Sequence[int], keep: bool) -> Value:
    """The largest value of each channel, or of a row's last axis."""
    shape = builder.shapes[source]
    over = sorted(axis % (len(shape) + 1) for axis in axes)
    if len(shape) != 3 or over != [2, 3]:
        raise UncheckableError("a maximum over other axes than height and width")
    whole = shape[1], shape[2]
    found = max_pool(builder, source, whole, whole, (0, 0, 0, 0))
    return found if keep else builder.to_shape(found, [shape[0]], (shape[0], 1, 1))


def pair(value: Any) -> tuple[int, int]:
    """A setting for height and width."""
    found = (value, value) if isinstance(value, int) else tuple(value)
    return int(found[0]), int(found[-1])
