"""What onnxruntime makes of operators when it joins them: a layer norm, a GELU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from deployed import session_of
from onnx import ModelProto
from onnx_models import model, node, weights
from torch import Tensor
from written_nets import Written

from corobench.benchmark.certify.checker.boxed import Norm
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.proofs import METHODS, margins
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.graph.network import read_network as read_file
from corobench.benchmark.submission.graph.rules import GraphFaultError

SHAPE = (1, 2, 2)
ROOT = np.float32(np.sqrt(2.0))


def runtime(file: ModelProto, optimised: bool, image: np.ndarray) -> np.ndarray:
    return session_of(file, optimised).run(None, {"x": image})[0]


def checked(file: ModelProto) -> Network:
    return read_network(read_file(file.SerializeToString(), SHAPE).network, SHAPE)


# ------------------------------------------------------------------------------ layer norms


def layer_norm(exponent: float) -> ModelProto:
    """The largest of four normed values, against 1.9; with any other exponent it is less."""
    nodes = [
        node("Flatten", "x", "f"),
        node("ReduceMean", "f", "m", axes=[-1], keepdims=1),
        node("Sub", "f m", "d"),
        node("Pow", "d two", "p"),
        node("ReduceMean", "p", "v", axes=[-1], keepdims=1),
        node("Add", "v eps", "e"),
        node("Sqrt", "e", "s"),
        node("Div", "d s", "h"),
        node("Mul", "h w", "g"),
        node("Add", "g b", "z"),
        node("Gemm", "z v1 v0", "y", transB=1),
    ]
    stored = {
        "two": np.float32(exponent),
        "eps": np.float32(1e-5),
        "w": np.ones(4, np.float32),
        "b": np.zeros(4, np.float32),
        "v1": np.float32([[1, 0, 0, 0], [0, 0, 0, 0]]),
        "v0": np.float32([0, 2]),
    }
    return model(nodes, stored, image=("N", *SHAPE))


@pytest.mark.parametrize("exponent", [1.0, 3.0, 4.0, 8.0])
def test_a_layer_norm_with_another_exponent_is_refused(exponent: float) -> None:
    image = np.float32([[[[0.9, 0.1], [0.1, 0.1]]]])
    file = layer_norm(exponent)
    plain, joined = (runtime(file, is_on, image)[0] for is_on in (False, True))
    assert not np.isfinite(plain).all() or (plain[0] > plain[1]) != (joined[0] > joined[1])
    with pytest.raises(GraphFaultError, match="to the power of 2"):
        checked(file)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 4.0, 8.0])
def test_a_layer_norm_with_another_exponent_is_refused_as_code_of_torch(exponent: float) -> None:
    """It is exported with these operators, and then computed as that of the file is."""

    def norm(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        d = flat - flat.mean(-1, keepdim=True)
        return d / torch.sqrt(d.pow(exponent).mean(-1, keepdim=True) + 1e-5)

    with pytest.raises(UncheckableError, match="exponent"):
        read_network(Written(norm), SHAPE)


def test_a_layer_norm_keeps_its_certificate() -> None:
    image = np.float32([[[[0.9, 0.1], [0.1, 0.1]]]])
    network = checked(layer_norm(2.0))
    low, high = np.float64(image) - 0.01, np.float64(image) + 0.01
    assert runtime(layer_norm(2.0), True, image)[0].argmax() == 1
    assert margins(network, low, high, np.ones(1, int), METHODS[0])[0, 0] > 0


def in_one_pass(x: np.ndarray, eps: float) -> np.ndarray:
    """As onnxruntime's layer has computed it for years: float32, one value after another."""
    mean, square = np.float32(0), np.float32(0)
    for value in x:
        mean, square = mean + value, square + value * value
    mean = mean / np.float32(len(x))
    with np.errstate(invalid="ignore"):
        return (x - mean) / np.sqrt(square / np.float32(len(x)) - mean * mean + np.float32(eps))


def normed(x: Tensor, eps: float = 1e-3) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(1, keepdim=True) + eps)


def normed_twice(x: Tensor, eps: float = 1e-3) -> Tensor:
    """As old exporters write it, and with a reciprocal."""
    mean = x.mean(1, keepdim=True)
    squares = (-mean + x) ** 2
    return torch.rsqrt(squares.mean(1, keepdim=True) + eps) * (x - mean)


