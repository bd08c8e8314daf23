"""Every operator of the table against onnxruntime: versions, settings, and what is refused."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_cases import CASES
from onnx_models import IMAGE, classifier, model, node, weights
from torch import nn

from corobench.benchmark.submission import effective_sha256
from corobench.benchmark.submission.graph import layers
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import MIN_OPSET, OPERATORS, GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.graph.table import TABLE

#: The newest version of the operators that the oldest runtime allowed is made for.
NEWEST = 21
UNEVEN = (3, 9, 8)
W = weights(6, 3, 3, 2)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _norm(size: int) -> dict[str, np.ndarray]:
    spread = np.abs(weights(size, seed=3)) + np.float32(0.1)
    return {"s": weights(size), "b": weights(size, seed=1), "m": weights(size, seed=2), "v": spread}


Case = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]

#: One use of each operator without settings.
PLAIN: dict[str, Case] = {
    **{
        op: ([node(op, "x", "y")], {})
        for op in TABLE
        if len(OPERATORS[op]) < 2 and op not in ("PRelu", "Transpose")
    },
    **{
        op: ([node(op, "x c", "y")], {"c": np.abs(weights(3, 1, 1)) + np.float32(0.5)})
        for op in ("Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub")
    },
    "AveragePool": ([node("AveragePool", "x", "y", kernel_shape=[3, 2])], {}),
    "BatchNormalization": ([node("BatchNormalization", "x s b m v", "y")], _norm(3)),
    "Conv": ([node("Conv", "x w", "y")], {"w": W}),
    "HardSigmoid": ([node("HardSigmoid", "x", "y")], {}),
    "LpNormalization": ([node("LpNormalization", "x", "y")], {}),
    "MaxPool": ([node("MaxPool", "x", "y", kernel_shape=[3, 2])], {}),
    "Selu": ([node("Selu", "x", "y")], {}),
    "Transpose": ([node("Transpose", "x", "y", perm=[0, 3, 1, 2])], {}),
}
FIRST = {"Celu": 12, "Gelu": 20, "HardSwish": 14, "Mish": 18}


def _agree(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    opset: int = 17,
    image: tuple[int, ...] = IMAGE,
) -> nn.Module:
    """The network of a graph, once it computes what onnxruntime computes on values around 0."""
    content = model(nodes, constants, opset=opset, image=("N", *image)).SerializeToString()
    network = read_network(content).network
    x = 4 * torch.randn(4, *image, generator=torch.Generator().manual_seed(1))
    expected, found = Runtime(content)(x), network(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=2e-5)
    return network


@pytest.mark.parametrize("op", TABLE)
def test_an_operator_is_the_same_in_its_oldest_and_its_newest_version(op: str) -> None:
    nodes, constants = PLAIN[op]
    for opset in (FIRST.get(op, MIN_OPSET), 13, 17, NEWEST):
        if opset >= FIRST.get(op, 0):
            _agree(nodes, constants, opset)


SETTINGS: dict[str, tuple[Any, ...]] = {
    "Elu": ([node("Elu", "x", "y", alpha=2.5)], {}),
    "Gelu by tanh": ([node("Gelu", "x", "y", approximate="tanh")], {}, 20),
    "HardSigmoid": ([node("HardSigmoid", "x", "y", alpha=0.17, beta=0.5)], {}),
    "HardSigmoid, torch's": ([node("HardSigmoid", "x", "y", alpha=1 / 6, beta=0.5)], {}),
    "LeakyRelu": ([node("LeakyRelu", "x", "y", alpha=0.3)], {}),
    "Celu": ([node("Celu", "x", "y", alpha=0.5)], {}),
    "GroupNormalization, a number a channel": (
        [node("GroupNormalization", "x s b", "y", num_groups=3, epsilon=0.1)],
        {"s": weights(3), "b": weights(3, seed=1)},
        21,
    ),
    "InstanceNormalization of three axes": (
        [node("Reshape", "x t", "f"), node("InstanceNormalization", "f s b", "y", epsilon=0.1)],
        {"t": _ints(0, 4, 48), "s": weights(4), "b": weights(4, seed=1)},
    ),
    "LayerNormalization over three axes": (
        [node("LayerNormalization", "x s", "y", axis=1, epsilon=0.1)],
        {"s": weights(*IMAGE)},
    ),
    "Pow to the third": ([node("Pow", "x e", "y")], {"e": np.float32(3).reshape(())}),
    "Selu with other numbers": ([node("Selu", "x", "y", alpha=1.5, gamma=0.5)], {}),
    "Split into equal parts": (
        [
            node("Split", "x", "a b", axis=2, num_outputs=2),
            node("Relu", "b", "r"),
            node("Add", "a r", "y"),
        ],
        {},
        18,
    ),
    "Split by an attribute": (
        [
            node("Split", "x", "a b", axis=1, split=[1, 2]),
            node("Concat", "b a", "y", axis=1),
        ],
        {},
        11,
    ),
    "Gather of one channel": (
        [node("Gather", "x i", "y", axis=1)],
        {"i": np.int64(-1).reshape(())},
    ),
    "Gather that keeps the axis": ([node("Gather", "x i", "y", axis=3)], {"i": _ints(2)}),
    "a mirrored border": (
        [node("Pad", "x p", "y", mode="reflect")],
        {"p": _ints(0, 0, 1, 2, 0, 0, 2, 0)},
    ),
    "a border of the edge": (
        [node("Pad", "x p", "y", mode="edge")],
        {"p": _ints(0, 0, 1, 2, 0, 0, 2, 0)},
    ),
    "weights on the left": (
        [node("Reshape", "x t", "f"), node("MatMul", "w f", "y")],
        {"t": _ints(0, 192, 1), "w": weights(5, 192)},
    ),
    "weights on the left of several columns": (
        [node("Reshape", "x t", "f"), node("MatMul", "w f", "y")],
        {"t": _ints(0, 48, 4), "w": weights(5, 48)},
    ),
    "a shortcut by channels of zeros": (
        [
            node("Slice", "x b e a s", "half"),
            node("Shape", "half", "sizes"),
            node("ConstantOfShape", "sizes", "zeros"),
            node("Concat", "zeros half zeros", "y", axis=1),
        ],
        {"b": _ints(0, 0), "e": _ints(2**62, 2**62), "a": _ints(2, 3), "s": _ints(2, 2)},
    ),
    "stored values beside the image": (
        [
            node("Shape", "x", "sizes"),
            node("Expand", "c sizes", "more"),
            node("Concat", "x more", "y", axis=1),
        ],
        {"c": weights(1, 3, 1, 8)},
    ),
    "Softplus by its definition": (
        [
            node("Greater", "x t", "is"),
            node("Softplus", "x", "s"),
            node("Where", "is x s", "y"),
        ],
        {"t": np.float32(20).reshape(())},
    ),
    "Max of three": (
        [node("Neg", "x", "n"), node("Max", "x c n", "y")],
        {"c": weights(3, 1, 1, scale=2)},
    ),
    "Min of one": ([node("Min", "x", "y")], {}),
    "PRelu, a slope a value": ([node("PRelu", "x s", "y")], {"s": weights(*IMAGE)}),
    "BatchNormalization with settings": (
        [node("BatchNormalization", "x s b m v", "y", epsilon=0.1, momentum=0.5)],
        _norm(3),
    ),
    "BatchNormalization of two axes": (
        [node("Flatten", "x", "f"), node("BatchNormalization", "f s b m v", "y")],
        _norm(192),
    ),
    "BatchNormalization of three axes": (
        [node("Reshape", "x t", "f"), node("BatchNormalization", "f s b m v", "y")],
        {"t": _ints(0, 4, 48), **_norm(4)},
    ),
    "a pool of one axis": (
        [
            node("Reshape", "x t", "f"),
            node("MaxPool", "f", "m", kernel_shape=[3], auto_pad="SAME_UPPER", strides=[2]),
            node("AveragePool", "m", "y", kernel_shape=[3], pads=[1, 0]),
        ],
        {"t": _ints(0, 4, 48)},
    ),
    "a pool of three axes": (
        [
            node("Reshape", "x t", "f"),
            node("MaxPool", "f", "m", kernel_shape=[2, 2, 1], pads=[0, 0, 0, 1, 1, 0]),
            node("AveragePool", "m", "y", kernel_shape=[2, 1, 2], pads=[1, 0, 1] * 2),
        ],
        {"t": _ints(0, 3, 4, 4, 4)},
    ),
    "an average without a border in reach": (
        [node("AveragePool", "x", "y", kernel_shape=[1, 1], auto_pad="SAME_UPPER")],
        {},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_does_what_it_does_in_onnxruntime(name: str) -> None:
    _agree(*SETTINGS[name])


@pytest.mark.parametrize("clips", [False, True])
def test_attributes_hold_no_weights(clips: bool) -> None:
    """Numbers in attributes are not counted; a linear classifier fits into slopes and limits."""

    def slopes(num: int) -> bytes:
        nodes, last = [], "x"
        for place in range(num):
            number = (place + 1) / 64
            made = (
                node("Clip", last, f"v{place}", min=-number, max=0.5)
                if clips
                else node("LeakyRelu", last, f"v{place}", alpha=number)
            )
            nodes.append(made)
            last = f"v{place}"
        return model(nodes, output=last, opset=10).SerializeToString()

    read_network(slopes(31))
    with pytest.raises(GraphFaultError, match="store them as tensors"):
        read_network(slopes(33))


def _wired(num: int, with_weights: int) -> bytes:
    """`num` parts of the image side by side, behind so many layers of one stored factor."""
    names = ["f", *(f"v{place}" for place in range(with_weights))]
    nodes = [
        node("Flatten", "x", "f"),
        *(node("Mul", f"{a} k", b) for a, b in itertools.pairwise(names)),
        *(node("Slice", f"{names[-1]} a b one", f"p{place}") for place in range(num)),
        node("Concat", " ".join(f"p{place}" for place in range(num)), "y", axis=1),
    ]
    stored = {"k": np.float32(2).reshape(()), "a": _ints(3), "b": _ints(4), "one": _ints(1)}
    return model(nodes, stored).SerializeToString()


def test_wiring_holds_no_weights() -> None:
    """Which of a few multiples of a value is added says a weight of a linear layer, uncounted."""
    read_network(_wired(128, 0))
    with pytest.raises(GraphFaultError, match="taken out of others or joined"):
        read_network(_wired(130, 0))
    read_network(_wired(160, 4))
    with pytest.raises(GraphFaultError, match="beside 4 layers"):
        read_network(_wired(162, 4))


def test_one_slope_may_stand_in_many_layers() -> None:
    names = ["x", *(f"v{place}" for place in range(40))]
    nodes = [
        node("LeakyRelu", before, after, alpha=0.1) for before, after in itertools.pairwise(names)
    ]
    assert read_network(model(nodes, output=names[-1]).SerializeToString()).output_shape == IMAGE


OLD_AXES: dict[str, tuple[Any, ...]] = {
    f"{op} over axes from {axis}": ([node(op, "x", "y", axis=axis)], {}, 11)
    for op in ("Softmax", "LogSoftmax")
    for axis in (1, 2)
}


def test_networks_with_one_identity_compute_one_thing() -> None:
    """A result names its network by this hash alone: what a step is, is in it, parts and all."""
    x = torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(1))
    known: dict[str, tuple[str, torch.Tensor]] = {}
    for name, (nodes, constants, *opset) in {**PLAIN, **SETTINGS, **OLD_AXES, **CASES}.items():
        proto = model(nodes, constants, opset=opset[0] if opset else 17)
        graph = read_network(proto.SerializeToString())
        identity = graph.sha256(effective_sha256(graph.network.state_dict()))
        found = graph.network(x)
        other, expected = known.setdefault(identity, (name, found))
        assert found.shape == expected.shape and torch.equal(found, expected), (name, other)
    assert len(known) > 80


PADS: dict[str, dict[str, Any]] = {
    "none": {},
    "even": {"pads": [1, 0, 1, 0]},
    "uneven": {"pads": [0, 1, 1, 0]},
    "VALID": {"auto_pad": "VALID"},
    "SAME_UPPER": {"auto_pad": "SAME_UPPER"},
    "SAME_LOWER": {"auto_pad": "SAME_LOWER"},
}


WINDOWS = {
    f"{pads}, strides {strides}, dilations {dilations}": PADS[pads]
    | ({"strides": strides} if strides else {})
    | ({"dilations": dilations} if dilations else {})
    for pads, strides, dilations in itertools.product(
        PADS, (None, [2, 1], [3, 2]), (None, [1, 1], [2, 1])
    )
    # onnxruntime has no padding by name around windows with gaps.
    if not (dilations == [2, 1] and "SAME" in pads)
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_lie_where_onnxruntime_has_them(name: str) -> None:
    window = WINDOWS[name]
    _agree([node("Conv", "x w", "y", **window)], {"w": W}, image=UNEVEN)
    grouped = node("Conv", "x w b", "y", group=3, kernel_shape=[2, 2], **window)
    _agree([grouped], {"w": weights(6, 1, 2, 2), "b": weights(6)}, image=UNEVEN)
    window = {"kernel_shape": [3, 2], **window}
    _agree([node("MaxPool", "x", "y", **window)], {}, image=UNEVEN)
    for counts in (0, 1):
        average = node("AveragePool", "x", "y", count_include_pad=counts, **window)
        _agree([average], {}, 19, image=UNEVEN)


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("pads", ["none", "even"])
def test_a_window_beyond_the_border_counts_where_sizes_are_rounded_up(op: str, pads: str) -> None:
    window = {"kernel_shape": [3, 3], "strides": [3, 3], "ceil_mode": 1, **PADS[pads]}
    _agree([node(op, "x", "y", **window)], {}, 19, image=UNEVEN)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_has_the_axes_of_its_version(op: str) -> None:
    """Before version 13 it takes an axis and all behind it as one, from then on the axis alone."""
    for opset, axis in itertools.product((11, 12, 13, 17), (-3, -2, -1, 1, 2, 3)):
        _agree([node(op, "x", "y", axis=axis)], {}, opset)
    moved = [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node(op, "t", "y", axis=3)]
    for opset in (11, 13):
        _agree(moved, {}, opset)
        _agree([node("Flatten", "x", "f"), node(op, "f", "y")], {}, opset)


# --- what is made ---

TORCHS: dict[str, type[nn.Module]] = {
    "AveragePool": nn.AvgPool2d,
    "BatchNormalization": nn.BatchNorm2d,
    "Celu": nn.CELU,
    "Conv": nn.Conv2d,
    "Elu": nn.ELU,
    "Gelu": nn.GELU,
    "HardSwish": nn.Hardswish,
    "LeakyRelu": nn.LeakyReLU,
    "LogSoftmax": nn.LogSoftmax,
    "MaxPool": nn.MaxPool2d,
    "Mish": nn.Mish,
    "Relu": nn.ReLU,
    "Selu": nn.SELU,
    "Sigmoid": nn.Sigmoid,
    "Softmax": nn.Softmax,
    "Softplus": nn.Softplus,
    "Softsign": nn.Softsign,
    "Tanh": nn.Tanh,
}


@pytest.mark.parametrize("op", TABLE)
def test_what_torch_has_is_torchs_and_the_rest_is_ours(op: str) -> None:
    nodes, constants = PLAIN[op]
    (layer,) = read_network(model(nodes, constants, opset=20).SerializeToString()).network
    if isinstance(layer, layers.WithConstants):
        layer = layer.operator
    if op in TORCHS:
        assert type(layer) is TORCHS[op]
    else:
        assert type(layer).__module__ == layers.__name__


def test_a_softplus_with_its_threshold_is_one_layer() -> None:
    nodes, constants = SETTINGS["Softplus by its definition"]
    network = read_network(model(nodes, constants).SerializeToString()).network
    (layer,) = (one for one in network.modules() if isinstance(one, nn.Softplus))
    assert layer.threshold == 20


def test_the_table_is_of_the_list() -> None:
    assert set(TABLE) <= set(OPERATORS)


def test_reading_draws_no_random_number() -> None:
    before = torch.random.get_rng_state()
    read_network(classifier().SerializeToString())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_text_of_a_product_is_that_of_published_hashes() -> None:
    proto = model([node("Mul", "x c", "y")], {"c": weights(3, 1, 1)})
    text = json.loads(read_network(proto.SerializeToString()).description)
    assert text == [["mul", {".is_stored": [False, True], "operator.forward": "mul"}, [0]]]


# --- what is refused ---


def _of(op: str, constants: dict[str, np.ndarray] | None = None, **attributes: Any) -> Case:
    inputs = " ".join(["x", *(constants or {})])
    return [node(op, inputs, "y", **attributes)], constants or {}


REFUSED: dict[str, tuple[Case, str]] = {
    "auto_pad": (_of("MaxPool", kernel_shape=[2, 2], auto_pad="FULL"), "onnx-attribute"),
    "no window": (_of("MaxPool"), "onnx-attribute"),
    "a window of four axes": (_of("AveragePool", kernel_shape=[1] * 4), "onnx-attribute"),
    "strides of one axis": (_of("Conv", {"w": W}, strides=[2]), "onnx-attribute"),
    "a stride of 0": (_of("Conv", {"w": W}, strides=[0, 1]), "onnx-attribute"),
    "a dilation of 0": (_of("Conv", {"w": W}, dilations=[0, 1]), "onnx-attribute"),
    "pads below 0": (_of("Conv", {"w": W}, pads=[-1] * 4), "onnx-attribute"),
    "pads of one axis": (_of("MaxPool", kernel_shape=[2, 2], pads=[1, 1]), "onnx-attribute"),
    "gaps rounded up": (
        _of("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1),
        "onnx-attribute",
    ),
    "another window than the weights'": (
        _of("Conv", {"w": W}, kernel_shape=[1, 1]),
        "onnx-attribute",
    ),
    "weights of one axis": (_of("Conv", {"w": weights(4, 3, 3)}), "onnx-attribute"),
    "groups that do not divide": (_of("Conv", {"w": W}, group=4), "onnx-attribute"),
    "no weights": (_of("Conv", {"w": weights(4, 0, 3, 3)}), "onnx-sizes"),
    "a longer bias": (_of("Conv", {"w": W, "b": weights(7)}), "onnx-sizes"),
    "means of other channels": (
        _of("BatchNormalization", _norm(3) | {"m": weights(4)}),
        "onnx-sizes",
    ),
    "an axis that is not there": (_of("Softmax", axis=4), "onnx-sizes"),
    "another approximation": (_of("Gelu", approximate="erf"), "onnx-sizes"),
    "a root as an exponent": (_of("Pow", {"c": np.float32(0.5)}), "onnx-attribute"),
    "an exponent of more axes": (
        _of("Pow", {"c": np.full((1,) * 5, 2.0, "float32")}),
        "onnx-dynamic",
    ),
    "a norm in float16": (
        _of("LayerNormalization", {"c": weights(5)}, stash_type=10),
        "onnx-attribute",
    ),
    "groups that are none": (
        _of("GroupNormalization", {"c": weights(2), "d": weights(2)}, num_groups=2),
        "onnx-sizes",
    ),
    "images that are normalised": (
        _of("LayerNormalization", {"c": weights(5)}, axis=0),
        "onnx-batch",
    ),
    "lengths of images": (_of("LpNormalization", axis=0), "onnx-batch"),
    "sums of sizes": (_of("LpNormalization", axis=1, p=1), "onnx-attribute"),
    "several gathered": (_of("Gather", {"c": _ints(0, 1)}, axis=1), "onnx-dynamic"),
    "images that are gathered": (_of("Gather", {"c": _ints(0)}, axis=0), "onnx-batch"),
    "a split of the batch": (_of("Split", {"c": _ints(1)}, axis=0), "onnx-batch"),
    "parts that do not add up": (_of("Split", {"c": _ints(2)}, axis=1), "onnx-sizes"),
    "stored images": (_of("Concat", {"c": weights(2, 3, 8, 8)}, axis=1), "onnx-weights"),
    "operands that do not fit": (_of("Add", {"c": weights(5)}), "onnx-sizes"),
    "one operand too many": (_of("Add", {"c": weights(1), "d": weights(1)}), "onnx-sizes"),
    "an operand too few": (_of("Sub"), "onnx-sizes"),
    "an operand left out": (([node("Max", "x _", "y")], {}), "onnx-order"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_use_that_does_not_fit_is_refused_by_name(name: str) -> None:
    (nodes, constants), rule = REFUSED[name]
    with pytest.raises(GraphFaultError, match=rf"^{rule}: node 0 \({nodes[0].op_type}\): "):
        read_network(model(nodes, constants, opset=20).SerializeToString())
