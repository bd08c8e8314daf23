"""Small ONNX files, made by hand with the onnx library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (3, 8, 8)


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node whose inputs are separated by spaces; "_" leaves one out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, output.split(), **attributes)


def weights(*shape: int, seed: int = 0, scale: float = 0.5) -> np.ndarray:
    """Normal float32 values."""
    return np.float32(np.random.default_rng(seed).normal(size=shape) * scale)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    output: str = "y",
    image: Sequence[int | str] = ("N", *IMAGE),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model from the input "x" to `output`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(image))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def classifier(seed: int = 0, hidden: int = 6, classes: int = 10) -> onnx.ModelProto:
    """Convolution, ReLU, linear layer for digits, 1x8x8."""
    return model(
        [
            node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Relu", "c", "r"),
            node("Flatten", "r", "f"),
            node("Gemm", "f v d", "y", transB=1),
        ],
        {
            "w": weights(hidden, 1, 3, 3, seed=seed),
            "b": weights(hidden, seed=seed + 1),
            "v": weights(classes, hidden * 16, seed=seed + 2),
            "d": weights(classes, seed=seed + 3),
        },
        image=("N", 1, 8, 8),
    )