@pytest.mark.parametrize("function", [normed, normed_twice])
@pytest.mark.parametrize("offset", [0.0, 3.0, 10.0, 100.0, 1000.0])
def test_a_written_layer_norm_may_be_computed_in_one_pass(function, offset: float) -> None:
    network = read_network(Written(lambda x: function(x.flatten(1) + offset)).eval(), (1, 4, 4))
    assert isinstance(network.steps[-1].layer, Norm)
    for seed in range(20):
        image = np.random.default_rng(seed).random((1, 1, 4, 4), dtype=np.float32)
        found = network.bounds(np.float64(image), np.float64(image)).values[-1]
        deployed = in_one_pass(image.reshape(-1) + np.float32(offset), 1e-3)
        is_inside = (found.low[0] <= deployed) & (deployed <= found.high[0])
        assert (is_inside | np.isinf(found.high[0])).all()
        if offset == 0.0:
            assert (found.high - found.low < 1e-3).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x - x.mean(1, True)) / torch.sqrt((x * x).mean(1, True) + 0.1),
        lambda x: (x - x.mean(1, True)) / torch.sqrt(((x - 0.5) ** 2).mean(1, True) + 0.1),
        lambda x: (
            (x - x.mean(1, True)) / torch.sqrt(((x - x.sum(1, True)) ** 2).mean(1, True) + 0.1)
        ),
        lambda x: (
            (x - x.mean(1, True)) / torch.sqrt(((x + x.mean(1, True)) ** 2).mean(1, True) + 0.1)
        ),
        lambda x: (
            (x - x.mean(1, True))
            / torch.sqrt(((x - x.mean(1, True) * 0.5) ** 2).mean(1, True) + 0.1)
        ),
        lambda x: (
            (x - (x.mean(1, True) + 0.1))
            / torch.sqrt(((x - x.mean(1, True)) ** 2).mean(1, True) + 0.1)
        ),
        lambda x: (
            (x - x.mean(1, True))
            / torch.sqrt(((x - x.mean(1, True)) * (x + 1.0)).mean(1, True) + 2.0)
        ),
        lambda x: (x - x.mean(1, True)) / torch.sqrt(((x - x.mean(1, True)) ** 2).mean(1, True)),
        lambda x: (
            (x - x.mean(1, True)) / torch.sqrt(((x - x.mean(1, True)) ** 2).sum(1, True) + 0.1)
        ),
    ],
)
def test_what_is_no_layer_norm_is_bounded_as_it_is(function) -> None:
    network = read_network(Written(lambda x: function(x.flatten(1))).eval(), (1, 4, 4))
    assert not isinstance(network.steps[-1].layer, Norm)
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    point = image.double().numpy()
    found, logits = network.bounds(point, point).values[-1], function(image.flatten(1)).numpy()
    assert ((found.low <= logits) & (logits <= found.high)).all()


# ------------------------------------------------------------------------------ GELUs


def gelu(half: float = 0.5, one: float = 1.0, root: float = ROOT, is_last: bool = False):
    """64 times how much more than 10 the GELU of 10 is."""
    ends = [node("Mul", "z u", "q"), node("Mul", "q half", "g")]
    if not is_last:
        ends = [node("Mul", "z half", "q"), node("Mul", "q u", "g")]
    nodes = [
        node("Flatten", "x", "f"),
        node("Gemm", "f w0 ten", "z", transB=1),
        node("Div", "z root", "t"),
        node("Erf", "t", "e"),
        node("Add", "e one", "u"),
        *ends,
        node("Gemm", "g v1 v0", "y", transB=1),
    ]
    stored = {
        "w0": np.zeros((1, 4), np.float32),
        "ten": np.float32([10]),
        "root": np.float32(root),
        "one": np.float32(one),
        "half": np.float32(half),
        "v1": np.float32([[64], [0]]),
        "v0": np.float32([-640.0007, 0]),
    }
    return model(nodes, stored, image=("N", *SHAPE))


def tanh_gelu(half: float = 0.5, one: float = 1.0, factor: float = 0.044715, root: float = 0.0):
    """Of 2 x0 - 1, by its approximation with a tanh."""
    nodes = [
        node("Flatten", "x", "f"),
        node("Gemm", "f w0", "z", transB=1),
        node("Pow", "z three", "p"),
        node("Mul", "p k", "c"),
        node("Add", "z c", "s"),
        node("Mul", "s root", "t"),
        node("Tanh", "t", "e"),
        node("Add", "e one", "u"),
        node("Mul", "z half", "q"),
        node("Mul", "q u", "g"),
        node("Gemm", "g v1", "y", transB=1),
    ]
    stored = {
        "w0": weights(1, 4),
        "three": np.float32(3),
        "k": np.float32(factor),
        "root": np.float32(root or np.sqrt(2 / np.pi)),
        "one": np.float32(one),
        "half": np.float32(half),
        "v1": np.float32([[1], [0]]),
    }
    return model(nodes, stored, image=("N", *SHAPE))


NEARLY = 1 + 9e-6


@pytest.mark.parametrize("is_last", [False, True])
def test_a_number_that_a_runtime_takes_for_one_half_is_refused(is_last: bool) -> None:
    file, image = gelu(0.5 * NEARLY, is_last=is_last), np.full((1, *SHAPE), 0.5, np.float32)
    assert runtime(file, False, image)[0].argmax() == 0
    assert runtime(file, True, image)[0].argmax() == 1
    with pytest.raises(UncheckableError, match=r"takes for 0\.5"):
        checked(file)


@pytest.mark.parametrize(
    "file",
    [
        gelu(one=NEARLY),
        gelu(one=2 - NEARLY),
        gelu(root=ROOT * NEARLY),
        gelu(root=1.41421),
        tanh_gelu(half=0.5 * NEARLY),
        tanh_gelu(one=NEARLY),
        tanh_gelu(factor=0.044715 * NEARLY),
        tanh_gelu(root=float(np.sqrt(2 / np.pi)) * NEARLY),
    ],
)
def test_a_number_that_a_runtime_takes_for_another_is_refused(file: ModelProto) -> None:
    with pytest.raises(UncheckableError, match="that a runtime takes for"):
        checked(file)


@pytest.mark.parametrize(
    "file", [gelu(), gelu(half=0.25), gelu(one=1.001), tanh_gelu(), tanh_gelu(factor=0.05)]
)
def test_other_numbers_are_read(file: ModelProto) -> None:
    image = np.full((1, *SHAPE), 0.5, np.float32)
    found = checked(file).bounds(np.float64(image), np.float64(image)).values[-1]
    for is_on in (False, True):
        logits = runtime(file, is_on, image)
        assert ((found.low <= logits) & (logits <= found.high)).all()


def test_numbers_of_a_network_without_erf_and_tanh_are_its_own() -> None:
    network = read_network(Written(lambda x: x.flatten(1) * (0.5 * NEARLY)).eval(), SHAPE)
    assert len(network.steps) == 2
