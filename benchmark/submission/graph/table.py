"""Operators of an ONNX graph -> modules that compute them, one row each.

A module of torch wherever torch has one, with torch's defaults put to those of ONNX; else a layer
of `layers.py`. What does not fit raises, and is refused by name.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from corobench.benchmark.submission.graph.layers import (
    AveragePool,
    DilatedAveragePool,
    Elementwise,
    Flattened,
    GlobalAveragePool,
    GlobalMaxPool,
    Hardsigmoid,
    LowestPad,
    Max,
    Min,
    PRelu,
    Transpose,
    UnitLength,
    WithConstants,
)
from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import GraphFaultError, shown

Shape = tuple[int, ...]
_KEYS = (("strides", "stride", 1), ("dilations", "dilation", 1), ("pads", "padding", 2))
"""Settings of a window: in ONNX, in torch, and how many numbers there are for an axis."""
_PADS: Mapping[int, Any] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d, 3: nn.ConstantPad3d}
_MEANS: Mapping[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_MAXIMA: Mapping[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_SELU = (("alpha", 1.6732632423543772), ("gamma", 1.0507009873554805))
_NORMS: Mapping[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


@dataclass(frozen=True)
class _Use:
    """One operator: the node, its stored operands, the shape of its activation, its version."""

    node: Node
    stored: Sequence[np.ndarray | None]
    shape: Shape
    opset: int

    def get(self, key: str, default: Any) -> Any:
        return self.node.attributes.get(key, default)

    def fault(self, rule: str, text: str) -> GraphFaultError:
        return GraphFaultError(rule, f"{self.node.label}: {text}")


def module_from_table(
    node: Node, stored: Sequence[np.ndarray | None], shape: Shape, opset: int
) -> nn.Module:
    """The module of an operator in `TABLE`, in eval mode; it takes all operands but weights.

    Args:
        node: the operator.
        stored: its stored operands; None where one comes from the graph or is left out.
        shape: of the first operand that comes from the graph, batch first.
        opset: version of the operators.

    Raises:
        GraphFaultError: a use of the operator that is not supported.
    """
    use = _Use(node, stored, shape, opset)
    if [] in node.attributes.values():
        raise use.fault("onnx-attribute", "expected numbers in each attribute")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TABLE[node.op](use).eval()
    except GraphFaultError:
        raise
    except Exception as error:  # layers of torch raise anything for settings they do not take
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise use.fault("onnx-attribute", reason) from error


def with_weights(layer: nn.Module, weight: np.ndarray, bias: np.ndarray | None) -> nn.Module:
    """A layer that was made without numbers, with copies of these."""
    layer.weight = nn.Parameter(torch.from_numpy(weight.copy()), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(torch.from_numpy(bias.copy()), requires_grad=False)
    return layer


# ------------------------------------------------------------------------------ windows


def _window(use: _Use, kernel: Shape) -> tuple[dict[str, Any], list[int]]:
    """Settings of a layer with a window, and the border that such a layer does not add itself.

    Returns:
        Keywords of torch's layers, and pads before and after each axis, the last axis first; none
        where there is no border, or `padding` is it.
    """
    num_axes = len(kernel)
    found: dict[str, Any] = {"kernel_size": kernel, "stride": 1}
    for key, name, each in _KEYS:
        numbers = use.get(key, None)
        if numbers is None:
            continue
        if len(numbers) != each * num_axes or min(numbers) < (0 if key == "pads" else 1):
            raise use.fault(
                "onnx-attribute", f"expected {each * num_axes} numbers that are sizes as `{key}`"
            )
        found[name] = tuple(numbers)
    pads = found.pop("padding", (0,) * (2 * num_axes))
    before, after = pads[:num_axes], pads[num_axes:]
    mode = use.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = _same(use, found, is_upper=mode == "SAME_UPPER")
    elif mode == "VALID":
        before = after = (0,) * num_axes
    elif mode != "NOTSET":
        raise use.fault("onnx-attribute", "`auto_pad` is not supported")
    elif before == after:
        found["padding"] = before if "pads" in use.node.attributes else 0
        return found, []
    border = [pad for pair in zip(before[::-1], after[::-1], strict=True) for pad in pair]
    return found | {"padding": 0}, border if any(border) else []


def _same(use: _Use, window: Mapping[str, Any], *, is_upper: bool) -> tuple[Shape, Shape]:
    """Pads before and after each axis with which a window gives ceil(size / stride) values."""
    sizes, num_axes = use.shape[2:], len(window["kernel_size"])
    if len(sizes) != num_axes:
        raise use.fault("onnx-sizes", f"expected {num_axes} axes behind the channels")
    strides, dilations = (
        window[key] if isinstance(window.get(key), tuple) else (1,) * num_axes
        for key in ("stride", "dilation")
    )
    if max(dilations) > 1:  # onnxruntime pads a pooling as if there were none
        raise use.fault("onnx-attribute", "`auto_pad` together with `dilations`")
    totals = [
        (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
        for size, kernel, stride, dilation in zip(
            sizes, window["kernel_size"], strides, dilations, strict=True
        )
    ]
    # One value that no window reaches is the last. Of more, onnxruntime begins behind half of them.
    if min(totals) < -1:
        raise use.fault("onnx-attribute", "`auto_pad` with values that no window reaches")
    totals = [max(0, total) for total in totals]
    smaller, larger = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (smaller, larger) if is_upper else (larger, smaller)


def _conv(use: _Use) -> nn.Module:
    weight, bias = use.stored[1], use.stored[2] if len(use.stored) > 2 else None
    assert weight is not None
    if weight.ndim != 4:
        raise use.fault("onnx-attribute", "expected two spatial axes")
    if not weight.size or (bias is not None and bias.shape != weight.shape[:1]):
        raise use.fault("onnx-sizes", f"weights {weight.shape} without numbers, or another bias")
    kernel = weight.shape[2:]
    if tuple(use.get("kernel_shape", kernel)) != kernel:
        raise use.fault("onnx-attribute", "`kernel_shape` is not that of its weights")
    window, border = _window(use, kernel)
    groups = int(use.get("group", 1))
    sizes = (weight.shape[1] * groups, weight.shape[0])
    with torch.device("meta"):
        layer = nn.Conv2d(*sizes, groups=groups, bias=bias is not None, **window)
    with_weights(layer, weight, bias)
    return nn.Sequential(_PADS[2](border, 0), layer) if border else layer


def _pool(use: _Use) -> tuple[dict[str, Any], list[int], int]:
    kernel = tuple(use.get("kernel_shape", ()))
    if len(kernel) not in _MEANS:
        raise use.fault("onnx-attribute", "expected a `kernel_shape` of 1 to 3 axes")
    window, border = _window(use, kernel)
    window |= {"ceil_mode": bool(use.get("ceil_mode", 0))}
    if border and window["ceil_mode"]:
        border = _without_windows_in_the_border(use, window, border)
    return window, border, len(kernel)


def _without_windows_in_the_border(
    use: _Use, window: Mapping[str, Any], border: Sequence[int]
) -> list[int]:
    """The border without the end in which a last window would lie that begins in it: it is none."""
    found = list(border)
    num_axes = len(window["kernel_size"])
    for axis in range(num_axes):
        stride, step = (
            window[key][axis] if isinstance(window.get(key), tuple) else 1
            for key in ("stride", "dilation")
        )
        kernel = (window["kernel_size"][axis] - 1) * step + 1
        place = 2 * (num_axes - 1 - axis)
        begin = use.shape[2 + axis] + found[place]
        num = -(-(begin + found[place + 1] - kernel) // stride) + 1
        if (num - 1) * stride >= begin:
            end = (num - 2) * stride + kernel
            found[place + 1] = max(begin, min(begin + found[place + 1], end)) - begin
    return found


def _max_pool(use: _Use) -> nn.Module:
    window, border, num_axes = _pool(use)
    layer: nn.Module = _MAXIMA[num_axes](**window)
    return nn.Sequential(LowestPad(border), layer) if border else layer


def _average_pool(use: _Use) -> nn.Module:
    """Pads count only where `count_include_pad` says so; ONNX's default is the other of torch's."""
    window, border, num_axes = _pool(use)
    counts_pads = bool(use.get("count_include_pad", 0))
    dilation = window.pop("dilation", ())
    layer: nn.Module
    if any(step != 1 for step in dilation):
        if window["ceil_mode"]:
            raise use.fault("onnx-attribute", "`dilations` together with `ceil_mode`")
        padding = window["padding"] or (0,) * num_axes
        border = border or [pad for pad in padding[::-1] for _ in range(2)]
        stride = window["stride"] if window["stride"] != 1 else (1,) * num_axes
        layer = DilatedAveragePool(window["kernel_size"], stride, dilation)
    else:
        layer = _MEANS[num_axes](**window, count_include_pad=bool(border) or counts_pads)
    if not any(border):
        return layer
    pad = _PADS[num_axes](border, 0)
    return nn.Sequential(pad, layer) if counts_pads else AveragePool(layer, pad)


# ------------------------------------------------------------------------------ others


def _batch_norm(use: _Use) -> nn.Module:
    kind = _NORMS.get(len(use.shape))
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = [array for array in use.stored if array is not None]
    if kind is None or any(one.shape != (arrays[0].size,) for one in arrays):
        raise use.fault("onnx-sizes", "expected 2 to 4 axes, and four tensors of one number each")
    epsilon = float(use.get("epsilon", 1e-5))
    if bool((arrays[3] + np.float32(epsilon) <= 0).any()):
        raise use.fault(
            "onnx-weights",
            f"expected variances above 0 in {shown(use.node.inputs[4])}, but the smallest is "
            f"{float(arrays[3].min()):.3g}, whose root is NaN; train on, or set it to 0",
        )
    norm: nn.Module = kind(arrays[0].size, eps=epsilon)
    tensors = (torch.from_numpy(array.copy()) for array in arrays)
    norm.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    return norm


def _hard_sigmoid(use: _Use) -> nn.Module:
    alpha, beta = float(use.get("alpha", 0.2)), float(use.get("beta", 0.5))
    is_torchs = math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5
    return nn.Hardsigmoid() if is_torchs else Hardsigmoid(alpha, beta)


def _selu(use: _Use) -> nn.Module:
    """torch's own where the numbers are its own, else ``gamma * elu(x, alpha)``."""
    alpha, gamma = (float(use.get(key, default)) for key, default in _SELU)
    if all(math.isclose(use.get(key, default), default, rel_tol=1e-6) for key, default in _SELU):
        return nn.SELU()
    factor = torch.tensor(gamma, dtype=torch.float32)
    return nn.Sequential(
        nn.ELU(alpha), WithConstants(Elementwise(torch.mul), [None, factor]).eval()
    )


