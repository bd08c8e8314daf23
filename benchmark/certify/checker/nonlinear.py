"""Nonlinear layers of torch and of ONNX files as steps of the checker's network."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.certify.checker import bends, curves, over_axes, pooling
from corobench.benchmark.certify.checker.activations import Curve, Quantise, Relu
from corobench.benchmark.certify.checker.building import (
    Builder,
    Size,
    Value,
    array,
    require,
    require_normal,
)
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.layers import Scale
from corobench.benchmark.certify.checker.roots import (
    Power,
    Root,
)
from corobench.benchmark.certify.checker.rounding import Array

# ------------------------------------------------------------------------------ pieces


def bent(builder: Builder, source: int, bend: bends.Bend) -> Value:
    """The steps of a function of straight pieces: z - kink, its ReLU, and their sum."""
    relus = []
    for kink in bend.kinks:
        at = builder.add(bends.Shift(kink), source) if kink.any() else source
        relus.append(builder.add(Relu(), at))
    return builder.add(bend, source, *relus)


def clipped(builder: Builder, source: int, low: Any, high: Any) -> Value:
    """Values cut to a range; either end may be a number, a stored tensor, or None."""
    ends = [None if end is None else _stored(builder, source, end) for end in (low, high)]
    if ends[1] is None and ends[0] is not None and not ends[0].any():
        return builder.add(Relu(), source)
    if all(end is None for end in ends):
        return Value(source)
    if ends[0] is not None and ends[1] is not None and (ends[0] >= ends[1]).all():
        return builder.add(Scale(np.zeros(()), ends[1]), source)  # the upper end wins
    return bent(builder, source, bends.clip(*ends))


def _stored(builder: Builder, source: int, value: Any) -> Array:
    """A stored operand that broadcasts over one image."""
    if isinstance(value, Value) or (isinstance(value, Size) and value < 0):
        raise UncheckableError("a range or a slope that depends on the image")
    if isinstance(value, Tensor):
        value = array(value)
    found = np.asarray(value, dtype=np.float64)
    if isinstance(value, float | int):
        found = np.asarray(float(np.float32(value)))
    shape = builder.shapes[source]
    while found.ndim > len(shape) and found.shape[0] == 1:
        found = found[0]
    try:
        fits = np.broadcast_shapes(found.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits or not np.isfinite(found).all():
        raise UncheckableError("a constant that changes the shape, or is not finite")
    return found


def larger_or_smaller(builder: Builder, operands: Sequence[Any], is_largest: bool) -> Value:
    """The largest or smallest of values and stored numbers, one after another."""
    values = [one for one in operands if isinstance(one, Value)]
    constants = [one for one in operands if not isinstance(one, Value)]
    if not values or len({builder.shapes[value] for value in values}) > 1:
        raise UncheckableError("a maximum or minimum of values of unequal shapes")
    found = values[0]
    for value in values[1:]:
        found = pooling.extreme(builder, found, value, is_largest)
    for constant in constants:
        found = clipped(builder, found, *((constant, None) if is_largest else (None, constant)))
    return found


def _prelu(builder: Builder, source: int, slope: Array) -> Value:
    """A slope below 0 for all values, or one per channel as torch has it."""
    rank = len(builder.shapes[source])
    slope = slope.reshape(()) if slope.size == 1 else slope.reshape(-1, *[1] * (rank - 1))
    return bent(builder, source, bends.leaky(_stored(builder, source, slope)))


def _number(value: Any) -> Array:
    return np.asarray(float(np.float32(value)))


def _hard_sigmoid(builder: Builder, source: int, slope: float, middle: float) -> Value:
    return bent(builder, source, bends.hard_sigmoid(slope, middle))


# ------------------------------------------------------------------------------ curves


def _elu(builder: Builder, module: Any, source: int) -> Value:
    alpha = float(np.float32(module.alpha))
    if isinstance(module, nn.CELU):
        if not 2.0**-100 <= alpha <= 2.0**20:
            raise UncheckableError("a CELU whose alpha is not a plain number above 0")
        return builder.add(curves.Smooth(curves.celu(alpha)), source)
    if not abs(alpha) <= 2.0**20:
        raise UncheckableError("an ELU whose alpha is above 2**20")
    if alpha == 0:
        return builder.add(Relu(), source)
    return builder.add(curves.Smooth(curves.elu(alpha)), source)


def _softplus(builder: Builder, module: Any, source: int) -> Value:
    beta = float(np.float32(module.beta))
    if not (2.0**-10 <= beta <= 2.0**10 and 20 <= module.threshold <= 80):
        raise UncheckableError("a softplus with a threshold below 20 or above 80, or such a beta")
    return builder.add(curves.Smooth(curves.softplus(beta)), source)


def smooth(name: str) -> Callable[[Builder, Any, int], Value]:
    """What adds a curve of `curves.CURVES`."""
    return lambda builder, module, source: builder.add(curves.Smooth(curves.CURVES[name]), source)


def _gelu(builder: Builder, module: Any, source: int) -> Value:
    name = {"none": "gelu", "tanh": "gelu_tanh"}[module.approximate]
    return smooth(name)(builder, module, source)


def _power(builder: Builder, source: int, exponent: int) -> Value:
    if exponent == 1:
        return Value(source)
    if exponent != 2:
        return builder.add(Power(exponent), source)
    return builder.product(Value(source), Value(source))


# ------------------------------------------------------------------------------ axes


def _reduced(builder: Builder, module: Any, source: int) -> Value:
    if module.function is torch.linalg.vector_norm:
        return over_axes.length(builder, source, module.axes, bool(module.keep))
    if module.function is torch.sum:
        return builder.mean_over(source, list(module.axes), bool(module.keep), is_mean=False)
    return pooling.global_max(builder, source, module.axes, bool(module.keep))


def _flattened(builder: Builder, module: Any, source: int) -> Value:
    """A layer on the last axis, with an axis and all behind it as one."""
    shape = builder.shapes[source]
    value = builder.flatten(source, module.axis, -1)
    for kinds, add in LAYERS:
        if isinstance(module.layer, kinds):
            return builder.to_shape(add(builder, module.layer, value), list(shape), shape)
    raise UncheckableError(f"the layer {type(module.layer).__name__} on such an axis")


def _quantise(builder: Builder, module: Any, source: int) -> Value:
    scale, zero = array(module.scale), array(module.zero)
    if not (scale > 0).all():
        raise UncheckableError("steps of a size that is not positive")
    require_normal("a size of steps", scale)
    rank = len(builder.shapes[source])
    scale, zero = (one[0] if one.ndim > rank and len(one) == 1 else one for one in (scale, zero))
    return builder.add(Quantise(scale, zero, int(module.low), int(module.high)), source)


# ------------------------------------------------------------------------------ tables

_Add = Callable[[Builder, Any, int], Value]

LAYERS: tuple[tuple[Any, _Add], ...] = (
    (nn.ReLU, lambda builder, module, source: builder.add(Relu(), source)),
    (nn.Sigmoid, lambda builder, module, source: builder.add(Curve("sigmoid"), source)),
    (nn.Tanh, lambda builder, module, source: builder.add(Curve("tanh"), source)),
    (
        nn.Hardtanh,  # nn.ReLU6 is one
        lambda builder, module, source: clipped(builder, source, module.min_val, module.max_val),
    ),
    (
        nn.LeakyReLU,
        lambda builder, module, source: bent(
            builder, source, bends.leaky(_number(module.negative_slope))
        ),
    ),
    (
        nn.PReLU,
        lambda builder, module, source: _prelu(builder, source, array(module.weight)),
    ),
    (
        nn.Hardsigmoid,
        lambda builder, module, source: _hard_sigmoid(builder, source, 1.0 / 6.0, 0.5),
    ),
    (nn.MaxPool2d, pooling.max_of),
    ((nn.ELU, nn.CELU), _elu),
    (nn.SELU, smooth("selu")),
    (nn.SiLU, smooth("silu")),
    (nn.Mish, smooth("mish")),
    (nn.Hardswish, smooth("hardswish")),
    (nn.GELU, _gelu),
    (nn.Softplus, _softplus),
    (nn.Softsign, smooth("softsign")),
    (nn.RMSNorm, over_axes.rms_norm),
    (nn.LayerNorm, over_axes.layer_norm),
    (nn.GroupNorm, over_axes.group_norm),
    ((nn.InstanceNorm1d, nn.InstanceNorm2d), over_axes.instance_norm),
    (nn.LogSoftmax, over_axes.log_softmax),
    (nn.Softmax, over_axes.softmax),
)

NAMED: dict[str, _Add] = {
    "Clip": lambda builder, module, source: clipped(builder, source, module.low, module.high),
    "GlobalMaxPool": lambda builder, module, source: pooling.global_max(
        builder, source, range(2, len(builder.shapes[source]) + 1), True
    ),
    "Hardsigmoid": lambda builder, module, source: _hard_sigmoid(
        builder, source, _float32(module.alpha), _float32(module.beta)
    ),
    "LowestPad": pooling.lowest_border,
    "Power": lambda builder, module, source: _power(builder, source, int(module.exponent)),
    "Quantise": _quantise,
    "_Reduced": _reduced,
    "Flattened": _flattened,
    "UnitLength": lambda builder, module, source: over_axes.unit_length(
        builder, source, module.axis, 0.0
    ),
}
"""Layers of ONNX files, by name."""

SEVERAL: dict[str, Callable[[Builder, list[Any]], Value]] = {
    "Max": lambda builder, operands: larger_or_smaller(builder, operands, True),
    "Min": lambda builder, operands: larger_or_smaller(builder, operands, False),
    "PRelu": lambda builder, operands: bent(
        builder,
        require(operands[0]),
        bends.leaky(_stored(builder, require(operands[0]), operands[1])),
    ),
}
"""Layers of ONNX files that read more than one operand."""

CALLED: dict[Any, type[nn.Module]] = {
    F.relu6: nn.ReLU6,
    F.hardtanh: nn.Hardtanh,
    F.leaky_relu: nn.LeakyReLU,
    F.hardsigmoid: nn.Hardsigmoid,
    F.max_pool2d: nn.MaxPool2d,
    F.elu: nn.ELU,
    F.celu: nn.CELU,
    **dict.fromkeys((F.selu, torch.selu), nn.SELU),
    F.silu: nn.SiLU,
    F.mish: nn.Mish,
    F.hardswish: nn.Hardswish,
    F.gelu: nn.GELU,
    F.softplus: nn.Softplus,
    F.softsign: nn.Softsign,
    **dict.fromkeys((F.log_softmax, torch.log_softmax, "log_softmax"), nn.LogSoftmax),
    **dict.fromkeys((F.softmax, torch.softmax, "softmax"), nn.Softmax),
}
"""Functions and methods, and the layer that takes their settings in the same order."""

_NORMS: dict[Any, tuple[tuple[str, ...], _Add]] = {
    F.layer_norm: (("normalized_shape", "weight", "bias", "eps"), over_axes.layer_norm),
    F.group_norm: (("num_groups", "weight", "bias", "eps"), over_axes.group_norm),
    F.rms_norm: (("normalized_shape", "weight", "eps"), over_axes.rms_norm),
}
"""Functions, the names of their settings in order, and what adds the norm."""

_CLAMPS = (torch.clamp, torch.clip, "clamp", "clip")


def call(builder: Builder, target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """The steps of a function or method; None where it is none of those here.

    Raises:
        UncheckableError: a use of it that is not known.
    """
    given = {key: value for key, value in keywords.items() if value is not None}
    if target in CALLED:
        given.pop("_stacklevel", None)
        layer = CALLED[target](*arguments[1:], **given).eval()
        for kinds, add in LAYERS:
            if isinstance(layer, kinds):
                return add(builder, layer, require(arguments[0]))
    if target in _CLAMPS:
        ends = dict(zip(("min", "max"), arguments[1:], strict=False)) | given
        if set(ends) - {"min", "max"}:
            raise UncheckableError("such a keyword of clamp")
        return clipped(builder, require(arguments[0]), ends.get("min"), ends.get("max"))
    if target in (torch.abs, "abs") and not given:
        return bent(builder, require(arguments[0]), bends.absolute())
    if target in (torch.maximum, torch.minimum, "maximum", "minimum") and not given:
        is_largest = target in (torch.maximum, "maximum")
        return larger_or_smaller(builder, arguments, is_largest)
    if target in (F.prelu, torch.prelu) and not given:
        if not isinstance(arguments[1], np.ndarray):
            raise UncheckableError("a slope that depends on the image")
        return _prelu(builder, require(arguments[0]), arguments[1])
    return _written(builder, target, arguments, given)


def _written(builder: Builder, target: Any, arguments: list[Any], given: dict[str, Any]) -> Any:
    """Norms, borders and powers written as functions; None for anything else."""
    if target in _NORMS:
        names, kind = _NORMS[target]
        settings = dict(zip(names, arguments[1:], strict=False)) | given
        given_eps = settings.setdefault("eps", None if target is F.rms_norm else 1e-5)
        known = SimpleNamespace(**dict.fromkeys((*names, "weight", "bias")), running_mean=None)
        vars(known).update(settings, eps=given_eps)
        return kind(builder, known, require(arguments[0]))
    if target in (torch.clamp_min, "clamp_min", torch.clamp_max, "clamp_max"):
        end = arguments[1] if len(arguments) > 1 else next(iter(given.values()), None)
        is_low = "min" in str(getattr(target, "__name__", target))
        return clipped(builder, require(arguments[0]), *((end, None) if is_low else (None, end)))
    if target is F.pad and given.pop("mode", "constant") == "constant":
        pads = dict(zip(("pad", "value"), arguments[1:], strict=False)) | given
        if set(pads) <= {"pad", "value"} and len(pads["pad"]) in (2, 4, 6):
            return builder.pad(list(pads["pad"]), pads.get("value") or 0.0, require(arguments[0]))
    if target is F.dropout and not (dict(enumerate(arguments)) | given).get("training", True):
        return arguments[0]
    if target is F.normalize:
        known_ones = dict(zip(("p", "dim", "eps"), arguments[1:], strict=False)) | given
        if set(known_ones) - {"p", "dim", "eps"} or float(known_ones.get("p", 2.0)) != 2.0:
            raise UncheckableError("such a norm of rows")
        source = require(arguments[0])
        return over_axes.unit_length(
            builder, source, known_ones.get("dim", 1), float(known_ones.get("eps", 1e-12))
        )
    exponent = None
    if target in (torch.square, "square") and len(arguments) == 1:
        exponent = 2.0
    elif target in (operator.pow, torch.pow, "pow") and len(arguments) == 2:
        exponent = arguments[1]
    if isinstance(exponent, int | float) and not isinstance(exponent, Value) and not given:
        if exponent in range(1, 9):
            return _power(builder, require(arguments[0]), int(exponent))
        if exponent == 0.5:
            return builder.add(Root(), require(arguments[0]))
    if target in (torch.amax, "amax"):
        axes = given.get("dim", arguments[1] if len(arguments) > 1 else None)
        keep = bool(given.get("keepdim", len(arguments) > 2 and arguments[2]))
        over = [axes] if isinstance(axes, int) else list(axes or ())
        rank = len(builder.shapes[require(arguments[0])]) + 1
        return pooling.global_max(builder, require(arguments[0]), [a % rank for a in over], keep)
    return None


def _float32(value: Any) -> float:
    return float(np.float32(value))
