"""A factor before or behind a sum, wherever a deployment multiplies by it.

Gemm's alpha is multiplied with the sum by runtimes; a factor before a MatMul is moved behind it by
onnxruntime's optimiser. Where sums then overflow, or are flushed to zero, nothing may be certified.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from deployed import session_of
from onnx import ModelProto
from onnx_models import model, node, weights

from corobench.benchmark.certify.checker.intervals import Interval
from corobench.benchmark.certify.checker.layers import Linear, Scale
from corobench.benchmark.certify.checker.proofs import METHODS, margins
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.graph.network import read_network as read_file

SHAPE = (1, 2, 2)
CENTRE = np.full((1, *SHAPE), 0.5, dtype=np.float32)
RADIUS = np.float32(0.1)


def factor(power: int, behind: bool) -> tuple[list, dict[str, np.ndarray]]:
    """z = W r times 2**power: as Gemm's alpha, or as a Mul before a MatMul."""
    if behind:
        return [node("Gemm", "r w2", "z", transB=1, alpha=2.0**power)], {}
    return [node("Mul", "r s", "q"), node("MatMul", "q w2", "z")], {"s": np.float32(2.0**power)}


def first(slope: float, shift: float) -> tuple[list, dict[str, np.ndarray]]:
    """r = ReLU(slope x0 + shift)."""
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w1 b1", "g", transB=1)]
    w1 = np.float32([[slope, 0, 0, 0]])
    return [*nodes, node("Relu", "g", "r")], {"w1": w1, "b1": np.float32([shift])}


def overflowing(power: int, behind: bool) -> ModelProto:
    """r is up to 2**17; without the factor 2**-power z is as large as float32 allows, or more."""
    begin, stored = first(2.0**17, -(2.0**16))
    step, more = factor(power, behind)
    w2 = np.float32([[2.0**-power]])
    end = [node("Relu", "z", "t"), node("Gemm", "t w4 b4", "y", transB=1)]
    w4, b4 = np.float32([[0], [-(2.0**-20)]]), np.float32([1, -0.5])
    return model(
        [*begin, *step, *end],
        {**stored, **more, "w2": w2, "w4": w4, "b4": b4},
        image=("N", *SHAPE),
    )


def flushed(power: int, behind: bool) -> ModelProto:
    """z = r, unless r 2**-power is too small for float32; then the second logit is large."""
    begin, stored = first(2.0**-14, 0.0)
    step, more = factor(power, behind)
    end = [
        node("Relu", "z", "zr"),
        node("Relu", "r", "rr"),
        node("Concat", "zr rr", "c", axis=1),
        node("Gemm", "c w3", "d", transB=1),
        node("Relu", "d", "dr"),
        node("Gemm", "dr w4 b4", "y", transB=1),
    ]
    w3 = np.float32([[1, -1], [-1, 1]])
    w4, b4 = np.float32([[0, 0], [2.0**30, 2.0**30]]), np.float32([1, -0.5])
    given = {"w2": np.float32([[2.0**-power]]), "w3": w3, "w4": w4, "b4": b4}
    return model([*begin, *step, *end], {**stored, **more, **given}, image=("N", *SHAPE))


def claims(file: ModelProto) -> dict[str, float]:
    """Method -> the margin that the checker promises in the ball, for class 0."""
    network = read_network(read_file(file.SerializeToString(), SHAPE).network, SHAPE)
    low, high = (np.float64(CENTRE + side * RADIUS) for side in (-1, 1))
    return {
        method: float(margins(network, low, high, np.zeros(1, int), method)[0, 0])
        for method in METHODS
    }


def wrong(file: ModelProto, optimised: bool) -> int:
    """How many images of 200 in the ball onnxruntime does not put into class 0."""
    session = session_of(file, optimised)
    drawn = np.random.default_rng(0).uniform(-RADIUS, RADIUS, (200, *CENTRE.shape))
    found = [session.run(None, {"x": CENTRE + np.float32(one)})[0][0] for one in drawn]
    return sum(not (np.isfinite(y).all() and y[0] > y[1]) for y in found)


@pytest.mark.parametrize("behind", [True, False], ids=["alpha", "before"])
@pytest.mark.parametrize(
    ("make", "power"), [(overflowing, -115), (flushed, 126)], ids=["overflows", "flushed"]
)
def test_what_is_lost_without_the_factor_has_no_certificate(make, power, behind) -> None:
    file = make(power, behind)
    assert wrong(file, optimised=True) > 0, "the file shows nothing"
    assert max(claims(file).values()) <= 0


@pytest.mark.parametrize("behind", [True, False], ids=["alpha", "before"])
def test_a_factor_that_loses_nothing_costs_no_certificate(behind: bool) -> None:
    file = overflowing(-10, behind)
    assert wrong(file, optimised=True) == wrong(file, optimised=False) == 0
    assert min(claims(file).values()) > 0


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 1.0), (0.3, 1.7), (-1.5, 0.0), (0.0, 1.0)])
def test_alpha_and_beta_are_those_of_onnxruntime(alpha: float, beta: float) -> None:
    file = model(
        [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", alpha=alpha, beta=beta)],
        {"w": weights(4, 3), "b": weights(3, seed=1)},
        image=("N", *SHAPE),
    )
    content = file.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).random((7, *SHAPE), dtype=np.float32)
    with torch.no_grad():
        found = read_file(content, SHAPE).network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, session.run(None, {"x": x})[0], rtol=0, atol=1e-6)


def test_products_of_a_folded_factor_may_each_be_flushed() -> None:
    """A thousand products of 2**-127: as terms of the sum each is lost, behind it none."""
    num = 1000
    layer = Linear(np.full((1, num), 2.0**-20), np.zeros(1))
    pixels = np.full((1, num), 2.0**-47)
    summed = layer.bounds([Interval(pixels, pixels)])
    found = Scale(np.float64(2.0**-60), np.zeros(())).bounds([summed])
    assert found.low[0, 0] <= 0.0  # all are flushed
    assert found.high[0, 0] >= num * 2.0**-127
