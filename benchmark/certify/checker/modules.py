"""Layers of torch and of ONNX files as steps of the checker's network."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from corobench.benchmark.certify.checker import nonlinear, pooling, rearranging
from corobench.benchmark.certify.checker.activations import Curve
from corobench.benchmark.certify.checker.averages import AveragePool
from corobench.benchmark.certify.checker.building import (
    LEAST_DIVISOR,
    Builder,
    Value,
    array,
    require,
    require_normal,
)
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.layers import Conv, Linear, Scale
from corobench.benchmark.certify.checker.roots import Quotient, Root
from corobench.benchmark.certify.checker.rounding import SMALLEST, Array

NOTHING = nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d
"""Layers that give what they get, in eval mode."""

_KINDS: dict[Any, str] = {
    **dict.fromkeys((operator.add, torch.add), "add"),
    **dict.fromkeys((operator.sub, torch.sub), "sub"),
    **dict.fromkeys((operator.mul, torch.mul), "mul"),
    **dict.fromkeys((operator.truediv, torch.div, torch.true_divide), "div"),
}

NEGATIVE = (operator.neg, torch.neg, torch.negative)


def add_module(builder: Builder, module: Any, arguments: list[Any]) -> Value:
    """The steps of one layer.

    Args:
        builder: of the network so far.
        module: the layer, in eval mode.
        arguments: what it is called with; values of the network or stored tensors.

    Raises:
        UncheckableError: names a layer, or a use of one, that the checker does not know.
    """
    name, origin = type(module).__name__, type(module).__module__
    if origin.startswith("torch.") and not origin.startswith("torch.nn.modules."):
        raise UncheckableError(f"the layer {origin}.{name}")
    if module.training and not isinstance(module, nn.Identity):
        raise UncheckableError(f"a {name} in training mode")
    if name == "WithConstants":
        return add_module(builder, module.operator, _with_stored(module, arguments))
    if name == "Elementwise":
        return _elementwise(builder, module, arguments)
    if name in ("Beside", "Concat"):
        return builder.concat(arguments, int(module.axis))
    if name == "_Product":
        first, second = (Value(require(one)) for one in arguments)
        return builder.matrix_product(first, second)
    if name in nonlinear.SEVERAL:
        return nonlinear.SEVERAL[name](builder, arguments)
    source = require(arguments[0])
    for kinds, add in (*_LAYERS, *nonlinear.LAYERS):
        if isinstance(module, kinds):
            return add(builder, module, source)
    for table in (_NAMED, nonlinear.NAMED):
        if name in table:
            return table[name](builder, module, source)
    if type(module) is nn.Sequential:
        found = Value(source)
        for part in module.children():
            found = add_module(builder, part, [found])
        return found
    raise UncheckableError(f"the layer {name}")


def _with_stored(module: Any, arguments: list[Any]) -> list[Any]:
    rest = iter(arguments)
    return [
        getattr(module, f"constant{position}") if stored else next(rest)
        for position, stored in enumerate(module.is_stored)
    ]


def _elementwise(builder: Builder, module: Any, arguments: list[Any]) -> Value:
    if module.function in NEGATIVE and len(arguments) == 1:
        return builder.negative(require(*arguments))
    if module.function is torch.sqrt:
        return builder.add(Root(), require(*arguments))
    if module.function is torch.reciprocal:
        return builder.add(Quotient(), require(*arguments))
    kind = _KINDS.get(module.function)
    if kind is None and module.function is torch.abs:
        return Value(nonlinear.call(builder, torch.abs, arguments, {}))
    if kind is None and module.function is torch.erf:
        return builder.add(Curve("erf"), require(*arguments))
    if kind is None:
        raise UncheckableError(f"the operator {module.op_name}")
    return builder.binary(kind, *arguments)


def _nothing(builder: Builder, module: Any, source: int) -> Value:
    return Value(source)


def _conv(builder: Builder, module: Any, source: int) -> Value:
    if module.padding_mode != "zeros":
        raise UncheckableError(f"a convolution with padding_mode {module.padding_mode!r}")
    kernel, dilation = pooling.pair(module.kernel_size), pooling.pair(module.dilation)
    if module.padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        top, left = (total // 2 for total in totals)
        pads = (top, left, totals[0] - top, totals[1] - left)
    else:
        down, across = (0, 0) if module.padding == "valid" else pooling.pair(module.padding)
        pads = (down, across, down, across)
    weight, bias = _weights(module)
    layer = Conv(weight, bias, pooling.pair(module.stride), pads, dilation, module.groups)
    return builder.add(layer, source)


def _linear(builder: Builder, module: Any, source: int) -> Value:
    return add_linear(builder, *_weights(module), source)


def add_linear(builder: Builder, weight: Array, bias: Array, source: int) -> Value:
    """A linear layer on the last axis; on several rows it is a convolution of one value."""
    shape = builder.shapes[source]
    if len(shape) == 1:
        return builder.add(Linear(weight, bias), source)
    num_rows = int(np.prod(shape[:-1]))
    numbers = np.arange(num_rows * shape[-1]).reshape(num_rows, shape[-1])
    columns = builder.pick(numbers.T[:, :, None], source)
    window = (1, 1)
    layer = Conv(weight[:, :, None, None], bias, window, (0, 0, 0, 0), window, 1)
    found = builder.add(layer, columns)
    numbers = np.arange(num_rows * len(weight)).reshape(len(weight), num_rows)
    return builder.pick(numbers.T.reshape(*shape[:-1], len(weight)), found)


def add_convolution(builder: Builder, given: dict[str, Any]) -> Value:
    """A convolution written as a function, by the names of its arguments."""
    weight, bias, padding = given["weight"], given.get("bias"), given.get("padding", 0)
    if isinstance(padding, str) or not isinstance(weight, np.ndarray) or isinstance(bias, Value):
        raise UncheckableError("a convolution whose weights or padding are computed")
    down, across = pooling.pair(padding)
    layer = Conv(
        weight,
        np.zeros(len(weight)) if bias is None else bias,
        pooling.pair(given.get("stride", 1)),
        (down, across, down, across),
        pooling.pair(given.get("dilation", 1)),
        int(given.get("groups", 1)),
    )
    return builder.add(layer, require(given["input"]))


def _weights(module: Any) -> tuple[Array, Array]:
    weight = array(module.weight)
    return weight, np.zeros(len(weight)) if module.bias is None else array(module.bias)


def _batch_norm(builder: Builder, module: Any, source: int) -> Value:
    if module.running_mean is None or module.running_var is None:
        raise UncheckableError("a batch-norm without running statistics")
    mean, variance = array(module.running_mean), array(module.running_var)
    weight = np.ones_like(mean) if module.weight is None else array(module.weight)
    bias = np.zeros_like(mean) if module.bias is None else array(module.bias)
    if not (variance >= 0).all():  # it may cancel against eps, which is no float32 everywhere
        raise UncheckableError("a batch-norm with a variance below 0")
    spread = variance + float(np.float32(module.eps))
    if not (spread >= LEAST_DIVISOR).all():
        raise UncheckableError(f"a batch-norm with a variance below {LEAST_DIVISOR:.2e}")
    if ((weight != 0) & (np.abs(weight) < SMALLEST)).any():
        raise UncheckableError("a batch-norm weight that may be flushed to zero")
    inverse = 1.0 / np.sqrt(spread)
    scale = weight * inverse
    shape = (-1, *[1] * (len(builder.shapes[source]) - 1))
    parts = np.abs(mean * scale) + np.abs(bias)
    layer = Scale(
        scale.reshape(shape),
        (bias - mean * scale).reshape(shape),
        parts.reshape(shape),
        inside=np.maximum(np.abs(weight), inverse).reshape(shape),
        before=mean.reshape(shape),
    )
    return builder.add(layer, source)


def _normalize(builder: Builder, module: Any, source: int) -> Value:
    mean, std = array(module.mean)[:, None, None], array(module.std)[:, None, None]
    require_normal("a standard deviation", std)
    return builder.add(Scale(1 / std, -mean / std, np.abs(mean / std), before=mean), source)


def _average(builder: Builder, module: Any, source: int) -> Value:
    if module.divisor_override:
        raise UncheckableError("average pooling with a divisor of its own")
    down, across = pooling.pair(module.padding)
    pads = (down, across, down, across)
    return _averaged(builder, module, source, pads, module.count_include_pad)


def _averaged(
    builder: Builder, module: Any, source: int, pads: tuple[int, int, int, int], counts: bool
) -> Value:
    """Means of windows; what hangs over where their number is rounded up counts nowhere."""
    kernel, shape = pooling.pair(module.kernel_size), builder.shapes[source]
    stride = pooling.pair(module.stride if module.stride is not None else module.kernel_size)
    over = pooling.beyond(shape, kernel, stride, pads) if module.ceil_mode else (0, 0)
    layer = AveragePool(kernel, stride, pads, bool(counts), shape, over)
    return builder.add(layer, source)


def _padded_average(builder: Builder, module: Any, source: int) -> Value:
    """Means over windows of a padded map in which the border does not count."""
    pads = list(module.pad.padding)
    inner = pooling.pair(getattr(module.pool, "padding", 0))
    if type(module.pool) is not nn.AvgPool2d or inner != (0, 0) or module.pool.ceil_mode:
        raise UncheckableError("average pooling of such windows")
    left, right, top, bottom = pads
    return _averaged(builder, module.pool, source, (top, left, bottom, right), False)


def _adaptive(builder: Builder, module: Any, source: int) -> Value:
    shape = builder.shapes[source]
    wanted = module.output_size
    wanted = wanted if isinstance(wanted, tuple | list) else (wanted, wanted)
    sizes = [
        have if want is None else int(want) for want, have in zip(wanted, shape[-2:], strict=True)
    ]
    if any(have % want for want, have in zip(sizes, shape[-2:], strict=True)):
        raise UncheckableError("adaptive pooling to sizes that do not divide the map")
    kernel = (shape[-2] // sizes[0], shape[-1] // sizes[1])
    return builder.add(AveragePool(kernel, kernel, (0, 0, 0, 0), True, shape), source)


def _rearranged(builder: Builder, module: Any, source: int) -> Value:
    (places,) = rearranging.places_of(module, builder.shapes[source])
    return builder.pick(places, source)


_Add = Callable[[Builder, Any, int], Value]
_LAYERS: tuple[tuple[Any, _Add], ...] = (
    (NOTHING, _nothing),
    (nn.Conv2d, _conv),
    (nn.Linear, _linear),
    ((nn.BatchNorm1d, nn.BatchNorm2d), _batch_norm),
    (rearranging.MODULES, _rearranged),
    (
        nn.Flatten,
        lambda builder, module, source: builder.flatten(source, module.start_dim, module.end_dim),
    ),
    (nn.AvgPool2d, _average),
    (nn.AdaptiveAvgPool2d, _adaptive),
    (
        (nn.ZeroPad2d, nn.ConstantPad2d),
        lambda builder, module, source: builder.pad(
            list(module.padding), float(getattr(module, "value", 0.0)), source
        ),
    ),
)
_NAMED: dict[str, _Add] = {
    "AveragePool": _padded_average,
    **dict.fromkeys(rearranging.NAMED, _rearranged),
    "GlobalAveragePool": lambda builder, module, source: builder.mean_over(
        source, tuple(range(2, len(builder.shapes[source]) + 1)), True
    ),
    "Mean": lambda builder, module, source: builder.mean_over(
        source, tuple(module.axes), bool(module.keep)
    ),
    "Normalize": _normalize,
    "Pad": lambda builder, module, source: builder.pad(
        list(module.pads), float(module.value), source
    ),
    "Reshape": lambda builder, module, source: builder.to_shape(
        source, list(module.shape), builder.shapes[source]
    ),
}
"""Layers of architectures and of ONNX files, by name: the tracer stops at no other class of these
names."""
