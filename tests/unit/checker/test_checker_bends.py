"""Pieces, curves, normalisations and endings against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from corobench.benchmark.certify.checker import bends
from corobench.benchmark.certify.checker.activations import Lines
from corobench.benchmark.certify.checker.boxed import Norm, Product, Softmax
from corobench.benchmark.certify.checker.curves import (
    CURVES,
    Curvature,
    Smooth,
    celu,
    elu,
    softplus,
)
from corobench.benchmark.certify.checker.endings import LogSoftmax
from corobench.benchmark.certify.checker.intervals import FLAT, Interval, UncheckableError, whole

END = st.floats(-30, 30) | st.sampled_from([0.0, 6.0, -3.0, 1e-12, -1.5, 1e20, -1e20])
NEAR = st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, 0.5, 3.0, 9.0, 100.0])
SLOPE = float(np.float32(0.1))
BENDS = {
    "clip": (bends.clip(np.asarray(-0.5), np.asarray(6.0)), lambda z: z.clamp(-0.5, 6.0)),
    "clip below": (bends.clip(np.asarray(0.25), None), lambda z: z.clamp(min=0.25)),
    "clip above": (bends.clip(None, np.asarray(0.25)), lambda z: z.clamp(max=0.25)),
    "leaky": (bends.leaky(np.asarray(SLOPE)), lambda z: F.leaky_relu(z, SLOPE)),
    "absolute": (bends.absolute(), torch.abs),
    "hard sigmoid": (bends.hard_sigmoid(1.0 / 6.0, 0.5), F.hardsigmoid),
}
OTHER_DEPLOYMENTS = {
    "leaky": [
        lambda z: np.float32(0.1) * z + np.float32(0.9) * np.maximum(z, np.float32(0)),
        lambda z: np.maximum(z, 0) - np.float32(0.1) * np.maximum(-z, np.float32(0)),
    ],
    "hard sigmoid": [
        lambda z: np.clip(z * np.float32(1 / 6) + np.float32(0.5), 0, 1),
        lambda z: np.clip(z + np.float32(3), 0, 6) * np.float32(1 / 6),
    ],
}
TORCHS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "hardswish": F.hardswish,
    "mish": F.mish,
    "selu": F.selu,
    "silu": F.silu,
    "softsign": F.softsign,
}
SMOOTH: dict[str, tuple[Curvature, object]] = {
    **{name: (CURVES[name], TORCHS[name]) for name in CURVES},
    "elu": (elu(0.5), lambda z: F.elu(z, 0.5)),
    "steep elu": (elu(3.0), lambda z: F.elu(z, 3.0)),
    "falling elu": (elu(-0.5), lambda z: F.elu(z, -0.5)),
    "celu": (celu(0.25), lambda z: F.celu(z, 0.25)),
    "softplus": (softplus(3.0), lambda z: F.softplus(z, 3.0)),
}


def sampled(low: float, high: float) -> np.ndarray:
    """float32 numbers of an interval, its ends and 0."""
    z = np.float32(np.concatenate([np.linspace(low, high, 157), [0.0]]))
    return z[(z >= low) & (z <= high)]


def box(low: float, width: float) -> Interval:
    low, high = float(np.float32(low)), float(np.float32(low + width))
    return Interval(np.array([low]), np.array([high]))


def holds(lines: Lines, z: np.ndarray, value: np.ndarray, room: float) -> bool:
    low = lines.low_slope * z + lines.low_offset - room
    high = lines.high_slope * z + lines.high_offset + room
    return bool((low <= value).all() and (value <= high).all())


@pytest.mark.parametrize("name", BENDS)
@settings(max_examples=40, deadline=None)
@given(low=END, width=NEAR)
def test_pieces_hold_every_deployment(name: str, low: float, width: float) -> None:
    bend, function = BENDS[name]
    given_box = box(low, width)
    z = sampled(float(given_box.low[0]), float(given_box.high[0]))
    found = bend.bounds([given_box])
    exact = function(torch.from_numpy(z.astype(np.float64))).numpy()
    deployed = [function(torch.from_numpy(z)).numpy()]
    deployed += [other(z) for other in OTHER_DEPLOYMENTS.get(name, [])]
    for value in (exact, *deployed):
        assert (found.low <= value).all() and (value <= found.high).all()
        assert (np.abs(value - exact) <= found.noise.max() + 1e-300).all()
    # The sum of ReLUs is the function, whatever is rounded in float64.
    parts = [z, *(np.maximum(z.astype(np.float64) - kink, 0.0) for kink in bend.kinks)]
    total = bend.bias + sum(
        one * factor for one, factor in zip(parts, bend.factors, strict=True) if factor is not None
    )
    np.testing.assert_allclose(
        total, exact, rtol=1e-12, atol=1e-12 * max(1.0, np.abs(z).max(initial=0.0))
    )


def test_a_clip_is_exact_and_as_narrow_as_its_range() -> None:
    found = BENDS["clip"][0].bounds([Interval(np.array([-1e9, 1.0]), np.array([1e9, 2.0]))])
    np.testing.assert_allclose(found.low, [-0.5, 1.0], rtol=1e-12)
    np.testing.assert_allclose(found.high, [6.0, 2.0], rtol=1e-12)
    assert not found.noise.any()


@pytest.mark.parametrize("name", [*BENDS, "largest"])
def test_no_piece_mends_a_value_that_may_be_no_number(name: str) -> None:
    given_box = Interval(np.array([-np.inf, 0.0]), np.array([np.inf, 1.0]))
    layer = bends.Extreme(True) if name == "largest" else BENDS[name][0]
    with np.errstate(all="ignore"):
        found = layer.bounds([given_box, given_box])
    assert not np.isfinite(found.low[0]) and not np.isfinite(found.high[0])
    assert np.isfinite([found.low[1], found.high[1]]).all()


def test_places_of_windows_go_back_where_they_came_from() -> None:
    layer, rng = bends.Every((1, 0), (2, 3), (3, 2)), np.random.default_rng(0)
    x = rng.normal(size=(1, 4, 6, 5))
    out = layer.taken(x)
    np.testing.assert_array_equal(out, x[:, :, 1::2, ::3][..., :3, :2])
    for top, left, height, width in ((0, 0, 3, 2), (1, 1, 1, 1), (2, 0, 1, 2)):
        rows = rng.normal(size=(2, 4, height, width))
        back, origin = layer.back(rows, (top, left), (4, 6, 5))
        here = (whole(back, origin, (4, 6, 5)) * x).sum(axis=(1, 2, 3))
        there = (rows * out[..., top : top + height, left : left + width]).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(here, there)


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=40, deadline=None)
@given(low=st.floats(-30, 30), width=NEAR)
def test_curves_and_their_lines(name: str, low: float, width: float) -> None:
    known, function = SMOOTH[name]
    given_box = box(low, width)
    z = sampled(float(given_box.low[0]), float(given_box.high[0]))
    layer = Smooth(known)
    found, lines = layer.bounds([given_box]), layer.lines(given_box)
    exact = function(torch.from_numpy(z.astype(np.float64))).numpy()
    deployed = function(torch.from_numpy(z)).double().numpy()
    for value in (exact, deployed):
        assert (found.low <= value).all() and (value <= found.high).all()
    assert (np.abs(deployed - exact) <= found.noise.max()).all()
    near = z.astype(np.float64)
    assert holds(lines, near, exact, 1e-9)  # torch leaves a softplus out from 20 on
    gap = (lines.high_slope - lines.low_slope) * near + lines.high_offset - lines.low_offset
    assert gap.min(initial=1.0) >= 0


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_said_of_a_curve_is_true(name: str) -> None:
    known, _ = SMOOTH[name]
    z = np.linspace(-15, 15, 60001)
    width, value = z[1] - z[0], known.value(z)
    slopes = np.diff(value) / width
    assert np.abs(np.diff(slopes)).max() <= known.bend * width * 1.001 + known.jump + 1e-9
    falls = z[:-1][slopes < -1e-12]
    if known.lowest is None:
        assert not falls.size
    else:
        assert (
            falls.max() <= known.lowest and (slopes[z[:-1] < known.lowest - width] <= 1e-12).all()
        )
        assert known.value(np.asarray(known.lowest)) <= value.min() + 1e-15


def normed(x: np.ndarray, eps: float, is_one_pass: bool) -> np.ndarray:
    """float32 (N, n) normalised over the last axis, its variance taken in one pass or in two."""
    one = np.float32(1)
    num = np.float32(x.shape[-1])
    mean = np.add.accumulate(x, axis=-1)[:, -1:] / num
    if is_one_pass:
        variance = np.add.accumulate(x * x, axis=-1)[:, -1:] / num - mean * mean
    else:
        variance = np.add.accumulate((x - mean) ** 2, axis=-1)[:, -1:] / num
    inverse = one / np.sqrt(variance + np.float32(eps))
    return x * inverse - mean * inverse if is_one_pass else (x - mean) * inverse


@pytest.mark.parametrize("width", [0.0, 1e-3, 0.1, 2.0])
@pytest.mark.parametrize("offset", [0.0, 3.0, 300.0])
@pytest.mark.parametrize("num", [2, 7, 64])
def test_a_normalisation_holds_one_pass_and_two(num: int, offset: float, width: float) -> None:
    rng = np.random.default_rng(0)
    middle = rng.normal(size=(1, num)) + offset
    low, high = np.float32(middle - width), np.float32(middle + width)
    layer = Norm((1,), (num,), np.ones(()), np.zeros(()), 1e-5)
    with np.errstate(all="ignore"):
        found = layer.bounds([Interval(low.astype(np.float64), high.astype(np.float64))])
    if offset == 0.0 and num > 2 and width < 1:
        assert np.isfinite(found.low).all()
        assert (found.high <= np.sqrt(num - 1) * 1.01).all() or width == 0.0
    share = rng.random((300, num))
    share[::2] = share[::2].round()
    x = np.clip(np.float32(low + (high - low) * share), low, high)
    exact = F.layer_norm(torch.from_numpy(x).double(), [num]).numpy()
    torchs = F.layer_norm(torch.from_numpy(x), [num]).numpy()
    with np.errstate(all="ignore"):
        seen = [exact, torchs, normed(x, 1e-5, True), normed(x, 1e-5, False)]
    for value in seen:
        is_bounded = np.isfinite(found.low) & np.isfinite(found.high)
        assert (is_bounded | ~np.isfinite(found.low) & ~np.isfinite(found.high)).all()
        assert (((found.low <= value) & (value <= found.high)) | ~is_bounded).all()


def test_a_variance_that_rounding_may_lose_proves_nothing() -> None:
    """Values near 3000 that differ by 0.01: in one pass their variance is anything."""
    x = np.float32(3000.0 + np.linspace(0, 1e-2, 8))[None]
    layer = Norm((1,), (8,), np.ones(()), np.zeros(()), 1e-5)
    with np.errstate(all="ignore"):
        found = layer.bounds([Interval(x.astype(np.float64), x.astype(np.float64))])
        deployed = normed(x, 1e-5, True)
    assert not np.isfinite(deployed).all() or np.abs(deployed - normed(x, 1e-5, False)).max() > 0.1
    assert not np.isfinite(found.low).any()


def test_a_normalisation_without_room_for_its_rounding_is_refused() -> None:
    with pytest.raises(UncheckableError, match="eps is 0"):
        Norm((1,), (8,), np.ones(()), np.zeros(()), 0.0)
    with pytest.raises(UncheckableError, match="more than"):
        Norm((1,), (2**18,), np.ones(()), np.zeros(()), 1e-5)


@settings(max_examples=100, deadline=None)
@given(a=st.floats(-9, 9), b=st.floats(-9, 9), width=NEAR)
def test_products_hold(a: float, b: float, width: float) -> None:
    first, second = box(a, width), box(b, 0.5 * width)
    x, y = (sampled(float(one.low[0]), float(one.high[0])) for one in (first, second))
    found, square = Product().bounds([first, second]), Product(True).bounds([first, first])
    value = x[:, None] * y[None]
    assert (found.low <= value).all() and (value <= found.high).all()
    assert (square.low <= x * x).all() and (x * x <= square.high).all()
    assert (square.low >= -square.noise).all()


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("layer", [Softmax(), LogSoftmax()], ids=lambda one: type(one).__name__)
def test_endings_hold(layer, scale: float) -> None:
    rng = np.random.default_rng(0)
    middle, width = scale * rng.normal(size=(1, 6)), 0.1 * scale
    low, high = np.float32(middle - width), np.float32(middle + width)
    found = layer.bounds([Interval(low.astype(np.float64), high.astype(np.float64))])
    share = rng.random((300, 6))
    share[::2] = share[::2].round()
    z = torch.from_numpy(np.clip(np.float32(low + (high - low) * share), low, high))
    function = torch.softmax if isinstance(layer, Softmax) else torch.log_softmax
    for value in (function(z, 1), function(z.double(), 1)):
        value = value.double().numpy()
        assert ((found.low <= value) & (value <= found.high)).all()


def test_a_log_softmax_passes_differences_only_and_charges_ties() -> None:
    layer = LogSoftmax()
    rows = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    passed, _ = layer.back(rows, FLAT, (3,))
    assert (passed[0] == rows[0]).all() and np.isnan(passed[1]).all()
    # Two logits one float32 apart are equal behind it: their distance is within the noise.
    z = torch.tensor([[1.0, 1.0 + 2.0**-23, -30.0]])
    found = layer.bounds([Interval(*(z.double().numpy() for _ in range(2)))])
    out = torch.log_softmax(z, 1)[0]
    assert float(abs(out[0] - out[1])) <= 2.0**-23
    assert 2 * found.noise.min() > 2.0**-23
