"""ONNX files as exporters write them by default: read, or refused with the one thing to do."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_models import classifier, model, node, weights

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission import import_graph, load_submission
from corobench.benchmark.submission.graph.external import read_whole
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.runtime import Runtime
from corobench.benchmark.submission.kinds import kind_of
from corobench.benchmark.submission.load import load_candidate


def fault_of(content: bytes) -> str:
    with pytest.raises(GraphFaultError) as info:
        read_network(content)
    return str(info.value)


# ------------------------------------------------------------------------------ two files


def two_files(folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    onnx.save_model(
        classifier(),
        path,
        save_as_external_data=True,
        location=f"{name}.data",
        size_threshold=0,
    )
    assert len(path.read_bytes()) < len((folder / f"{name}.data").read_bytes())
    return path


def test_values_in_a_file_beside_it_become_one_file(tmp_path: Path) -> None:
    path = two_files(tmp_path)
    report = import_graph(path, tmp_path / "entry", track="digits")
    assert report.is_against_reference
    (tmp_path / "net.onnx.data").unlink()
    loaded = load_submission(tmp_path / "entry").model
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded(x), read_network(classifier().SerializeToString()).network(x))


def test_a_file_by_its_path_is_a_candidate_with_its_values_beside_it(tmp_path: Path) -> None:
    path = two_files(tmp_path)
    loaded = load_candidate(path, "digits")
    plain = tmp_path / "plain.onnx"
    onnx.save_model(classifier(), plain)
    assert loaded.weights_sha256 == load_candidate(plain, "digits").weights_sha256


def test_a_submission_stays_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    import_graph(two_files(tmp_path), folder, track="digits")
    shutil.copy(tmp_path / "net.onnx", folder / "model.onnx")
    shutil.copy(tmp_path / "net.onnx.data", folder / "net.onnx.data")
    with pytest.raises(SubmissionError, match=r"onnx-external-data.*external_data=False"):
        load_submission(folder)


def _moved(proto: onnx.ModelProto, key: str, value: str) -> None:
    for tensor in proto.graph.initializer:
        for item in tensor.external_data:
            if item.key == key:
                item.value = value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("location", "../secret"),
        ("location", "/etc/passwd"),
        ("location", "missing.data"),
        ("location", ""),
        ("location", "link"),
        ("offset", "100000000"),
        ("offset", "-8"),
        ("offset", "zero"),
        ("length", "100000000"),
    ],
)
def test_a_place_that_is_no_plain_file_beside_it_is_refused(
    tmp_path: Path, key: str, value: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (folder / "link").symlink_to(tmp_path / "secret")
    path = two_files(folder)
    proto = onnx.load(path, load_external_data=False)
    _moved(proto, key, value)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GraphFaultError, match="onnx-external-data"):
        read_whole(path)


# ------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("order", ["w m", "m w"])
@pytest.mark.parametrize("shape", [(6, 1, 3, 3), (6, 1, 1, 1)])
def test_a_mask_times_a_weight_is_folded(order: str, shape: tuple[int, ...]) -> None:
    mask = np.float32(weights(*shape, seed=9) > 0)
    proto = classifier()
    proto.graph.initializer.append(numpy_helper.from_array(mask, "m"))
    proto.graph.node.insert(0, node("Mul", order, "wm"))
    proto.graph.node[1].input[1] = "wm"
    content = proto.SerializeToString()
    network = read_network(content).network
    x = torch.rand(8, 1, 8, 8)
    assert torch.allclose(network(x), Runtime(content)(x), atol=1e-6)
    is_zero = torch.from_numpy(np.broadcast_to(mask == 0, (6, 1, 3, 3)).copy())
    assert torch.equal(network[0].weight == 0, is_zero)


def test_a_live_mask_of_torch_is_exported_and_read(tmp_path: Path) -> None:
    from torch.nn.utils import prune

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    prune.l1_unstructured(network[1], "weight", 0.5)
    path = tmp_path / "m.onnx"
    torch.onnx.export(
        network, (torch.rand(1, 1, 8, 8),), str(path), dynamo=False, do_constant_folding=False
    )
    found = read_network(path.read_bytes()).network
    x = torch.rand(1, 1, 8, 8)
    assert torch.allclose(found(x), network(x), atol=1e-6)
    sizes = [int((one == 0).sum()) for one in found.parameters() if one.ndim > 1]
    assert sizes == [320]


def _with_mask(name: str, mask: np.ndarray, cast: bool) -> bytes:
    """The classifier with one stored tensor times a mask."""
    proto = classifier()
    proto.graph.initializer.append(numpy_helper.from_array(mask, "m"))
    nodes = [node("Cast", "m", "mf", to=1)] if cast else []
    nodes.append(node("Mul", f"{name} {'mf' if cast else 'm'}", "masked"))
    for one in proto.graph.node:
        one.input[:] = ["masked" if word == name else word for word in one.input]
    own = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *own])
    return proto.SerializeToString()


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64, np.int8])
def test_masks_of_other_types_are_folded(kind: type[np.generic]) -> None:
    mask = (weights(6, 1, 3, 3, seed=9) > 0).astype(kind)
    content = _with_mask("w", mask, cast=kind is not np.float32)
    network = read_network(content).network
    x = torch.rand(8, 1, 8, 8)
    assert torch.allclose(network(x), Runtime(content)(x), atol=1e-6)
    assert torch.equal(network[0].weight == 0, torch.from_numpy(mask == 0))


def test_masks_of_a_bias_and_of_columns_are_folded() -> None:
    for name, size in (("b", 6), ("w", 3)):
        mask = np.float32(np.arange(size) % 2)
        content = _with_mask(name, mask, cast=False)
        network = read_network(content).network
        x = torch.rand(8, 1, 8, 8)
        assert torch.allclose(network(x), Runtime(content)(x), atol=1e-6)
    assert not bool(network[0].weight[..., 0].any())


def test_other_numbers_that_are_computed_say_what_to_call() -> None:
    proto = model(
        [node("Mul", "u v", "w"), node("Flatten", "x", "f"), node("MatMul", "f w", "y")],
        {"u": weights(192, 1), "v": weights(1, 10)},
    )
    fault = fault_of(proto.SerializeToString())
    assert fault.startswith("onnx-computed-constant") and "prune.remove(layer, 'weight')" in fault


# ------------------------------------------------------------------------------ ways out


def _typed(kind: int) -> bytes:
    proto = classifier()
    proto.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", kind, [6, 1, 3, 3], bytes(54 * 8)[: 54 * _SIZES[kind]], raw=True)
    )
    return proto.SerializeToString()


_SIZES = {
    **{TensorProto.INT16: 2, TensorProto.DOUBLE: 8, TensorProto.BFLOAT16: 2, TensorProto.BOOL: 1},
    TensorProto.UINT32: 4,
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_typed(TensorProto.INT16), ("int16", "QuantFormat.QDQ")),
        (_typed(TensorProto.DOUBLE), ("double", "model.float()")),
        (_typed(TensorProto.BFLOAT16), ("bfloat16", "model.float()")),
        (_typed(TensorProto.BOOL), ("bool", "prune.remove", "model.eval()")),
        (_typed(TensorProto.UINT32), ("uint32", "model.float()")),
    ],
)
def test_types_are_named_with_the_way_out(content: bytes, words: tuple[str, ...]) -> None:
    fault = fault_of(content)
    assert fault.startswith("onnx-type") and all(word in fault for word in words)


@pytest.mark.parametrize(
    ("op", "domain", "word"),
    [
        ("QLinearConv", "", "QuantFormat.QDQ"),
        ("QLinearAdd", "com.microsoft", "QuantFormat.QDQ"),
        ("DynamicQuantizeLinear", "", "QuantFormat.QDQ"),
        ("DynamicQuantizeMatMul", "com.microsoft", "QuantFormat.QDQ"),
        ("MatMulInteger", "", "QuantFormat.QDQ"),
        ("QuantizeLinear", "com.microsoft", "QuantFormat.QDQ"),
        ("FusedConv", "com.microsoft", "before onnxruntime's optimiser"),
        ("Conv", "com.microsoft.nchwc", "before onnxruntime's optimiser"),
        ("RandomNormalLike", "", "take the noise out"),
    ],
)
def test_operators_of_other_quantisations_say_the_call(op: str, domain: str, word: str) -> None:
    proto = model([helper.make_node(op, ["x"], ["y"], domain=domain)])
    fault = fault_of(proto.SerializeToString())
    assert fault.startswith("onnx-operator") and word in fault


def test_a_negative_variance_names_its_tensor() -> None:
    proto = model(
        [node("BatchNormalization", "x s b m var", "y")],
        {"s": weights(3), "b": weights(3), "m": weights(3), "var": np.float32([1, -1, 1])},
    )
    fault = fault_of(proto.SerializeToString())
    assert "onnx-weights" in fault and "variances above 0 in var" in fault


def test_an_attention_that_moves_the_batch_says_how_to_write_it() -> None:
    fault = fault_of(model([node("Transpose", "x", "y", perm=[2, 0, 1, 3])]).SerializeToString())
    assert "scaled_dot_product_attention" in fault


# ------------------------------------------------------------------------------ pooling


def _pools() -> Iterator[tuple[str, int, tuple[int, int], int]]:
    for op, opset, pads, count in itertools.product(
        ("AveragePool", "MaxPool"), (11, 19, 22), ((0, 0), (1, 1), (0, 1), (1, 0)), (0, 1)
    ):
        if op == "AveragePool" or not count:
            yield op, opset, pads, count


@pytest.mark.parametrize(("op", "opset", "pads", "count"), list(_pools()))
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (2, 3)])
def test_pooling_that_rounds_up(op, opset, pads, count, kernel, stride) -> None:
    """A last window that begins in the border is none, whichever version says so."""
    begin, end = pads
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": 1}
    attributes["pads"] = [begin, begin, end, end]
    if op == "AveragePool":
        attributes["count_include_pad"] = count
    content = model([node(op, "x", "y", **attributes)], opset=opset).SerializeToString()
    x = torch.rand(2, 3, 8, 8) - 0.5
    found, expected = read_network(content).network(x), Runtime(content)(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)


# ------------------------------------------------------------------------------ import


def test_a_last_softmax_is_refused_at_import_already(tmp_path: Path) -> None:
    proto = classifier()
    proto.graph.node[-1].output[0] = "z"
    proto.graph.node.append(node("Softmax", "z", "y", axis=1))
    onnx.save_model(proto, tmp_path / "net.onnx")
    with pytest.raises(SubmissionError, match=r"clause logits.*remove the softmax"):
        import_graph(tmp_path / "net.onnx", tmp_path / "entry", track="digits")
    assert not (tmp_path / "entry").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--mean", "0.5"),
        ("--std", "0.5"),
        ("--width", "1.0"),
        ("--keep-ratio", "0.1"),
        ("--min-keep-ratio", "0.01"),
        ("--state-key", "ema"),
        ("--architecture", "cnn-small"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path: Path, option, capsys) -> None:
    onnx.save_model(classifier(), tmp_path / "net.onnx")
    command = ["import", str(tmp_path / "net.onnx"), "--track", "digits", "--out"]
    assert invoke([*command, str(tmp_path / "entry"), *option]) == 2
    assert f"{option[0]}: not for an ONNX file" in capsys.readouterr().err
    assert not (tmp_path / "entry").exists()


@pytest.mark.parametrize("name", ["NET.ONNX", "net", "net.onnx.bin", "net.pb"])
def test_the_name_of_a_graph_does_not_matter(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(classifier().SerializeToString())
    assert kind_of(path) == "onnx"
    assert load_candidate(path, "digits").format == "onnx"


def test_kinds_by_content(tmp_path: Path) -> None:
    import safetensors.torch

    for number, is_new in enumerate((True, False)):
        path = tmp_path / f"{number}.onnx"
        torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=is_new)
        assert kind_of(path) == "torch"
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "a.onnx")
    assert kind_of(tmp_path / "a.onnx") == "safetensors"
    (tmp_path / "b.onnx").write_bytes(b"nothing")
    (tmp_path / "b").write_bytes(b"nothing")
    assert [kind_of(tmp_path / name) for name in ("b.onnx", "b", "c.onnx")] == [
        "onnx",
        "unknown",
        "onnx",
    ]
    assert kind_of(tmp_path) == "unknown"


# ------------------------------------------------------------------------------ links and forms


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """Caches of model hubs hold links; the values lie beside the file or beside the link."""
    path = two_files(tmp_path)
    whole = read_whole(path)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "model.onnx").symlink_to(path)
    assert read_whole(cache / "model.onnx") == whole
    (cache / "net.onnx.data").symlink_to(tmp_path / "net.onnx.data")
    with pytest.raises(GraphFaultError, match=r"symbolic link.*cp -L"):
        read_whole(cache / "model.onnx")


def test_a_place_that_begins_with_a_dot_is_the_folder(tmp_path: Path) -> None:
    path = two_files(tmp_path)
    whole = read_whole(path)
    proto = onnx.load(path, load_external_data=False)
    _moved(proto, "location", "./net.onnx.data")
    path.write_bytes(proto.SerializeToString())
    assert read_whole(path) == whole


def _with_input(kind: int) -> bytes:
    proto = classifier()
    proto.graph.input[0].type.tensor_type.elem_type = kind
    return proto.SerializeToString()


def _changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    proto = classifier()
    change(proto)
    return proto.SerializeToString()


_FUNCTION = helper.make_function(
    "own", "f", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 17)]
)
_SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.float32([1]), "s"), numpy_helper.from_array(np.int64([0]), "i"), [4]
)


@pytest.mark.parametrize(
    ("content", "rule", "way"),
    [
        (_with_input(TensorProto.INT64), "onnx-input", "model.float()"),
        (_changed(lambda p: p.functions.append(_FUNCTION)), "onnx-unsupported", "inline_local"),
        (_changed(lambda p: p.graph.sparse_initializer.append(_SPARSE)), "onnx-unsu", "dense"),
        (_changed(lambda p: p.graph.input.append(p.graph.output[0])), "onnx-input", "buffer"),
    ],
)
def test_other_forms_say_the_way_out(content: bytes, rule: str, way: str) -> None:
    fault = fault_of(content)
    assert fault.startswith(rule) and way in fault


def test_a_network_in_training_mode_is_named(tmp_path: Path) -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3),
        torch.nn.BatchNorm2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(72, 10),
    )
    path = tmp_path / "m.onnx"
    torch.onnx.export(
        network.train(),
        (torch.rand(2, 1, 8, 8),),
        str(path),
        dynamo=False,
        training=torch.onnx.TrainingMode.TRAINING,
    )
    assert "model.eval() before the export" in fault_of(path.read_bytes())


def test_means_over_the_batch_say_how_to_take_them() -> None:
    axes = {"ax": np.array([0, 2, 3])}
    nodes = [node("ReduceMean", "x ax", "m"), node("Sub", "x m", "z"), node("Flatten", "z", "y")]
    assert "keepdim=True" in fault_of(model(nodes, axes, opset=18).SerializeToString())