def _normalised(use: _Use, kind: Callable[[int], nn.Module]) -> nn.Module:
    """Softmax over one axis; before version 13 over that axis and all behind it, as one."""
    is_one, rank = use.opset >= 13, len(use.shape)
    axis = int(use.get("axis", -1 if is_one else 1))
    if not -rank <= axis < rank:
        raise use.fault("onnx-sizes", "expected `axis` within its rank")
    if is_one or axis % rank == rank - 1:
        return kind(axis)
    return Flattened(kind(-1), axis % rank)


def _unit_length(use: _Use) -> nn.Module:
    """LpNormalization of order 2 over one axis of an image."""
    axis, rank = int(use.get("axis", -1)), len(use.shape)
    if not -rank <= axis < rank or axis % rank == 0:
        raise use.fault("onnx-batch", "expected an axis of one image")
    if use.get("p", 2) != 2:
        raise use.fault(
            "onnx-attribute", "expected p = 2; write another norm with Abs, ReduceSum and Div"
        )
    return UnitLength(axis)


def _transpose(use: _Use) -> nn.Module:
    order = use.get("perm", None)
    if len(use.shape) > 1 and (not isinstance(order, list) or order[0] != 0):
        raise use.fault(
            "onnx-batch",
            "would move the batch, which stays the first axis. nn.MultiheadAttention moves it, and "
            "so does a permute that puts q, k and v first: write q, k, v = linear(x).chunk(3, -1), "
            "then q.reshape(batch, tokens, heads, -1).transpose(1, 2), and "
            "scaled_dot_product_attention",
        )
    return Transpose(order)


