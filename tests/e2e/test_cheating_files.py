"""Cheaters as anybody could hand them in: files in a folder, through ``corobench evaluate``.

What the formats can say is refused by a named rule or flagged in the result. What needs code (a
count of calls, a clock, hooks) cannot be said in them; the tries are here, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, node
from safetensors.torch import load_file, save_file

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.network import compactness
from corobench.benchmark.submission.graph.network import read_network
from corobench.benchmark.submission.graph.rules import GraphFaultError

TEMPLATE = Path(__file__).parents[2] / "submissions" / "_template"
IMAGE = ("N", 1, 8, 8)
Nodes = list[onnx.NodeProto]
Constants = dict[str, np.ndarray]


def _linear(linear: torch.nn.Module) -> Constants:
    """An honest classifier of digits: logits are `f @ v + d`."""
    layer = linear[1]
    return {"v": layer.weight.detach().numpy(), "d": layer.bias.detach().numpy()}


HONEST = [node("Flatten", "x", "f"), node("Gemm", "f v d", "z", transB=1)]


def _folder(tmp_path: Path, proto: onnx.ModelProto, **files: str) -> Path:
    folder = tmp_path / "cheat"
    folder.mkdir()
    content = proto.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    try:
        sparsity = compactness.sparsity(read_network(content).network)
    except GraphFaultError:
        sparsity = 0.0
    (folder / "submission.toml").write_text(
        f"""schema = 1
