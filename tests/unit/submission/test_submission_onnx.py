"""ONNX submissions: every operator against onnxruntime, and every rule that refuses a file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import CASES, ints
from onnx_models import IMAGE, classifier, model, node, weights
from submission_factory import make_folder

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.network.compactness import measure
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import OPERATORS, GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.validate import validate


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnxruntime_computes(name):
    nodes, constants, *opset = CASES[name]
    content = model(nodes, constants, opset=opset[0] if opset else 17).SerializeToString()
    graph = read_network(content)
    x = torch.rand(5, *IMAGE, generator=torch.Generator().manual_seed(0))
    expected = Runtime(content)(x)
    found = graph.network(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(graph.network(leaf).square().sum(), leaf)
    assert gradient.abs().sum() > 0


def test_every_operator_has_a_case():
    used = {item.op_type for nodes, *_ in CASES.values() for item in nodes}
    assert set(OPERATORS) <= used


def _with_loop() -> onnx.ModelProto:
    proto = classifier()
    body = helper.make_graph([], "b", [], [])
    proto.graph.node.append(helper.make_node("Loop", ["y"], ["z"], body=body))
    return proto


def _external() -> onnx.ModelProto:
    proto = classifier()
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    tensor.ClearField("raw_data")
    return proto


def _changed(change) -> onnx.ModelProto:
    proto = classifier()
    change(proto)
    return proto


def _overflow(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [2**32, 2**32]


def _nan(proto: onnx.ModelProto) -> None:
    array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[0] = np.nan
    proto.graph.initializer[0].raw_data = array.tobytes()


def _function(proto: onnx.ModelProto) -> None:
    item = helper.make_function("d", "f", ["x"], ["y"], [], [])
    proto.functions.append(item)


def _domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].domain = "com.stranger"


def _float16(proto: onnx.ModelProto) -> None:
    array = numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float16)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))


def _double(proto: onnx.ModelProto) -> None:
    array = numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float64)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))


def _halved(proto: onnx.ModelProto) -> None:
    """Weights stored as float16, each with the Cast that says how they are computed with."""
    for position, tensor in enumerate(list(proto.graph.initializer)):
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        proto.graph.node.insert(position, node("Cast", f"{name}_half", name, to=1))


REFUSED = {
    "a loop": (_with_loop, "onnx-operator"),
    "values in another file": (_external, "onnx-external-data"),
    "sizes that overflow": (lambda: _changed(_overflow), "onnx-sizes"),
    "NaN": (lambda: _changed(_nan), "onnx-not-finite"),
    "functions": (lambda: _changed(_function), "onnx-unsupported-part"),
    "another domain": (lambda: _changed(_domain), "onnx-operator"),
    "float16": (lambda: _changed(_float16), "onnx-type"),
    "a name used twice": (
        lambda: _changed(lambda proto: proto.graph.node.append(proto.graph.node[0])),
        "onnx-names",
    ),
    "a value before it is made": (
        lambda: _changed(lambda proto: proto.graph.node.insert(0, node("Relu", "q", "p"))),
        "onnx-order",
    ),
    "two outputs": (
        lambda: _changed(lambda proto: proto.graph.output.append(proto.graph.output[0])),
        "onnx-output",
    ),
    "another version": (
        lambda: _changed(lambda proto: setattr(proto.opset_import[0], "version", 99)),
        "onnx-opset",
    ),
    "an unknown attribute": (
        lambda: _changed(
            lambda proto: proto.graph.node[1].attribute.append(helper.make_attribute("k", 1))
        ),
        "onnx-attribute",
    ),
    "weights computed from others": (
        lambda: model(
            [
                node("Mul", "u v", "w"),
                node("Flatten", "x", "f"),
                node("MatMul", "f w", "y"),
            ],
            {"u": weights(192, 1), "v": weights(1, 10)},
        ),
        "onnx-computed-constant",
    ),
    "weights computed from the image": (
        lambda: model(
            [node("ReduceMean", "x", "w", axes=[1]), node("Conv", "x w", "y")],
        ),
        "onnx-weights",
    ),
    "a batch that is mixed": (
        lambda: model([node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")]),
        "onnx-batch",
    ),
    "a batch that is moved": (
        lambda: model([node("Transpose", "x", "y", perm=[1, 0, 2, 3])]),
        "onnx-batch",
    ),
    "images that are joined": (
        lambda: model([node("Reshape", "x s", "y")], {"s": ints(1, -1)}),
        "onnx-batch",
    ),
    "sizes that do not fit": (
        lambda: model([node("Conv", "x w", "y")], {"w": weights(4, 5, 3, 3)}),
        "onnx-sizes",
    ),
    "an absurd activation": (
        lambda: model([node("Pad", "x p", "y")], {"p": ints(0, 0, 0, 0, 0, 0, 2**20, 2**20)}),
        "onnx-too-large",
    ),
    "noise": (
        lambda: model([node("RandomNormalLike", "x", "n"), node("Add", "x n", "y")]),
        "onnx-operator",
    ),
    "training mode": (
        lambda: model(
            [node("BatchNormalization", "x s s s s", "y", training_mode=1)],
            {"s": np.ones(3, np.float32)},
        ),
        "onnx-training",
    ),
    "an attribute of another kind": (
        lambda: model([node("Softmax", "x", "y", axis=[1, 2])]),
        "onnx-attribute",
    ),
    "an empty attribute": (
        lambda: _changed(lambda proto: proto.graph.node[0].attribute[0].ClearField("ints")),
        "onnx-attribute",
    ),
    **{
        f"weights lost in alpha = {alpha:g}": (
            lambda alpha=alpha, size=size: model(
                [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", alpha=alpha)],
                {"w": np.float32(size) * weights(192, 10), "b": weights(10)},
            ),
            "onnx-attribute",
        )
        for alpha, size in ((1e-30, 1e-12), (1e-30, 1e-25), (1e-40, 1e20), (1e30, 1e20))
    },
    **{
        f"one bias per image, with alpha = {alpha:g}": (
            lambda alpha=alpha: model(
                [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", alpha=alpha)],
                {"w": weights(192, 10), "b": weights(10, 1)},
            ),
            "onnx-sizes",
        )
        for alpha in (1.0, 0.5)
    },
    "weights in steps that may be flushed to zero": (
        lambda: model(
            [
                node("DequantizeLinear", "q s", "w"),
                node("Flatten", "x", "f"),
                node("MatMul", "f w", "y"),
            ],
            {"q": np.full((192, 10), 100, np.int8), "s": np.float32(2.0**-130)},
        ),
        "onnx-quantised",
    ),
    "a stored tensor instead of the image": (
        lambda: model([node("Conv", "w x", "y")], {"w": weights(4, 3, 3, 3)}),
        "onnx-weights",
    ),
    "a constant answer": (
        lambda: model([node("Identity", "c", "y")], {"c": weights(1, 10)}),
        "onnx-output",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_rule_refuses(name):
    make, rule = REFUSED[name]
    with pytest.raises(GraphFaultError, match=f"^{rule}: ") as caught:
        read_network(make().SerializeToString())
    assert caught.value.rule == rule


def test_a_type_is_called_by_its_name():
    with pytest.raises(GraphFaultError, match="but found double"):
        read_network(_changed(_double).SerializeToString())


def test_stored_float16_is_computed_in_float32_and_said():
    content = _changed(_halved).SerializeToString()
    graph = read_network(content)
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(graph.network(x), Runtime(content)(x), atol=1e-5)
    (note,) = graph.notes
    assert "stored as float16 and computed with in float32" in note


def _reordered(shape: tuple[int, ...], channels: int, nodes: list) -> bytes:
    """A linear classifier that takes its images in another shape."""
    proto = model(
        [*nodes, node("Flatten", "i", "f"), node("Gemm", "f w b", "y")],
        {"w": weights(channels * 64, 10), "b": weights(10), "t": ints(-1, channels, 8, 8)},
        image=("N", *shape),
    )
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("shape", "order", "op"),
    [
        ((192,), "channel, row, column", node("Reshape", "x t", "i")),
        ((192, 1), "channel, row, column", node("Identity", "x", "i")),
        ((8, 8, 3), "row, column, channel", node("Transpose", "x", "i", perm=[0, 3, 1, 2])),
    ],
    ids=["one row", "a column", "channels last"],
)
def test_images_go_into_a_file_in_the_order_it_wants(shape, order, op):
    content = _reordered(shape, 3, [op])
    graph = read_network(content, (3, 8, 8))
    x = torch.rand(4, 3, 8, 8)
    expected = Runtime(content, layout=graph.layout)(x)
    assert graph.image_shape == (3, 8, 8)
    assert torch.allclose(graph.network(x), expected, atol=1e-5)
    (note,) = graph.notes
    assert f"in the order {order}" in note


@pytest.mark.parametrize("shape", [(191,), (8, 3, 8), (4, 48, 1)])
def test_an_order_that_cannot_be_told_is_refused(shape):
    content = _reordered(shape, 3, [node("Identity", "x", "i")])
    with pytest.raises(GraphFaultError, match="onnx-input: expected images"):
        read_network(content, (3, 8, 8))


def test_a_refused_operator_comes_with_the_way_out():
    with pytest.raises(GraphFaultError, match="without branches or loops"):
        read_network(_with_loop().SerializeToString())
    with pytest.raises(GraphFaultError, match="write it with AveragePool"):
        read_network(model([node("Resize", "x", "y")]).SerializeToString())


def test_damaged_bytes_are_refused():
    with pytest.raises(GraphFaultError, match="onnx-damaged"):
        read_network(b"\x99" * 50)
    with pytest.raises(GraphFaultError, match="onnx-damaged"):
        read_network(b"")


def test_names_that_are_no_text_are_refused():
    content = classifier().SerializeToString()
    assert content.count(b"\x04Relu") == 1
    with pytest.raises(GraphFaultError):
        read_network(content.replace(b"\x04Relu", b"\x04Re\xff\xfe"))


def test_names_of_a_file_reach_no_code(tmp_path):
    """A node may be called anything; nothing of it is run, and equal graphs stay equal."""
    evil = 'x"]; open("' + str(tmp_path / "evil") + '", "w"); y["'
    proto = classifier()
    for item in proto.graph.node:
        item.name = evil
        for names in (item.input, item.output):
            names[:] = [evil + name if name not in ("x", "y") else name for name in names]
    for tensor in proto.graph.initializer:
        tensor.name = evil + tensor.name
    found = read_network(proto.SerializeToString())
    plain = read_network(classifier().SerializeToString())
    assert found.description == plain.description
    assert list(tmp_path.iterdir()) == []


def _onnx_folder(tmp_path, proto=None, **over):
    over = {"model": {"architecture": None, "arguments": None, "weights": "model.onnx"}} | over
    folder = make_folder(tmp_path, **over)
    (folder / "model.safetensors").unlink()
    (folder / "model.onnx").write_bytes((proto or classifier()).SerializeToString())
    return folder


def test_a_folder_with_an_onnx_file_is_valid(tmp_path):
    folder = _onnx_folder(tmp_path)
    assert validate([folder]) == [(folder, [])]
    submission = load_submission(folder)
    assert submission.format == "onnx"
    assert submission.manifest.model.architecture is None
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(submission.model(x), submission.reference(x), atol=1e-5)


def test_graph_and_weights_both_enter_the_hash():
    def hashed(proto):
        graph = read_network(proto.SerializeToString())
        from corobench.benchmark.submission import effective_sha256

        return graph.sha256(effective_sha256(graph.network.state_dict()))

    other = classifier()
    other.graph.node[1].op_type = "Sigmoid"
    assert len({hashed(classifier()), hashed(classifier(seed=7)), hashed(other)}) == 3
    renamed = classifier()
    renamed.graph.name, renamed.producer_name = "other", "another exporter"
    assert hashed(renamed) == hashed(classifier())


def test_faults_of_a_folder_are_listed_together(tmp_path):
    folder = _onnx_folder(tmp_path, classifier(classes=7), model={"weights": "model.onnx"})
    with pytest.raises(SubmissionError) as caught:
        load_submission(folder)
    text = str(caught.value)
    assert "expected neither `architecture` nor `arguments`" in text
    assert "onnx-output: expected logits [10]" in text


def test_a_manifest_without_architecture_needs_an_onnx_file(tmp_path):
    folder = make_folder(tmp_path, model={"architecture": None})
    with pytest.raises(SubmissionError, match=r"missing key `model.architecture`"):
        load_submission(folder)


def test_a_file_for_one_batch_size_takes_any(tmp_path):
    proto = classifier()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    content = proto.SerializeToString()
    graph = read_network(content)
    x = torch.rand(7, 1, 8, 8)
    assert torch.allclose(graph.network(x), Runtime(content, graph.batch)(x), atol=1e-5)


def test_a_conversion_that_differs_from_the_runtime_is_refused(tmp_path, monkeypatch):
    folder = _onnx_folder(tmp_path)
    monkeypatch.setattr(Runtime, "__call__", lambda self, x: torch.ones(len(x), 10))
    ((_, faults),) = validate([folder])
    assert any("contract clause same-as-runtime" in fault for fault in faults)


def test_everything_that_a_file_computes_with_is_counted():
    proto = model(
        [
            node("Conv", "x w", "c", pads=[1] * 4),
            node("Mul", "c m", "d"),
            node("PRelu", "d s", "p"),
            node("Flatten", "p", "f"),
            node("MatMul", "f v", "g"),
            node("Add", "g b", "y"),
        ],
        {
            "w": weights(4, 3, 3, 3),
            "m": weights(4, 8, 8),
            "s": weights(4, 1, 1),
            "v": weights(256, 10),
            "b": weights(10),
            "unused": weights(1000),
        },
    )
    measured = measure(read_network(proto.SerializeToString()).network, IMAGE)
    assert measured.num_parameters == 4 * 27 + 4 * 64 + 4 + 2560 + 10
    assert measured.macs_dense == 4 * 27 * 64 + 2560
    assert [layer.kind for layer in measured.layers] == ["conv", "linear"]


def test_a_tensor_that_two_layers_use_counts_once():
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("Conv", "r w", "y", pads=[1] * 4),
    ]
    proto = model(nodes, {"w": weights(3, 3, 3, 3)})
    measured = measure(read_network(proto.SerializeToString()).network, IMAGE)
    assert measured.num_parameters == 81
    assert measured.macs_dense == 2 * 81 * 64


class _Calibration:
    """Images for onnxruntime's own quantisation."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.batches = [{"x": np.float32(generator.random((16, 1, 8, 8)))} for _ in range(2)]

    def get_next(self):
        return self.batches.pop() if self.batches else None


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> onnx.ModelProto:
    """A classifier quantised by onnxruntime: int8 weights per channel, int8 activations."""
    from onnxruntime import quantization

    folder = tmp_path_factory.mktemp("qdq")
    onnx.save(classifier(), folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "model.onnx",
        _Calibration(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
    )
    return onnx.load(folder / "model.onnx")


def test_a_quantised_file_rounds_to_the_bit_as_it_says(quantised):
    content = quantised.SerializeToString()
    graph = read_network(content)
    assert graph.is_quantised
    assert (graph.codes.num_values, graph.codes.num_scales) == (6 * 9 + 10 * 96, 6 + 10)
    x = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(graph.network(x), Runtime(content, optimise=False)(x))


def test_gradients_pass_the_rounding_straight_through(quantised):
    graph = read_network(quantised.SerializeToString())
    x = torch.rand(1, 1, 8, 8).requires_grad_(True)
    (gradient,) = torch.autograd.grad(graph.network(x).sum(), x)
    layer = graph.network[0]
    assert 0 < int((gradient != 0).sum()) <= 64
    outside = torch.tensor([1e6]).requires_grad_(True)
    (stopped,) = torch.autograd.grad(layer(outside).sum(), outside)
    assert stopped.item() == 0.0


def test_a_quantised_file_is_valid_labelled_and_certified_by_the_checker_alone(tmp_path, quantised):
    from corobench.benchmark.evaluation.prepared import prepare_certifiers
    from corobench.benchmark.tracks import Protocol, get_track

    folder = _onnx_folder(tmp_path, quantised, sparsity=0.008)
    assert validate([folder]) == [(folder, [])]
    submission = load_submission(folder)
    assert submission.format == "onnx-qdq"
    size = submission.measure()
    # One byte a weight, a scale and a zero point a channel, and the rest dense.
    assert size.bytes_coded <= size.bytes_dense - 3 * 1014 + 5 * 16 < size.bytes_dense / 2
    protocol = Protocol()
    track = get_track("digits")
    _, not_asked = prepare_certifiers(
        submission.model, None, track.shape, track.num_classes, protocol, torch.device("cpu")
    )
    assert set(not_asked) == set(protocol.closing_certifiers)


def test_archives_of_torch_export_are_refused_by_name(tmp_path):
    folder = make_folder(tmp_path, model={"weights": "model.pt2"})
    with pytest.raises(SubmissionError, match=r"torch-export: .*torch\.onnx\.export"):
        load_submission(folder)


def test_the_rules_name_every_fault_and_operator():
    import re
    from pathlib import Path

    root = Path(__file__).parents[3]
    rules = (root / "RULES.md").read_text("utf-8")
    names = set()
    for path in (root / "benchmark/submission/graph").glob("*.py"):
        names |= set(re.findall(r"GraphFaultError\(\s*\"([a-z-]+)\"", path.read_text("utf-8")))
    assert len(names) >= 15
    for name in names:
        assert f"| `{name}` |" in rules, name
    line = next(line for line in rules.splitlines() if line.startswith("Operators: "))
    assert set(OPERATORS) <= set(re.findall(r"[A-Z]\w+", line))
