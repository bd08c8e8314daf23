"""Lines of nonlinear layers hold at every point, ends included; pools choose rightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from corobench.benchmark.certify.checker.activations import (
    CURVE_ERROR,
    Activation,
    Curve,
    Lines,
    MaxPool,
    Quantise,
    Relu,
)
from corobench.benchmark.certify.checker.intervals import FLAT, Interval, whole
from corobench.benchmark.submission.graph.layers import Quantise as TorchQuantise

END = st.floats(-40, 40) | st.sampled_from([0.0, -0.0, 1e-12, -1e-12, 0.5, -0.5, 700.0, -700.0])
NEAR = st.sampled_from([0.0, 1e-300, 1e-12, 1e-9, 2e-9, 1e-6, 1e-3, 0.5, 3.0, 100.0])


def points(low: float, high: float) -> np.ndarray:
    inner = np.linspace(low, high, 203)
    near = np.array([0.0, np.nextafter(low, 1e9), np.nextafter(high, -1e9)])
    return np.unique(np.clip(np.concatenate([inner, near]), low, high))


def violation(lines: Lines, z: np.ndarray, value: np.ndarray) -> float:
    """How far values lie beyond the lines."""
    low = lines.low_slope * z + lines.low_offset - value
    high = value - (lines.high_slope * z + lines.high_offset)
    return max(float(low.max()), float(high.max()))


def lines_of(layer: Activation, low: float, high: float) -> tuple[Lines, Interval]:
    given = Interval(np.array([low]), np.array([high]))
    return layer.lines(given), layer.bounds([given])


@settings(max_examples=300, deadline=None)
@given(low=END, width=NEAR, slope=st.floats(-3, 3))
def test_lines_of_a_relu(low: float, width: float, slope: float) -> None:
    high = low + width
    z = points(low, high)
    value = np.maximum(z, 0.0)
    lines, found = lines_of(Relu(), low, high)
    assert violation(lines, z, value) <= 1e-13 * max(1.0, abs(low), abs(high))
    chosen = Relu().lines(Interval(np.array([low]), np.array([high])), np.array([slope]))
    assert 0.0 <= chosen.low_slope[0] <= 1.0  # a slope outside is clipped
    assert violation(chosen, z, value) <= 1e-13 * max(1.0, abs(low), abs(high))
    assert found.low[0] == max(low, 0.0) and found.high[0] == max(high, 0.0)
    if low >= 0 or high <= 0:
        assert lines.low_slope == lines.high_slope == float(high > 0)
        assert lines.low_offset == lines.high_offset == 0.0


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "erf"])
@settings(max_examples=300, deadline=None)
@given(low=END, width=NEAR)
def test_lines_of_a_curve(name: str, low: float, width: float) -> None:
    high = low + width
    z = points(low, high)
    value = getattr(torch, name)(torch.from_numpy(z)).numpy()
    lines, found = lines_of(Curve(name), low, high)
    assert violation(lines, z, value) <= 1e-13
    assert (found.low <= value - CURVE_ERROR / 2).all()
    assert (found.high >= value + CURVE_ERROR / 2).all()
    # As tight as constants, or as the chord on a side where the curve bends one way.
    gap = (lines.high_slope - lines.low_slope) * z + lines.high_offset - lines.low_offset
    assert gap.max() <= 2.0 + 1e-9
    if low >= 0 or high <= 0:
        assert gap.max() <= value.max() - value.min() + 1e-8


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "erf"])
def test_float32_curves_stay_within_their_error(name: str) -> None:
    z = torch.linspace(-30, 30, 200001)
    deployed = getattr(torch, name)(z).double()
    assert float((deployed - getattr(torch, name)(z.double())).abs().max()) < CURVE_ERROR / 4


STEPS = {
    "uint8": (0.1, 0.0, 0, 255),
    "with a zero": (0.25, 100.0, 0, 255),
    "int8": (0.05, -3.0, -128, 127),
    "few": (1.0, 0.0, -1, 1),
}


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=150, deadline=None)
@given(low=st.floats(-60, 60), width=NEAR)
def test_lines_of_steps(name: str, low: float, width: float) -> None:
    scale, zero, least, most = STEPS[name]
    scale = float(np.float32(scale))
    layer = Quantise(np.array([scale]), np.array([zero]), least, most)
    low, high = float(np.float32(low)), float(np.float32(low + width))
    edges = (np.arange(least, most + 1) - zero + 0.5) * scale
    inside = edges[(edges >= low) & (edges <= high)]
    z = np.float32(np.concatenate([points(low, high), inside]))
    z = np.clip(z, np.float32(low), np.float32(high))
    torch_layer = TorchQuantise(torch.tensor([scale]), torch.tensor([zero]), least, most)
    deployed = torch_layer(torch.from_numpy(z)).double().numpy()
    reciprocal = np.clip(np.round(z * np.float32(1 / scale)) + zero, least, most) - zero
    lines, found = lines_of(layer, low, high)
    assert found.noise is not None
    for value in (deployed, reciprocal * scale):
        assert (found.low <= value).all() and (value <= found.high).all()
        assert violation(lines, z.astype(np.float64), value) <= float(found.noise.max())
    assert set(np.concatenate([lines.low_slope, lines.high_slope])) <= {0.0, 1.0}


def as_runtimes_do(z: np.ndarray, scale: np.float32, zero: int, low: int, high: int) -> np.ndarray:
    """Codes as float32 that runtimes find: zero point added late or early, or the range moved."""
    inverse, first = np.float32(1) / scale, np.float32(low - zero) * scale
    span = np.float32(high - zero) * scale - first
    steps = np.float32(high - low)
    moved = (np.clip(z, first, np.float32(high - zero) * scale) - first) / span * steps
    found = [
        np.round(z / scale) + np.float32(zero),
        np.round(z * inverse + np.float32(zero)),
        np.round(z / scale + np.float32(zero)),
        np.round(moved) + np.float32(low),
    ]
    return np.clip(np.float32(found), low, high)


def as_values(codes: np.ndarray, scale: np.float32, zero: int, low: int, high: int) -> np.ndarray:
    """Float32 values of codes: as written, both products, fused, by the ends of the range."""
    product, first = np.float32(zero) * scale, np.float32(low - zero) * scale
    span = np.float32(high - zero) * scale - first
    share = (codes - np.float32(low)) / np.float32(high - low)
    fused = np.float32(codes.astype(np.float64) * np.float64(scale) - np.float64(product))
    return np.stack(
        [(codes - np.float32(zero)) * scale, codes * scale - product, fused, share * span + first]
    )


@pytest.mark.parametrize(
    ("zero", "least", "most"),
    [(0, 0, 255), (1, 0, 255), (100, 0, 255), (255, 0, 255), (0, -128, 127), (-128, -128, 127)],
)
def test_zero_points_may_be_added_before_rounding_and_taken_off_after_scaling(
    zero: int, least: int, most: int
) -> None:
    """Whatever a runtime does with the zero point: what it loses grows with it, not with z."""
    for scale in np.float32([0.1, 0.003, 1 / 255, 0.7]):
        edges = (np.arange(least - 2, most + 3) - zero + 0.5) * np.float64(scale)
        by = np.array([0.0, *(sign * 2.0**-k for k in range(14, 26) for sign in (-1, 1))])
        z = np.float32((edges[:, None] + by * np.float64(scale)).ravel())
        z = np.concatenate([z, np.arange(least - zero, most - zero + 1, dtype=np.float32) * scale])
        given = Interval(z.astype(np.float64), z.astype(np.float64))
        layer = Quantise(np.array([scale], np.float64), np.array([float(zero)]), least, most)
        found = layer.bounds([given])
        wide = Interval(np.full(z.shape, z.min(), float), np.full(z.shape, z.max(), float))
        lines, noise = layer.lines(wide), layer.bounds([wide]).noise
        assert found.noise is not None and noise is not None
        for codes in as_runtimes_do(z, scale, zero, least, most):
            for value in as_values(codes, scale, zero, least, most).astype(np.float64):
                assert (found.low <= value).all() and (value <= found.high).all()
                assert violation(lines, z.astype(np.float64), value) <= float(noise.max())


def test_steps_are_increasing_and_exact_between_their_edges() -> None:
    layer = Quantise(np.array([0.5]), np.array([0.0]), 0, 10)
    given = Interval(np.array([[0.3], [-4.0], [0.9]]), np.array([[0.7], [90.0], [1.6]]))
    found = layer.bounds([given])
    np.testing.assert_allclose(found.low[:, 0], [0.5, 0.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(found.high[:, 0], [0.5, 5.0, 1.5], atol=1e-5)


def test_values_at_an_edge_count_as_both() -> None:
    layer = Quantise(np.array([0.5]), np.array([0.0]), 0, 10)
    found = layer.bounds([Interval(np.array([0.75]), np.array([0.75]))])
    assert found.low[0] == pytest.approx(0.5) and found.high[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "layer", [Curve("tanh"), Curve("sigmoid"), Curve("erf"), Quantise(*STEPS["few"])]
)
@pytest.mark.parametrize("ends", [(-np.inf, np.inf), (np.nan, np.nan), (-np.inf, 0.0)])
def test_no_function_mends_a_value_that_may_be_no_number(layer, ends) -> None:
    low, high = (np.array([end, 0.0]) for end in ends)
    with np.errstate(all="ignore"):
        found = layer.bounds([Interval(low, high)])
    assert not np.isfinite(found.low[0]) and not np.isfinite(found.high[0])
    assert np.isfinite([found.low[1], found.high[1]]).all()


def test_the_parts_of_an_activation_are_abstract() -> None:
    given = Interval(np.zeros(1), np.zeros(1))
    with pytest.raises(NotImplementedError):
        Activation().bounds([given])
    with pytest.raises(NotImplementedError):
        Activation().lines(given)


POOLS = {
    "whole windows": MaxPool((2, 3), (2, 3), (0, 0, 0, 0)),
    "overlapping": MaxPool((3, 2), (2, 1), (0, 0, 0, 0)),
    "padded": MaxPool((3, 3), (2, 2), (1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_choose_a_value_and_say_whether_it_wins(name: str) -> None:
    layer, rng = POOLS[name], np.random.default_rng(0)
    low = rng.normal(size=(2, 3, 6, 6))
    high = low + rng.choice([0.01, 1.0], size=low.shape)
    found = layer.bounds([Interval(low, high)])
    place, beats, most = layer.choices(Interval(low, high))
    assert found.noise is None and np.array_equal(most, found.high)
    assert beats.any() and not beats.all()
    for _ in range(30):
        x = rng.uniform(low, high)
        out = F.max_pool2d(torch.from_numpy(x), layer.kernel, layer.stride, layer.pads[:2]).numpy()
        assert (found.low <= out).all() and (out <= found.high).all()
        chosen = np.take_along_axis(layer._windows(x), place[..., None], axis=-1)[..., 0]
        assert (chosen <= out).all() and np.array_equal(chosen[beats], out[beats])
        rows = rng.normal(size=(2, *out.shape[1:]))
        back, origin = layer.back(rows, place, FLAT, (3, 6, 6))
        back = whole(back, origin, (3, 6, 6))
        np.testing.assert_allclose(
            (back * x).reshape(2, -1).sum(axis=1), (rows * chosen).reshape(2, -1).sum(axis=1)
        )
