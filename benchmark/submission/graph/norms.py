"""Normalisations over the values of one image, as torch's layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import GraphFaultError

NORMS = (
    *("GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"),
)


def norm_of(
    node: Node, stored: Sequence[np.ndarray | None], shape: Sequence[int], opset: int
) -> nn.Module:
    """The layer of one such operator, in eval mode.

    Args:
        node: the operator.
        stored: its stored operands; the first is the activation's None.
        shape: of the activation, batch first.
        opset: version of the operators.

    Raises:
        GraphFaultError: axes, groups or weights that do not fit.
    """
    scale = stored[1]
    bias = stored[2] if len(stored) > 2 else None
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    assert scale is not None
    stash = node.attributes.get("stash_type", 1)
    if stash != 1:
        raise GraphFaultError(
            "onnx-attribute", f"{node.label}: expected `stash_type` 1 (float32), found {stash}"
        )
    if node.op == "RMSNormalization":
        return _rms_norm(node, scale, tuple(shape), epsilon)
    if node.op == "LayerNormalization":
        return _layer_norm(node, scale, bias, tuple(shape), epsilon)
    channels = shape[1] if len(shape) > 1 else 0
    groups = channels
    if node.op == "GroupNormalization":
        groups = int(node.attributes.get("num_groups", 0))
        if groups < 1 or channels % groups:
            raise GraphFaultError(
                "onnx-sizes", f"{node.label}: expected `num_groups` that divides {channels}"
            )
        if opset < 21:  # one number per group
            scale, bias = (_spread(node, one, groups, channels // groups) for one in (scale, bias))
    if len(shape) < 3 or scale.shape != (channels,) or bias is None or bias.shape != (channels,):
        raise GraphFaultError(
            "onnx-sizes",
            f"{node.label}: expected one scale and one bias per channel, and values behind them",
        )
    return _filled(nn.GroupNorm(groups, channels, eps=epsilon), scale, bias)


def _layer_norm(
    node: Node, scale: np.ndarray, bias: np.ndarray | None, shape: tuple[int, ...], epsilon: float
) -> nn.Module:
    axis = int(node.attributes.get("axis", -1))
    if not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
        raise GraphFaultError("onnx-batch", f"{node.label}: expected an axis of one image")
    over = list(shape[axis % len(shape) :])
    try:
        scale = np.broadcast_to(scale, over)
        bias = np.zeros(over, np.float32) if bias is None else np.broadcast_to(bias, over)
    except ValueError as error:
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: its scale and bias do not fit {over}"
        ) from error
    return _filled(nn.LayerNorm(over, eps=epsilon), scale, bias)


def _rms_norm(node: Node, scale: np.ndarray, shape: tuple[int, ...], epsilon: float) -> nn.Module:
    axis = int(node.attributes.get("axis", -1))
    if not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
        raise GraphFaultError("onnx-batch", f"{node.label}: expected an axis of one image")
    over = list(shape[axis % len(shape) :])
    try:
        scale = np.broadcast_to(scale, over)
    except ValueError as error:
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: its scale does not fit {over}"
        ) from error
    layer = nn.RMSNorm(over, eps=epsilon)
    layer.weight = nn.Parameter(torch.from_numpy(scale.copy()), requires_grad=False)
    return layer.eval()


def _spread(node: Node, array: np.ndarray | None, groups: int, size: int) -> np.ndarray:
    if array is None or array.shape != (groups,):
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: expected one scale and one bias per group"
        )
    return np.repeat(array, size)


def _filled(layer: nn.Module, scale: np.ndarray, bias: np.ndarray) -> nn.Module:
    layer.weight = nn.Parameter(torch.from_numpy(scale.copy()), requires_grad=False)
    layer.bias = nn.Parameter(torch.from_numpy(bias.copy()), requires_grad=False)
    return layer.eval()