id = "cheat"
title = "Cheat"
authors = ["Nobody"]
licence = "MIT"
track = "digits"
sparsity = {sparsity}
[model]
weights = "model.onnx"
num_classes = 10
[method]
name = "cheat"
pipeline = "none"
pretrain_objective = "natural"
[training]
data = "digits"
"""
    )
    for name, text in files.items():
        (folder / name.replace("_py", ".py")).write_text(text)
    return folder


def _evaluate(folder: Path, out: Path, subset_: int, epsilons: str = "1/16") -> int:
    options = ["--subset", str(subset_), "--epsilons", epsilons, "--certify-budget-s", "0.05"]
    return invoke(["evaluate", str(folder), "--out", str(out), *options])


def _result(out: Path) -> dict[str, Any]:
    (path,) = out.rglob("cheat*.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _flags(out: Path) -> set[str]:
    return {flag for score in _result(out)["epsilons"].values() for flag in score["flags"]}


# --------------------------------------------------------------------------- refused by name

AFTER = {
    "the mean over the batch is subtracted": (
        [node("ReduceMean", "z", "m", axes=[0], keepdims=1), node("Sub", "z m", "y")],
        {},
        "onnx-batch",
    ),
    "a maximum over the batch": (
        [node("ReduceMax", "z", "m", axes=[0], keepdims=1), node("Sub", "z m", "y")],
        {},
        "onnx-batch",
    ),
    "softmax over the batch": (
        [node("Softmax", "z", "y", axis=0)],
        {},
        "contract clause batch-independent",
    ),
    "images of a batch change places": (
        [node("Transpose", "z", "t", perm=[1, 0]), node("Gemm", "t s", "y", transA=1)],
        {"s": np.eye(10, dtype=np.float32)},
        "onnx-batch",
    ),
    "the size of the batch is computed with": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Cast", "n", "c", to=TensorProto.FLOAT),
            node("Mul", "z c", "y"),
        ],
        {"zero": np.array(0, dtype=np.int64)},
        "onnx-computed-constant",
    ),
    "statistics of the batch": (
        [node("BatchNormalization", "z g b mu va", "y", training_mode=1)],
        {name: np.ones(10, np.float32) for name in ("g", "b", "mu", "va")},
        "onnx-training",
    ),
    "dropout that is on": (
        [node("Dropout", "z r on", "y")],
        {"r": np.float32(0.5), "on": np.array(True)},
        "onnx-type",
    ),
    "noise": (
        [node("RandomNormalLike", "z", "n"), node("Add", "z n", "y")],
        {},
        "onnx-operator",
    ),
    "a draw": ([node("Bernoulli", "z", "y")], {}, "onnx-operator"),
    "a state that outlives an image": (
        [
            node("Unsqueeze", "z ax", "u"),
            node("GRU", "u w r", "h", hidden_size=10),
            node("Squeeze", "h ax", "y"),
        ],
        {
            "ax": np.array([0]),
            "w": np.ones((1, 30, 10), np.float32),
            "r": np.ones((1, 30, 10), np.float32),
        },
        "onnx-operator",
    ),
    "steps without a gradient": ([node("Sign", "z", "y")], {}, "onnx-operator"),
    "rounding": ([node("Round", "z", "y")], {}, "onnx-operator"),
    "a switch": (
        [node("Greater", "z d", "g"), node("Where", "g z d", "y")],
        {},
        "onnx-operator",
    ),
    "probabilities": ([node("Softmax", "z", "y", axis=1)], {}, "contract clause logits"),
    "overflow": (
        [node("Mul", "z k", "k1"), node("Mul", "k1 k", "y")],
        {"k": np.float32(1e30)},
        "contract clause finite",
    ),
    "infinity in the file": (
        [node("Mul", "z k", "y")],
        {"k": np.float32(np.inf)},
        "onnx-not-finite",
    ),
}


def _foreign(domain: str, operator: str) -> onnx.ModelProto:
    """An operator of somebody's own, such as one that runs Python or reads a clock."""
    proto = model(
        [*HONEST, helper.make_node(operator, ["z"], ["y"], domain=domain)],
        {"v": np.ones((10, 64), np.float32), "d": np.zeros(10, np.float32)},
        image=IMAGE,
    )
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def _loop() -> onnx.ModelProto:
    """A loop that may count."""
    body = helper.make_graph(
        [node("Identity", "go", "went"), node("Add", "state one", "next")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("went", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    return model(
        [*HONEST, helper.make_node("Loop", ["times", "", "z"], ["y"], body=body)],
        {
            "v": np.ones((10, 64), np.float32),
            "d": np.zeros(10, np.float32),
            "times": np.array(3),
        },
        image=IMAGE,
    )


@pytest.mark.parametrize("name", AFTER)
def test_a_graph_is_refused_by_a_named_rule(
    name: str, linear: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes, constants, rule = AFTER[name]
    proto = model([*HONEST, *nodes], {**_linear(linear), **constants}, image=IMAGE)
    folder = _folder(tmp_path, proto)
    assert _evaluate(folder, tmp_path / "out", 16) == 2
    assert rule in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: _foreign("ai.onnx.contrib", "PyOp"),
        lambda: _foreign("com.microsoft", "Clock"),
        _loop,
    ],
    ids=["python", "clock", "loop"],
)
def test_a_graph_cannot_ask_for_code_a_clock_or_a_count(
    make: Callable[[], onnx.ModelProto], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(tmp_path, make())
    assert _evaluate(folder, tmp_path / "out", 16) == 2
    assert "onnx-operator" in capsys.readouterr().err


# ------------------------------------------------------------------------ flagged in the result


def _images(number: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels, _ = subset(load_test("digits"), number)
    return images.reshape(number, 64), np.eye(10, dtype=np.float32)[labels]


def _memory(
    linear: torch.nn.Module, images: np.ndarray, answers: np.ndarray, by: str
) -> onnx.ModelProto:
    """A poor classifier, and a label by heart for whatever lies close to a stored image.

    `by`: "exact" recognises an image itself, "ball" everything within 2/16 of it.
    """
    honest = _linear(linear)
    # Half of the classes are mixed up, so that it is right on half of what it does not know.
    order = [1, 0, 3, 2, 5, 4, 6, 7, 8, 9]
    measure = "ReduceSum" if by == "exact" else "ReduceMax"
    reach, slope = (1e-6, 1e6) if by == "exact" else (2 / 16 + 1e-3, 1e4)
    nodes = [
        *HONEST,
        node("Reshape", "x row", "r"),
        node("Sub", "r stored", "apart"),
        node("Abs", "apart", "far"),
        node(measure, "far last", "distance", keepdims=0)
        if by == "exact"
        else node(measure, "far", "distance", axes=[2], keepdims=0),
        node("Mul", "distance slope", "steep"),
        node("Sub", "reach steep", "near"),
        node("Clip", "near low high", "known"),
        node("MatMul", "known answers", "by_heart"),
        node("Add", "z by_heart", "y"),
    ]
    constants = {
        "v": honest["v"][order],
        "d": honest["d"][order],
        "row": np.array([-1, 1, 64]),
        "stored": images[None],
        "last": np.array([2]),
        "slope": np.float32(slope),
        "reach": np.float32(reach * slope),
        "low": np.float32(0),
        "high": np.float32(1),
        "answers": 30 * answers,
    }
    if by != "exact":
        del constants["last"]
    return model(nodes, constants, image=IMAGE)


@pytest.mark.parametrize(
    ("by", "flags"),
    [
        ("exact", {"recognises-images", "better-than-on-training"}),
        ("ball", {"better-than-on-training"}),
    ],
)
def test_memorised_test_images_are_flagged_and_counted(
    by: str, flags: set[str], linear: torch.nn.Module, tmp_path: Path
) -> None:
    images, answers = _images(40)
    folder = _folder(tmp_path, _memory(linear, images, answers, by))
    assert _evaluate(folder, tmp_path / "out", 40) == 0
    assert flags <= _flags(tmp_path / "out")
    found = _result(tmp_path / "out")
    assert found["clean"] == 40
    assert found["quick"]
    size = found["compactness"]
    assert size["num_parameters"] >= 650 + 40 * 64 + 40 * 10
    assert size["bytes_dense"] >= 4 * 40 * 64


def _clipped() -> tuple[Nodes, Constants]:
    return [node("Clip", "z low high", "y")], {"low": np.float32(-2), "high": np.float32(2)}


def _plateau() -> tuple[Nodes, Constants]:
    """The class that leads gets 10, and the slope that is left is too small to follow."""
    return [
        node("ReduceMax", "z", "top", axes=[1], keepdims=1),
        node("Sub", "z top", "behind"),
        node("Mul", "behind steep", "drop"),
        node("Add", "drop ten", "step"),
        node("Clip", "step zero ten", "flat"),
        node("Mul", "z little", "slope"),
        node("Add", "flat slope", "y"),
    ], {
        "steep": np.float32(1e4),
        "ten": np.float32(10),
        "zero": np.float32(0),
        "little": np.float32(1e-6),
    }


def _shattered() -> tuple[Nodes, Constants]:
    """A saw of the pixels with 2**17 teeth: folded again and again by its absolute value."""
    nodes = [node("Slice", "f from to along", "s0")]
    for number in range(17):
        nodes += [
            node("Mul", f"s{number} two", f"m{number}"),
            node("Sub", f"m{number} one", f"n{number}"),
            node("Abs", f"n{number}", f"s{number + 1}"),
        ]
    nodes += [node("Mul", "s17 height", "ripple"), node("Add", "z ripple", "y")]
    return nodes, {
        "from": np.array([20]),
        "to": np.array([30]),
        "along": np.array([1]),
        "two": np.float32(2),
        "one": np.float32(1),
        "height": np.float32(0.5),
    }


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (_clipped, "clipped-logits"),
        (_plateau, "vanishing-gradient"),
        (_shattered, "shattered-gradient"),
    ],
    ids=["clipped", "plateau", "shattered"],
)
def test_a_network_that_blinds_attacks_is_flagged(
    make: Callable[[], tuple[Nodes, Constants]],
    flag: str,
    linear: torch.nn.Module,
    tmp_path: Path,
) -> None:
    nodes, constants = make()
    proto = model([*HONEST, *nodes], {**_linear(linear), **constants}, image=IMAGE)
    folder = _folder(tmp_path, proto)
    assert _evaluate(folder, tmp_path / "out", 24, "1/32") == 0
    assert flag in _flags(tmp_path / "out")


def test_an_honest_file_of_the_same_kind_raises_none_of_these(
    linear: torch.nn.Module, tmp_path: Path
) -> None:
    """Otherwise the flags above would prove nothing."""
    nodes = [HONEST[0], node("Gemm", "f v d", "y", transB=1)]
    folder = _folder(tmp_path, model(nodes, _linear(linear), image=IMAGE))
    assert _evaluate(folder, tmp_path / "out", 100, "1/32") == 0
    assert _flags(tmp_path / "out") == set()


# ------------------------------------------------------------------------------ weights files


def _weights(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    folder = tmp_path / "cheat"
    shutil.copytree(TEMPLATE, folder)
    manifest = folder / "submission.toml"
    manifest.write_text(manifest.read_text().replace('id = "template"', 'id = "cheat"'))
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    return folder


def _last(state: dict[str, torch.Tensor]) -> list[str]:
    layer = sorted(state, key=lambda name: int(name.split(".")[0]))[-1].split(".")[0]
    return [name for name in state if name.split(".")[0] == layer]


def test_logits_scaled_until_gradients_vanish_are_flagged(tmp_path: Path) -> None:
    """The same decisions; the cross-entropy of float32 is 0, so that its gradient is, too."""

    def scale(state: dict[str, torch.Tensor]) -> None:
        for name in _last(state):
            state[name] = state[name] * 1e4

    folder = _weights(tmp_path, scale)
    assert _evaluate(folder, tmp_path / "out", 24) == 0
    assert "zero-gradient" in _flags(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda state: state.update(calls=torch.zeros(1)), "unexpected tensor `calls`"),
        (
            lambda state: state.update({"0.images": torch.zeros(100, 64)}),
            "unexpected tensor `0.images`",
        ),
        (
            lambda state: state.update({name: state[name] * 1e30 for name in state}),
            "contract clause finite",
        ),
    ],
    ids=["counter", "images", "overflow"],
)
def test_a_weights_file_holds_weights_and_nothing_else(
    change: Callable[[dict[str, torch.Tensor]], object],
    rule: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = _weights(tmp_path, change)
    assert _evaluate(folder, tmp_path / "out", 16) == 2
    assert rule in capsys.readouterr().err


def test_code_in_a_folder_is_never_run(
    linear: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count of calls, a clock and hooks need code: nothing in a folder or beside it is run."""
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()\n"
    names = ("model_py", "conftest_py", "sitecustomize_py", "benchmark_py", "torch_py")
    nodes = [HONEST[0], node("Gemm", "f v d", "y", transB=1)]
    proto = model(nodes, _linear(linear), image=IMAGE)
    folder = _folder(tmp_path, proto, **dict.fromkeys(names, code))
    monkeypatch.chdir(folder)
    assert _evaluate(folder, tmp_path / "out", 8, "1/64") == 0
    assert not mark.exists()


# ------------------------------------------------------------- gradients that are not finite


def _without_gradients(
    linear: torch.nn.Module, stored: np.ndarray, low: float, high: float
) -> onnx.ModelProto:
    """An honest classifier times 1, whose gradient is inf - inf between two distances.

    The distance is that to the nearest of some stored images; v is about 1e-39 and v / v is 1.
    """
    nodes = [
        *HONEST,
        node("Reshape", "x row", "r"),
        node("Sub", "r stored", "apart"),
        node("Abs", "apart", "far"),
        node("ReduceSum", "far last", "distances", keepdims=0),
        node("Mul", "distances minus", "negative"),
        node("ReduceMax", "negative", "nearest", axes=[1], keepdims=1),
        node("Mul", "nearest minus", "distance"),
        node("Sub", "distance low", "above"),
        node("Relu", "above", "is_above"),
        node("Sub", "distance high", "beyond"),
        node("Relu", "beyond", "is_beyond"),
        node("Mul", "is_beyond steep", "drop"),
        node("Sub", "is_above drop", "hill"),
        node("Relu", "hill", "between"),
        node("Mul", "between tinier", "small"),
        node("Add", "small tiny", "v1"),
        node("Div", "v1 v1", "one"),
        node("Mul", "z one", "y"),
    ]
    constants = _linear(linear) | {
        "row": np.array([-1, 1, 64]),
        "stored": stored[None],
        "last": np.array([2]),
        "low": np.float32(low),
        "high": np.float32(high),
        "tiny": np.float32(1e-39),
        "tinier": np.float32(1e-41),
        "minus": np.float32(-1),
        "steep": np.float32(1e3),
    }
    return model(nodes, constants, image=IMAGE)


def test_gradients_that_are_not_finite_from_the_17th_image_on_are_refused(
    linear: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, _ = _images(30)
    folder = _folder(tmp_path, _without_gradients(linear, images[:16], 0.0, 1e3))
    assert _evaluate(folder, tmp_path / "out", 30) == 2
    _, _, indices = subset(load_test("digits"), 30)
    message = capsys.readouterr().err
    assert "contract clause input-gradient" in message
    assert f"images {indices[16]}, {indices[17]}, {indices[18]} and 11 more" in message
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.slow
def test_gradients_that_are_not_finite_inside_the_ball_are_flagged_and_lead_nobody_astray(
    linear: torch.nn.Module, tmp_path: Path
) -> None:
    """Clean images and random ones have finite gradients, so that the contract is kept."""
    images, _ = _images(24)
    plain = [*HONEST[:1], node("Gemm", "f v d", "y", transB=1)]
    protos = {
        "honest": model(plain, _linear(linear), image=IMAGE),
        "cheat": _without_gradients(linear, images, 0.01, 10.0),
    }
    found, flags = {}, {}
    for name, proto in protos.items():
        (tmp_path / name).mkdir()
        folder = _folder(tmp_path / name, proto)
        assert _evaluate(folder, tmp_path / name / "out", 24) == 0
        flags[name] = _flags(tmp_path / name / "out")
        found[name] = _result(tmp_path / name / "out")
    assert "non-finite-gradient" in flags["cheat"] and "non-finite-gradient" not in flags["honest"]
    assert found["cheat"]["clean"] == found["honest"]["clean"]
    for epsilon, scores in found["honest"]["epsilons"].items():
        for attack in ("pgd50", "autoattack"):
            assert found["cheat"]["epsilons"][epsilon][attack] == scores[attack] < 24
