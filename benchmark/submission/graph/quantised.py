"""Pairs of QuantizeLinear and DequantizeLinear (QDQ): whole numbers and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from corobench.benchmark.submission.graph.layers import Quantise
from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import GraphFaultError

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@dataclass(frozen=True)
class Quantised:
    """An activation between QuantizeLinear and DequantizeLinear.

    Attributes:
        source: the activation.
        scale: float32, broadcastable to it.
        zero: whole numbers of the same shape.
        dtype: "int8" or "uint8".
    """

    source: object
    scale: np.ndarray
    zero: np.ndarray
    dtype: str

    def layer(self, node: Node, arrays: Sequence[np.ndarray]) -> Quantise:
        """Both operators as one layer.

        Raises:
            GraphFaultError: the second has another scale or zero point than the first, or has
                them along another axis.
        """
        scale, zero, _ = _scales(node, arrays, self.scale.ndim, None)
        if not (np.array_equal(scale, self.scale) and np.array_equal(zero, self.zero)):
            raise GraphFaultError(
                "onnx-quantised",
                f"{node.label}: expected the scale, zero point and axis of its QuantizeLinear",
            )
        low, high = _RANGES[self.dtype]
        return Quantise(
            torch.from_numpy(self.scale.copy()),
            torch.from_numpy(self.zero.astype(np.float32)),
            low,
            high,
        )


def quantise(node: Node, source: object, arrays: Sequence[np.ndarray], rank: int) -> Quantised:
    """An activation as whole numbers.

    Raises:
        GraphFaultError: scales or zero points of another type or shape, or not positive.
    """
    scale, zero, dtype = _scales(node, arrays, rank, None)
    return Quantised(source, scale, zero, dtype)


def dequantise(
    node: Node, codes: np.ndarray, arrays: Sequence[np.ndarray]
) -> tuple[np.ndarray, bool]:
    """What stored whole numbers stand for, float32, and whether they are 8-bit ones.

    Raises:
        GraphFaultError: other types, or scales that do not fit.
    """
    if codes.dtype not in (np.int8, np.uint8, np.int32):
        raise GraphFaultError("onnx-type", f"{node.label}: expected int8, uint8 or int32")
    scale, zero, _ = _scales(node, arrays, codes.ndim, codes.dtype)
    if codes.dtype == np.int32 and zero.any():
        raise GraphFaultError(
            "onnx-quantised", f"{node.label}: expected no zero point of a bias in int32"
        )
    try:
        found = (codes.astype(np.float32) - zero.astype(np.float32)) * scale
    except ValueError as error:
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: the scales do not match its channels"
        ) from error
    if found.shape != codes.shape:
        raise GraphFaultError("onnx-sizes", f"{node.label}: the scales do not match its channels")
    return found.astype(np.float32), codes.dtype != np.int32


def require_bias(
    node: Node,
    scales: Sequence[tuple[np.ndarray, np.ndarray, bool] | None],
    source: nn.Module | None,
) -> None:
    """Codes in int32 are the bias of a layer, and their scale is that of its sum.

    An engine of whole numbers adds the codes to a sum of products and never reads their scale,
    wherever a fusion finds them.

    Args:
        node: the operator.
        scales: of each operand that is decoded: values, scales, whether of 8-bit codes.
        source: what makes its first operand, before all that only moves values.

    Raises:
        GraphFaultError: another use, or another scale.
    """
    places = [place for place, one in enumerate(scales) if one is not None and not one[2]]
    weight, bias = scales[1] if len(scales) > 1 else None, scales[places[0]]
    is_layer = node.op in ("Conv", "Gemm", "BatchNormalization") and places == [2]
    is_whole = isinstance(source, Quantise) and weight is not None
    if not is_layer or not is_whole or node.attributes.get("alpha", 1.0) != 1.0:
        raise GraphFaultError(
            "onnx-quantised",
            f"{node.label}: expected int32 codes as the bias of a Conv, Gemm (alpha 1) or "
            "BatchNormalization alone, whose input is rounded and whose weights are 8-bit codes "
            "right before it",
        )
    assert isinstance(source, Quantise) and weight is not None and bias is not None
    expected = source.scale.numpy().reshape(-1) * weight[1].reshape(-1)
    try:
        fits = bool(np.allclose(bias[1].reshape(-1), expected, rtol=3e-7, atol=0.0))
    except ValueError:
        fits = False
    if not fits:
        raise GraphFaultError(
            "onnx-quantised",
            f"{node.label}: expected the scale of its int32 bias to be that of its input times "
            "those of its weights, as integer engines take it to be",
        )


def require_rounded(node: Node, num_scales: int, source: nn.Module | None) -> None:
    """A matrix of codes multiplies rounded values.

    onnxruntime rounds others to 8 bits by itself, in blocks with scales of their own, and so it
    does where something stands between a rounding and a matrix with several scales.

    Args:
        node: the operator.
        num_scales: of the codes.
        source: what makes the input; of a matrix with one scale, before all that only moves values.

    Raises:
        GraphFaultError: the input is not rounded.
    """
    if node.op in ("MatMul", "Gemm") and not isinstance(source, Quantise):
        raise GraphFaultError(
            "onnx-quantised",
            f"{node.label}: its matrix is stored as 8-bit codes; expected its input from a pair of "
            "QuantizeLinear and DequantizeLinear (right before it, where the matrix has several "
            "scales), as onnxruntime rounds others by itself; round the input as well, or store "
            "the matrix as float32",
        )


def _scales(
    node: Node, arrays: Sequence[np.ndarray], rank: int, dtype: np.dtype | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Scale and zero point, broadcastable, and the name of the type of the whole numbers."""
    if not 1 <= len(arrays) <= 2 or node.attributes.get("block_size"):
        raise GraphFaultError("onnx-quantised", f"{node.label}: expected a scale and a zero point")
    scale = arrays[0]
    zero = arrays[1] if len(arrays) > 1 else np.zeros_like(scale, dtype=dtype or np.uint8)
    name = str(zero.dtype)
    axis = int(node.attributes.get("axis", 1))
    if (
        scale.dtype != np.float32
        or not (scale >= np.finfo(np.float32).tiny).all()  # below it may be flushed to zero
        or zero.size != scale.size
        or scale.ndim > 1
        or (dtype is None and name not in _RANGES)
        or (dtype is not None and zero.dtype != dtype)
        or (scale.size > 1 and not -rank <= axis < rank)
    ):
        raise GraphFaultError(
            "onnx-quantised",
            f"{node.label}: expected positive float32 scales, one or one per channel, and zero "
            "points of the type of the integers",
        )
    if scale.size == 1 or rank == 0:
        return scale.reshape([1] * rank), zero.reshape([1] * rank), name
    shape = [1] * rank
    shape[axis] = scale.size
    return scale.reshape(shape), zero.reshape(shape), name