TABLE: Mapping[str, Callable[[_Use], nn.Module]] = {
    "Abs": lambda use: Elementwise(torch.abs),
    "Add": lambda use: Elementwise(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Celu": lambda use: nn.CELU(float(use.get("alpha", 1.0))),
    "Conv": _conv,
    "Div": lambda use: Elementwise(torch.div),
    "Elu": lambda use: nn.ELU(float(use.get("alpha", 1.0))),
    "Erf": lambda use: Elementwise(torch.erf),
    "Gelu": lambda use: nn.GELU(use.get("approximate", "none")),
    "GlobalAveragePool": lambda use: GlobalAveragePool(),
    "GlobalMaxPool": lambda use: GlobalMaxPool(),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda use: nn.Hardswish(),
    "LeakyRelu": lambda use: nn.LeakyReLU(float(use.get("alpha", 0.01))),
    "LogSoftmax": lambda use: _normalised(use, nn.LogSoftmax),
    "LpNormalization": _unit_length,
    "Max": lambda use: Max(),
    "MaxPool": _max_pool,
    "Min": lambda use: Min(),
    "Mish": lambda use: nn.Mish(),
    "Mul": lambda use: Elementwise(torch.mul),
    "Neg": lambda use: Elementwise(torch.neg),
    "PRelu": lambda use: PRelu(),
    "Reciprocal": lambda use: Elementwise(torch.reciprocal),
    "Relu": lambda use: nn.ReLU(),
    "Selu": _selu,
    "Sigmoid": lambda use: nn.Sigmoid(),
    "Softmax": lambda use: _normalised(use, nn.Softmax),
    "Softplus": lambda use: nn.Softplus(beta=1),
    "Softsign": lambda use: nn.Softsign(),
    "Sub": lambda use: Elementwise(torch.sub),
    "Tanh": lambda use: nn.Tanh(),
    "Transpose": _transpose,
}
"""Operator -> what makes its module. The rest of the list in `rules.py` is in `operators.py`."""
