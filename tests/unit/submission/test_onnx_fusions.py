"""What onnxruntime fuses is what is written, or the graph is refused.

Each graph runs with the runtime's optimisations and without them. A new version that fuses more
groups of operators shows here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_models import IMAGE, model, node, weights

from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime

Nodes = list[onnx.NodeProto]
Graph = tuple[Nodes, dict[str, np.ndarray]]


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _one(value: float) -> np.ndarray:
    return np.float32(value).reshape(())


NUMBERS = {
    "two": _one(2),
    "eps": _one(1),
    "k": _one(0.3),
    "w": weights(192),
    "b": weights(192, seed=1),
}
FLAT = [node("Flatten", "x", "f")]
MEAN = [*FLAT, node("ReduceMean", "f", "m", axes=[-1])]


def _norm(**other: Any) -> Graph:
    """x - mean over the root of its variance, times w, plus b; parts of it may be others."""
    use = {"sub": "f m", "pow": "d two", "div": "d s", "mul": "q w", "add": "wq b", **other}
    nodes = [
        *MEAN,
        *use.get("mean", []),
        node("Sub", use["sub"], "d"),
        node("Pow", use["pow"], "p"),
        node("ReduceMean", "p", "v", axes=[-1]),
        node("Add", "v eps", "e"),
        node("Sqrt", "e", "s"),
        node("Div", use["div"], "q"),
        node("Mul", use["mul"], "wq"),
        node("Add", use["add"], "y"),
    ]
    return nodes, {**NUMBERS, **other.get("numbers", {})}


def _root_mean_square(**other: Any) -> Graph:
    use = {"pow": "f two", "div": "f s", **other}
    nodes = [
        *FLAT,
        node("Pow", use["pow"], "p"),
        node("ReduceMean", "p", "v", axes=[-1]),
        node("Add", "v eps", "e"),
        node("Sqrt", "e", "s"),
        node("Div", use["div"], "q"),
        node("Mul", "q w", "y"),
    ]
    return nodes, {**NUMBERS, **other.get("numbers", {})}


def _gelu(order: str = "a x", root: float = 2.0**0.5) -> Graph:
    nodes = [
        node("Neg", "x", "n"),
        node("Div", "x c", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "a"),
        node("Mul", order, "h"),
        node("Mul", "h half", "y"),
    ]
    return nodes, {"c": _one(root), "one": _one(1), "half": _one(0.5)}


def _padded(op: str, value: float = 0.0, before: str = "Identity", **settings: Any) -> Graph:
    inputs = "q w" if op == "Conv" else "q"
    nodes = [node(before, "x", "r"), node("Pad", "r p v", "q"), node(op, inputs, "y", **settings)]
    return nodes, {"p": _ints(0, 0, 1, 1, 0, 0, 1, 1), "v": _one(value), "w": weights(4, 3, 3, 3)}


def _behind(layer: Nodes, op: str, operands: str, shape: tuple[int, ...]) -> Graph:
    stored = {"w": weights(4, 3, 3, 3), "g": weights(192, 5), "k": weights(*shape) + np.float32(2)}
    return [*layer, node(op, operands, "y")], stored


CONV, GEMM = [node("Conv", "x w", "c")], [*FLAT, node("Gemm", "f g", "c", alpha=0.5)]
AS_WRITTEN: dict[str, Graph] = {
    "a norm": _norm(),
    "a norm with weights on the left": _norm(mul="w q", add="b wq"),
    "a norm of the values and not of deviations": _norm(pow="f two", div="f s"),
    "a norm of one factor": _norm(numbers={"w": weights(1), "b": weights(1)}),
    "a root mean square": _root_mean_square(),
    "a root mean square, upside down": _root_mean_square(div="s f"),
    "gelu": _gelu(),
    "gelu with another factor": _gelu("a n"),
    "gelu with nearly its root": _gelu(root=1.4142),
    "a border before a convolution": _padded("Conv"),
    "a border of 0.5 before a convolution": _padded("Conv", 0.5),
    "a border of 0.5 before maxima": _padded("MaxPool", 0.5, kernel_shape=[3, 3]),
    "a border before maxima of what is not below 0": _padded(
        "MaxPool", before="Relu", kernel_shape=[3, 3]
    ),
    "a border before means": _padded("AveragePool", kernel_shape=[3, 3]),
    "a border before means that count theirs": _padded(
        "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "a factor a channel": _behind(CONV, "Mul", "c k", (4, 1, 1)),
    "a factor a column": _behind(CONV, "Mul", "c k", (6,)),
    "a factor a row": _behind(CONV, "Mul", "c k", (6, 1)),
    "a summand a channel": _behind(CONV, "Add", "c k", (1, 4, 1, 1)),
    "a summand a column": _behind(CONV, "Add", "c k", (6,)),
    "what a convolution is taken from": _behind(CONV, "Sub", "k c", (4, 1, 1)),
    "a summand behind a factor": _behind(GEMM, "Add", "c k", (5,)),
    "what a layer is taken from": _behind(GEMM, "Sub", "k c", (1, 5)),
    "two ranges": (
        [node("Clip", "x a b", "c"), node("Clip", "c l h", "y")],
        {"a": _one(-1), "b": _one(0.5), "l": _one(0.7), "h": _one(0.9)},
    ),
    "a range below 0 behind a Relu": (
        [node("Relu", "x", "r"), node("Clip", "r l h", "y")],
        {"l": _one(-1), "h": _one(-0.5)},
    ),
    "zeros that make a value larger": (
        [node("ReduceMean", "x", "m", axes=[1]), node("Add", "m z", "y")],
        {"z": np.zeros((1, *IMAGE), np.float32)},
    ),
    "values taken from 0": ([node("Sub", "z x", "y")], {"z": _one(0)}),
    "a slice of a slice": (
        [node("Slice", "x a b k s", "c"), node("Slice", "c a b k s", "y")],
        {"a": _ints(1), "b": _ints(7), "k": _ints(3), "s": _ints(2)},
    ),
    "a softmax behind a summand": (
        [node("Add", "x k", "g"), node("Softmax", "g", "y", axis=1)],
        {"k": weights(1, 1, 8, 8)},
    ),
    "a batch-norm behind a product": (
        [*FLAT, node("MatMul", "f g", "c"), node("BatchNormalization", "c s t m v", "y")],
        {
            "g": weights(192, 5),
            "s": weights(5),
            "t": weights(5, seed=1),
            "m": weights(5, seed=2),
            "v": np.abs(weights(5, seed=3)) + np.float32(0.1),
        },
    ),
    "an activation behind a sum of convolutions": (
        [
            node("Conv", "x w", "a"),
            node("Conv", "x z", "c"),
            node("Sub", "a c", "d"),
            node("LeakyRelu", "d", "y", alpha=0.3),
        ],
        {"w": weights(8, 3, 3, 3), "z": weights(8, 3, 3, 3, seed=5)},
    ),
}


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_what_is_fused_is_what_is_written(name: str) -> None:
    nodes, stored = AS_WRITTEN[name]
    content = model(nodes, stored).SerializeToString()
    network = read_network(content).network
    x = 4 * torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(1))
    for is_optimised in (False, True):
        found = Runtime(content, optimise=is_optimised)(x)
        assert torch.allclose(found, network(x), rtol=1e-5, atol=2e-5), is_optimised


OTHERWISE: dict[str, Graph] = {
    "mean - x": _norm(sub="m f"),
    "mean - x, the mean in another shape": _norm(
        mean=[node("Reshape", "m t", "r")], sub="r f", numbers={"t": _ints(-1, 1)}
    ),
    "a norm upside down": _norm(div="s d"),
    "the third power": _norm(numbers={"two": _one(3)}),
    "the first power": _norm(numbers={"two": _one(1)}),
    "several numbers under the root": _norm(numbers={"eps": np.abs(weights(192)) + np.float32(1)}),
    "a root of the mean of fourth powers": _root_mean_square(numbers={"two": _one(4)}),
    "several numbers under the root of a mean square": _root_mean_square(
        numbers={"eps": np.abs(weights(192)) + np.float32(1)}
    ),
    "maxima over a border of zeros": _padded("MaxPool", kernel_shape=[3, 3]),
    "maxima over two borders": _padded("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_some_version_fuses_to_something_else_is_refused(name: str) -> None:
    nodes, stored = OTHERWISE[name]
    with pytest.raises(GraphFaultError, match="onnxruntime") as caught:
        read_network(model(nodes, stored).SerializeToString())
    assert caught.value.rule == "onnx-operator"


def _rounded(source: str, target: str, key: str) -> Nodes:
    return [
        node("QuantizeLinear", f"{source} s{key} z{key}", f"q{key}"),
        node("DequantizeLinear", f"q{key} s{key} z{key}", target),
    ]


def _twice(between: Nodes, second: tuple[float, int]) -> bytes:
    nodes = [*_rounded("x", "d", "1"), *between, *_rounded("r" if between else "d", "e", "2")]
    stored = {
        "s1": _one(0.1),
        "z1": np.array(128, np.uint8),
        "s2": _one(second[0]),
        "z2": np.array(second[1], np.uint8),
    }
    return model([*nodes, node("Neg", "e", "y")], stored).SerializeToString()


def test_of_two_roundings_in_a_row_the_runtime_keeps_one() -> None:
    read_network(_twice([], (0.1, 128)))  # the same one
    read_network(_twice([node("Relu", "d", "r")], (0.01, 100)))
    for second in ((0.01, 128), (0.1, 100)):
        with pytest.raises(GraphFaultError, match="just rounded") as caught:
            read_network(_twice([], second))
        assert caught.value.rule == "onnx-quantised"


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_softmax_between_roundings_is_another_one_in_whole_numbers(op: str, axis: int) -> None:
    with pytest.raises(GraphFaultError, match="softmax between roundings") as caught:
        read_network(_twice([node(op, "d", "r", axis=axis)], (0.002, 0)))
    assert caught.value.rule == "onnx-quantised"


@pytest.mark.parametrize(("axis", "is_fit"), [(1, True), (-3, True), (2, False), (3, False)])
def test_both_operators_of_a_pair_have_one_axis(axis: int, is_fit: bool) -> None:
    """onnxruntime rounds along the one and multiplies along the other."""
    nodes = [
        node("QuantizeLinear", "x s z", "q", axis=1),
        node("DequantizeLinear", "q s z", "d", axis=axis),
        node("Neg", "d", "y"),
    ]
    stored = {"s": np.float32([0.1, 0.2, 0.4]), "z": np.zeros(3, np.uint8)}
    content = model(nodes, stored, image=("N", 3, 3, 3)).SerializeToString()
    if is_fit:
        read_network(content)
        return
    with pytest.raises(GraphFaultError, match="scale, zero point and axis"):
        read_network(content)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize(
    ("scale", "zero", "said"),
    [
        (0.1 * 0.01, 0, ""),
        (0.1 * 0.01 * 1.001, 0, "scale of its int32 bias"),
        (1e-9, 0, "scale of its int32 bias"),
        (0.1 * 0.01, 5, "no zero point"),
    ],
)
def test_the_scale_of_an_int32_bias_is_that_of_its_sum(
    scale: float, zero: int, said: str, between: bool
) -> None:
    """onnxruntime adds the codes of the bias to the sum of products and never reads their scale."""
    nodes = [
        *([] if between else FLAT),
        *_rounded("x" if between else "f", "d", "1"),
        *([node("Flatten", "d", "e")] if between else []),
        node("DequantizeLinear", "c sc zc", "w"),
        node("DequantizeLinear", "a sa za", "b"),
        node("Gemm", f"{'e' if between else 'd'} w b", "g"),
        *_rounded("g", "y", "2"),
    ]
    stored = {
        "s1": _one(0.1),
        "z1": np.array(128, np.uint8),
        "s2": _one(0.3),
        "z2": np.array(100, np.uint8),
        "c": np.random.default_rng(0).integers(-127, 128, (192, 5)).astype(np.int8),
        "sc": _one(0.01),
        "zc": np.array(0, np.int8),
        "a": np.array([5, -300, 7, 900, 1], np.int32),
        "sa": np.float32(0.1) * np.float32(0.01) if scale == 0.1 * 0.01 else _one(scale),
        "za": np.array(zero, np.int32),
    }
    stored["sa"] = np.float32(stored["sa"]).reshape(())
    content = model(nodes, stored).SerializeToString()
    if not said:
        read_network(content)
        return
    with pytest.raises(GraphFaultError, match=said) as caught:
        read_network(content)
    assert caught.value.rule == "onnx-quantised"


@pytest.mark.parametrize(
    "where", ["fits", "MatMul + Add", "turned", "same", "scaled", "not rounded"]
)
def test_codes_in_int32_are_a_bias_and_nothing_else(where: str) -> None:
    """Wherever onnxruntime or an integer engine may add the codes themselves to a sum."""
    source = "f" if where == "not rounded" else "d"
    last = {
        "fits": [node("Gemm", "d w b", "g")],
        "MatMul + Add": [node("MatMul", "d w", "p"), node("Add", "p b", "g")],
        "turned": [node("Transpose", "v", "t", perm=[1, 0]), node("Gemm", "d t b", "g")],
        "same": [node("Identity", "b", "e"), node("Gemm", "d w e", "g")],
        "scaled": [node("Gemm", "d w b", "g", alpha=2.0)],
        "not rounded": [node("Gemm", f"{source} w b", "g")],
    }[where]
    nodes = [
        *FLAT,
        *_rounded("f", "d", "1"),
        node("DequantizeLinear", "c sc zc", "w"),
        *([node("DequantizeLinear", "u sc zc", "v")] if where == "turned" else []),
        node("DequantizeLinear", "a sa za", "b"),
        *last,
        *_rounded("g", "y", "2"),
    ]
    codes = np.random.default_rng(0).integers(-127, 128, (192, 5)).astype(np.int8)
    stored = {
        "s1": _one(0.1),
        "z1": np.array(128, np.uint8),
        "s2": _one(0.3),
        "z2": np.array(100, np.uint8),
        "c": codes,
        **({"u": np.ascontiguousarray(codes.T)} if where == "turned" else {}),
        "sc": _one(0.01),
        "zc": np.array(0, np.int8),
        "a": np.array([5, -300, 7, 900, 1], np.int32),
        "sa": np.float32(np.float32(0.1) * np.float32(0.01)).reshape(()),
        "za": np.array(0, np.int32),
    }
    content = model(nodes, stored).SerializeToString()
    if where == "fits":
        read_network(content)
        return
    with pytest.raises(GraphFaultError, match="int32 codes as the bias of a Conv, Gemm") as caught:
        read_network(content)
    assert caught.value.rule == "onnx-quantised"


@pytest.mark.parametrize(
    ("scale", "rounded", "said"),
    [
        (np.float32(0.1) * np.float32(0.01), True, ""),
        (np.float32(0.002), True, "scale of its int32 bias"),
        (np.float32(0.1) * np.float32(0.01), False, "whose input is rounded"),
    ],
)
def test_a_batch_norm_may_have_an_int32_bias(scale: np.float32, rounded: bool, said: str) -> None:
    """As onnxruntime's quantiser writes one that no convolution comes before."""
    nodes = [
        *_rounded("x", "d", "1"),
        node("DequantizeLinear", "c sc zc", "gamma"),
        node("DequantizeLinear", "a sa za", "beta"),
        node("BatchNormalization", f"{'d' if rounded else 'x'} gamma beta mean var", "n"),
        *_rounded("n", "o", "2"),
        node("Flatten", "o", "y"),
    ]
    stored = {
        "s1": _one(0.1),
        "z1": np.array(0, np.uint8),
        "s2": _one(0.3),
        "z2": np.array(100, np.uint8),
        "c": np.array([100, -90, 17], np.int8),
        "sc": _one(0.01),
        "zc": np.array(0, np.int8),
        "a": np.array([500, -300, 7], np.int32),
        "sa": np.array(scale, np.float32).reshape(()),
        "za": np.array(0, np.int32),
        "mean": np.float32([0.2, -0.1, 0.4]),
        "var": np.float32([0.5, 1.0, 2.0]),
    }
    content = model(nodes, stored, image=("N", 3, 3, 3)).SerializeToString()
    if said:
        with pytest.raises(GraphFaultError, match=said):
            read_network(content)
        return
    x = torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    graph = read_network(content)
    with torch.no_grad():
        here = graph.network(x)
    for optimise in (False, True):
        runtime = Runtime(content, graph.batch, optimise=optimise)
        assert torch.equal(torch.cat([runtime(one) for one in x.split(1)]), here)
