"""Layers over axes of one image as steps of the checker's network: norms, lengths, softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from corobench.benchmark.certify.checker.boxed import Norm, Softmax
from corobench.benchmark.certify.checker.building import Builder, Value, array
from corobench.benchmark.certify.checker.endings import LogSoftmax
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.roots import Length, LengthOf, Normalised
from corobench.benchmark.certify.checker.rounding import Array


def _parameters(module: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    found = []
    for name, otherwise in (("weight", np.ones(())), ("bias", np.zeros(()))):
        stored = getattr(module, name, None)
        if isinstance(stored, Tensor):  # of a layer; a function's have been read
            stored = array(stored)
        found.append(otherwise if stored is None else stored.reshape(shape))
    return found[0], found[1]


def layer_norm(builder: Builder, module: Any, source: int) -> Value:
    shape = builder.shapes[source]
    over = tuple(module.normalized_shape)
    if shape[len(shape) - len(over) :] != over:
        raise UncheckableError("a layer norm of other sizes")
    axes = tuple(range(len(shape) - len(over) + 1, len(shape) + 1))
    weight, bias = _parameters(module, over)
    eps = float(np.float32(module.eps))
    return builder.add(Norm(axes, shape, weight, bias, eps), source)


def group_norm(builder: Builder, module: Any, source: int) -> Value:
    return _grouped(builder, module, source, int(module.num_groups))


def instance_norm(builder: Builder, module: Any, source: int) -> Value:
    if module.running_mean is not None:
        raise UncheckableError("an instance norm with running statistics")
    shape = builder.shapes[source]
    if len(shape) != (3 if isinstance(module, nn.InstanceNorm2d) else 2):
        # With an axis less, torch takes the batch for channels.
        raise UncheckableError("an instance norm of values with an axis less or more")
    return _grouped(builder, module, source, shape[0])


def _grouped(builder: Builder, module: Any, source: int, groups: int) -> Value:
    channels, *rest = builder.shapes[source]
    split = (groups, channels // groups, *rest)
    weight, bias = (
        one if one.ndim == 0 else one.reshape(groups, -1, *[1] * len(rest))
        for one in _parameters(module, (-1,))
    )
    axes = tuple(range(2, len(split) + 1))
    return builder.add(Norm(axes, split, weight, bias, float(np.float32(module.eps))), source)


def rms_norm(builder: Builder, module: Any, source: int) -> Value:
    shape = builder.shapes[source]
    over = tuple(module.normalized_shape)
    if shape[len(shape) - len(over) :] != over or not over:
        raise UncheckableError("an RMS norm of other sizes")
    axes = tuple(range(len(shape) - len(over) + 1, len(shape) + 1))
    weight, _ = _parameters(module, over)
    eps = float(np.finfo(np.float32).eps if module.eps is None else np.float32(module.eps))
    length = Length(axes, shape, True, eps)
    return builder.add(Normalised(length, weight), source)


def _over_axes(builder: Builder, axes: Any, source: int) -> tuple[int, ...]:
    rank = len(builder.shapes[source]) + 1
    given = [axes] if isinstance(axes, int) else list(axes or ())
    found = tuple(sorted(axis % rank for axis in given))
    if not found or found[0] == 0:
        raise UncheckableError("a length that mixes images")
    return found


def length(builder: Builder, source: int, axes: Any, keep: bool) -> Value:
    """The root of a sum of squares over axes."""
    over = Length(_over_axes(builder, axes, source), builder.shapes[source])
    return builder.add(LengthOf(over, keep), source)


def unit_length(builder: Builder, source: int, axes: Any, floor: float) -> Value:
    """Values divided by their length, or by a floor where that is larger."""
    shape = builder.shapes[source]
    over = Length(_over_axes(builder, axes, source), shape, floor=float(np.float32(floor)))
    return builder.add(Normalised(over, np.ones(())), source)


def _along(builder: Builder, axis: int | None, source: int, layer: LogSoftmax | Softmax) -> Value:
    """A layer that works on the last axis, on any axis of one image."""
    shape = builder.shapes[source]
    rank = len(shape) + 1
    if axis is None or axis % rank == 0 or not -rank <= axis < rank:
        raise UncheckableError("a softmax over the batch")
    place = axis % rank - 1
    if place == len(shape) - 1:
        return builder.add(layer, source)
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    moved = np.moveaxis(numbers, place, -1)
    found = builder.add(layer, builder.pick(moved, source))
    back = np.moveaxis(np.arange(numbers.size).reshape(moved.shape), -1, place)
    return builder.pick(back, found)


def log_softmax(builder: Builder, module: Any, source: int) -> Value:
    return _along(builder, module.dim, source, LogSoftmax())


def softmax(builder: Builder, module: Any, source: int) -> Value:
    return _along(builder, module.dim, source, Softmax())
