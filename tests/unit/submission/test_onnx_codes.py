"""Weights that are stored as 8-bit codes: where runtimes compute what the file says, or refused.

Where a matrix of codes meets values that are not rounded, onnxruntime rounds them by itself, in
blocks of 32 with scales of its own: one large value beside zeros then wipes out all the others.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx_models import model, node

from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime

SHAPE = (1, 8, 8)
PAIR = {"s": np.float32(1 / 64).reshape(()), "z": np.array(128, np.uint8)}


def _rounded(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", f"{source} s z", "q"),
        node("DequantizeLinear", "q s z", result),
    ]


#: What stands before the layer, and the value that it reads.
BEFORE = {
    "floats": ([node("Flatten", "x", "f")], "f"),
    "a pair": ([node("Flatten", "x", "f"), *_rounded("f", "d")], "d"),
    "a pair, moved": ([*_rounded("x", "d"), node("Flatten", "d", "e")], "e"),
    "a pair and a ReLU": (
        [node("Flatten", "x", "f"), *_rounded("f", "d"), node("Relu", "d", "e")],
        "e",
    ),
}
#: The layer: operators, given what it reads as "v".
LAYERS = {
    "MatMul": [node("DequantizeLinear", "c t o", "w", axis=1), node("MatMul", "v w", "y")],
    "MatMul + Add": [
        node("DequantizeLinear", "c t o", "w", axis=1),
        node("MatMul", "v w", "g"),
        node("Add", "g b", "y"),
    ],
    "Gemm": [node("DequantizeLinear", "c t o", "w", axis=1), node("Gemm", "v w b", "y")],
    "turned": [
        node("DequantizeLinear", "r t o", "u", axis=0),
        node("Transpose", "u", "w", perm=[1, 0]),
        node("MatMul", "v w", "y"),
    ],
    "reshaped": [
        node("DequantizeLinear", "c t o", "u", axis=1),
        node("Reshape", "u n", "w"),
        node("Gemm", "v w b", "y"),
    ],
}


def _file(before: str, layer: str, num_scales: int) -> bytes:
    draw = np.random.default_rng(0)
    codes = draw.integers(-127, 128, (64, 10)).astype(np.int8)
    nodes, read = BEFORE[before]
    nodes = list(nodes)
    for one in LAYERS[layer]:
        copy = onnx.NodeProto()
        copy.CopyFrom(one)
        copy.input[:] = [read if name == "v" else name for name in copy.input]
        nodes.append(copy)
    scales = draw.uniform(0.005, 0.015, num_scales).astype(np.float32)
    zeros = np.zeros(num_scales, np.int8)
    stored = {
        **(PAIR if before != "floats" else {}),
        "t": scales if num_scales > 1 else scales.reshape(()),
        "o": zeros if num_scales > 1 else zeros.reshape(()),
        **({"r": np.ascontiguousarray(codes.T)} if layer == "turned" else {"c": codes}),
        **(
            {"b": draw.normal(size=10).astype(np.float32)}
            if layer not in ("MatMul", "turned")
            else {}
        ),
        **({"n": np.array([64, 10])} if layer == "reshaped" else {}),
    }
    return model(nodes, stored, image=("N", *SHAPE), opset=21).SerializeToString()


@pytest.mark.parametrize("num_scales", [1, 10])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_matrix_of_codes_reads_rounded_values(before: str, layer: str, num_scales: int) -> None:
    content = _file(before, layer, num_scales)
    is_read = before == "a pair" or (before == "a pair, moved" and num_scales == 1)
    if not is_read:
        with pytest.raises(GraphFaultError, match="its matrix is stored as 8-bit codes") as caught:
            read_network(content)
        assert caught.value.rule == "onnx-quantised"
        return
    graph = read_network(content)
    assert graph.is_rounded and graph.is_quantised
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        graph.network(x), Runtime(content, optimise=False)(x), atol=1e-4, rtol=0
    )


def test_a_convolution_of_codes_computes_in_float32() -> None:
    draw = np.random.default_rng(0)
    codes = draw.integers(-127, 128, (4, 1, 3, 3)).astype(np.int8)
    scales = draw.uniform(0.005, 0.015, 4).astype(np.float32)
    nodes = [
        node("DequantizeLinear", "c t o", "w", axis=0),
        node("Conv", "x w", "g"),
        node("Flatten", "g", "y"),
    ]
    stored = {"c": codes, "t": scales, "o": np.zeros(4, np.int8)}
    content = model(nodes, stored, image=("N", *SHAPE), opset=21).SerializeToString()
    graph = read_network(content)
    assert graph.is_quantised and not graph.is_rounded
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    for optimise in (False, True):
        expected = Runtime(content, optimise=optimise)(x)
        torch.testing.assert_close(graph.network(x), expected, atol=1e-5, rtol=0)
