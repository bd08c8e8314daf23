"""Layers against torch, and against themselves: the way back is the adjoint of the way there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from corobench.benchmark.certify.checker import layers
from corobench.benchmark.certify.checker.averages import AveragePool, Mean
from corobench.benchmark.certify.checker.exact import Concat, Pad, Pick, Reshape
from corobench.benchmark.certify.checker.intervals import FLAT, Interval, crop, cut, whole
from corobench.benchmark.certify.checker.layers import Add, Affine, Conv, Linear, Scale


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def conv(out: int, into: int, kernel: tuple[int, int], groups: int = 1, **settings) -> Conv:
    weight = drawn(out, into // groups, *kernel, seed=1)
    return Conv(weight, drawn(out, seed=2), groups=groups, **settings)


MAP = (4, 7, 6)
CONVOLUTIONS = {
    "plain": conv(3, 4, (3, 3)),
    "padded": conv(3, 4, (3, 3), pads=(1, 1, 1, 1)),
    "strided": conv(3, 4, (3, 2), stride=(2, 3), pads=(1, 0, 1, 0)),
    "strided beyond its end": conv(2, 4, (2, 2), stride=(3, 4)),
    "dilated": conv(3, 4, (3, 2), dilation=(2, 3), pads=(2, 1, 2, 1)),
    "uneven pads": conv(3, 4, (4, 3), pads=(0, 2, 3, 1), stride=(2, 1)),
    "groups": conv(6, 4, (3, 3), groups=2, pads=(1, 1, 1, 1), stride=(2, 2)),
    "depthwise": conv(4, 4, (3, 3), groups=4, pads=(2, 2, 2, 2), dilation=(2, 2)),
    "one place": conv(5, 4, (1, 1)),
}
POOLS = {
    "whole windows": AveragePool((2, 3), (2, 3), (0, 0, 0, 0), True, MAP),
    "overlapping": AveragePool((3, 2), (1, 2), (0, 0, 0, 0), True, MAP),
    "padded": AveragePool((3, 3), (2, 2), (1, 1, 1, 1), True, MAP),
    "padding not counted": AveragePool((3, 3), (2, 1), (1, 1, 1, 1), False, MAP),
}
SCALES = {
    "one number": Scale(np.full((), -1.5), np.full((), 0.5)),
    "per channel": Scale(drawn(4, 1, 1), drawn(4, 1, 1, seed=1)),
    "per value": Scale(drawn(*MAP), drawn(*MAP, seed=1)),
    "per row": Scale(drawn(7, 1), drawn(1, 6, seed=1)),
}
AFFINE: dict[str, tuple[Affine, tuple[int, ...]]] = {
    "linear": (Linear(drawn(5, 8), drawn(5, seed=1)), (8,)),
    **{f"conv, {name}": (layer, MAP) for name, layer in CONVOLUTIONS.items()},
    **{f"pool, {name}": (layer, MAP) for name, layer in POOLS.items()},
    **{f"scale, {name}": (layer, MAP) for name, layer in SCALES.items()},
    "mean over the map": (Mean((2, 3), False, MAP), MAP),
    "mean, axes kept": (Mean((2, 3), True, MAP), MAP),
    "mean over channels": (Mean((1,), False, MAP), MAP),
    "mean of a row": (Mean((1,), False, (8,)), (8,)),
}
WINDOWED = [name for name in AFFINE if name.startswith(("conv", "pool", "scale"))]


def values(layer: Affine, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """W x + b, read off the interval of one image."""
    found = layer.bounds([Interval(x, x)])
    return (found.low + found.high) / 2


@pytest.mark.parametrize("name", AFFINE)
def test_the_way_back_is_the_adjoint(name: str) -> None:
    layer, shape = AFFINE[name]
    x, y = drawn(1, *shape, seed=3), np.zeros((1, *shape))
    out = layer.linear(x)
    np.testing.assert_allclose(values(layer, shape, x), out + layer.bias, atol=1e-4)
    np.testing.assert_allclose(layer.linear(y), 0.0)
    rows = drawn(6, *out.shape[1:], seed=4)
    back, origin = layer.back(rows, FLAT, shape)
    there = (rows * out).reshape(6, -1).sum(axis=1)
    here = (whole(back, origin, shape) * x).reshape(6, -1).sum(axis=1)
    np.testing.assert_allclose(here, there, rtol=1e-10)


@pytest.mark.parametrize("lines", [1, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_few_lines_of_a_map_at_a_time_go_the_same_way_back(
    name: str, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, (shape, num) = CONVOLUTIONS[name], (MAP, 5)
    out = layer.linear(np.zeros((1, *shape))).shape[1:]
    rows = drawn(num, *out, seed=5)
    expected, at = layer.back(rows, FLAT, shape)
    products = layer.weight[0].nbytes * out[2] * num  # of one line of one group
    monkeypatch.setattr(layers, "_PRODUCT_BYTES", lines * products)
    found, origin = layer.back(rows, FLAT, shape)
    assert out[1] >= lines and origin == at
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_of_rows_goes_the_same_way_back(name: str) -> None:
    """Every place, and larger windows at the borders."""
    layer, shape = AFFINE[name]
    out = layer.linear(np.zeros((1, *shape))).shape[1:]
    places = [(top, left, 1, 1) for top in range(out[1]) for left in range(out[2])]
    places += [
        (top, left, min(2, out[1] - top), min(3, out[2] - left))
        for top in (0, out[1] - 1)
        for left in (0, out[2] - 1)
    ]
    for top, left, height, width in places:
        window = drawn(2, out[0], height, width, seed=top + 7 * left)
        full = whole(window, (top, left), out)
        assert full.shape[1:] == out and full.sum() == pytest.approx(window.sum())
        expected, at = layer.back(full, FLAT, shape)
        found, origin = layer.back(window, (top, left), shape)
        assert (origin[0] >= 0 and origin[0] + found.shape[-2] <= shape[1]) or not found.size
        np.testing.assert_allclose(
            whole(found, origin, shape) if found.size else 0.0,
            whole(expected, at, shape),
            atol=1e-12,
        )


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_torchs(name: str) -> None:
    layer, x = CONVOLUTIONS[name], torch.from_numpy(drawn(2, *MAP, seed=3))
    top, left, bottom, right = layer.pads
    expected = F.conv2d(
        F.pad(x, (left, right, top, bottom)),
        torch.from_numpy(layer.weight),
        torch.from_numpy(layer.bias[:, 0, 0]),
        layer.stride,
        0,
        layer.dilation,
        layer.groups,
    )
    np.testing.assert_allclose(layer.linear(x.numpy()) + layer.bias, expected, atol=1e-12)


@pytest.mark.parametrize("name", POOLS)
def test_average_pools_are_torchs(name: str) -> None:
    layer, x = POOLS[name], torch.from_numpy(drawn(2, *MAP, seed=3))
    expected = F.avg_pool2d(
        x, layer.kernel, layer.stride, layer.pads[:2], count_include_pad="not" not in name
    )
    np.testing.assert_allclose(layer.linear(x.numpy()), expected, atol=1e-12)


@pytest.mark.parametrize("name", AFFINE)
def test_intervals_hold_and_are_attained(name: str) -> None:
    """Over a box an affine function has its extremes at corners, which it attains."""
    layer, shape = AFFINE[name]
    mid, rad = drawn(1, *shape, seed=5), np.abs(drawn(1, *shape, seed=6))
    found = layer.bounds([Interval(mid - rad, mid + rad)])
    rng = np.random.default_rng(7)
    for _ in range(20):
        share = rng.uniform(-1, 1, mid.shape)
        x = mid + rad * (np.sign(share) if rng.random() < 0.5 else share)
        out = layer.linear(x) + layer.bias
        assert (found.low <= out).all() and (out <= found.high).all()
    output = tuple(found.low.shape[1:])
    which = np.arange(int(np.prod(output)))
    rows = np.zeros((len(which), *output))
    rows.reshape(len(which), -1)[which, which] = 1.0
    back, origin = layer.back(rows, FLAT, shape)
    back = whole(back, origin, shape).reshape(len(which), -1)
    exact = back @ mid.reshape(-1) - np.abs(back) @ rad.reshape(-1)
    bias = np.broadcast_to(layer.bias, output).reshape(-1)
    np.testing.assert_allclose(found.low.reshape(-1), exact + bias, atol=5e-4)
    assert (found.low.reshape(-1) <= exact + bias).all()


def test_a_sum_of_two_adds_their_intervals() -> None:
    low, high = drawn(2, *MAP), drawn(2, *MAP, seed=1)
    first, second = Interval(low, low + 1), Interval(high, high + 2)
    found = Add().bounds([first, second])
    np.testing.assert_allclose(found.low, low + high, atol=1e-5)
    np.testing.assert_allclose(found.high, low + high + 3, atol=1e-5)
    assert (found.low < low + high).all()


def _exact(layer: Reshape | Pick | Pad, shape: tuple[int, ...], forward) -> None:
    """Such a layer moves values without a rounding, and its way back is the adjoint."""
    x = drawn(2, *shape)
    found = layer.bounds([Interval(x, x + 1)])
    expected = forward(torch.from_numpy(x)).numpy()
    constant = forward(torch.zeros(1, *shape, dtype=torch.float64)).numpy()
    assert found.noise is None and np.array_equal(found.low, expected)
    rows = drawn(3, *expected.shape[1:], seed=1)
    back, origin = layer.back(rows, FLAT, shape)
    back = whole(back, origin, shape)
    for image in range(2):
        there = (rows * (expected - constant)[image]).reshape(3, -1).sum(axis=1)
        here = (back * x[image]).reshape(3, -1).sum(axis=1)
        np.testing.assert_allclose(here, there, atol=1e-12)


def test_reshapes_move_values() -> None:
    _exact(Reshape((8, 21)), MAP, lambda x: x.reshape(-1, 8, 21))
    _exact(Reshape((168,)), MAP, lambda x: x.flatten(1))


def test_slices_move_values() -> None:
    numbers = np.arange(168).reshape(MAP)
    _exact(Pick(numbers[1:3, ::2, 5:1:-1]), MAP, lambda x: x[:, 1:3, ::2].flip(3)[..., :4])
    _exact(Pick(numbers.transpose(2, 0, 1)), MAP, lambda x: x.permute(0, 3, 1, 2))


@pytest.mark.parametrize("value", [0.0, -1.25])
def test_borders_are_exact(value: float) -> None:
    layer = Pad((1, 0, 2, 3), value)
    _exact(layer, MAP, lambda x: F.pad(x, (0, 3, 1, 2), value=value))
    constant = layer.constant(MAP)
    assert constant.shape == (4, 10, 9)
    assert (constant[:, 1:8, :6] == 0).all() and (constant[:, 0] == value).all()


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_parts_side_by_side_come_apart_again(axis: int) -> None:
    shapes = [(*MAP[: axis - 1], size, *MAP[axis:]) for size in (2, 3, 1)]
    parts = [drawn(2, *shape, seed=number) for number, shape in enumerate(shapes)]
    layer = Concat(axis, shapes)
    found = layer.bounds([Interval(part, part + 1) for part in parts])
    assert np.array_equal(found.low, np.concatenate(parts, axis=axis))
    for part, given in zip(layer.parts(found.low), parts, strict=True):
        assert np.array_equal(part, given)


def test_windows_are_cut_and_cropped_at_borders() -> None:
    full = drawn(1, *MAP)
    window, origin = crop(full[..., :5, :4], (-2, 3), MAP)
    assert origin == (0, 3) and np.array_equal(window, full[..., 2:5, :3])
    assert np.array_equal(cut(full, (2, 1), (1, 4, 3, 2)), full[..., 2:5, 1:3])
    assert cut(full, (2, 1), (1, 4)) is full
    per_channel = drawn(4, 1, 1)
    assert np.array_equal(cut(per_channel, (2, 1), (1, 4, 3, 2)), per_channel)


def test_a_mean_keeps_axes_or_not() -> None:
    x: Tensor = torch.from_numpy(drawn(2, *MAP))
    for axes, keep in (((2, 3), True), ((1,), False), ((1, 3), False)):
        layer = Mean(axes, keep, MAP)
        np.testing.assert_allclose(layer.linear(x.numpy()), x.mean(axes, keep), atol=1e-12)


@pytest.mark.parametrize("is_conv", [True, False])
def test_a_sum_without_terms_and_bias_is_exactly_zero(is_conv: bool) -> None:
    """The neurons of a pruned filter are not unstable; the smallest weight or bias is rounded."""
    weight, bias = drawn(4, 3, 2, 2), drawn(4, seed=1)
    weight[:3], bias[:3] = 0.0, 0.0
    weight[1, 0, 0, 0], bias[2] = 2.0**-149, 2.0**-149
    layer = Conv(weight, bias) if is_conv else Linear(weight.reshape(4, 12), bias)
    low = drawn(2, 3, 2, 2, seed=3).reshape((2, 3, 2, 2) if is_conv else (2, 12))
    found = layer.bounds([Interval(low, low + 0.5)])
    for side in (found.low, found.high, found.noise):
        assert (side[:, 0] == 0).all()
    assert (found.low[:, 1:3] < 0).all() and (found.high[:, 1:3] > 0).all()
    assert (found.noise[:, 1:] > 0).all()


def test_a_pruned_filter_proves_nothing_where_its_input_may_overflow() -> None:
    """Zero times infinity is no number."""
    layer = Linear(np.zeros((1, 1)), np.zeros(1))
    with np.errstate(invalid="ignore"):
        found = layer.bounds([Interval(np.full((1, 1), -np.inf), np.full((1, 1), np.inf))])
    assert not np.isfinite(found.noise).any() and not (found.low >= 0).any()


def test_a_channel_that_a_batch_norm_scales_by_zero_is_exactly_zero() -> None:
    """Unless something is added to it, or was on the way."""
    layer = Scale(
        np.array([0.0, 0.0, 0.0, 1.0]),
        np.array([0.0, 2.0**-149, 0.0, 0.0]),
        parts=np.array([0.0, 2.0**-149, 1.0, 0.0]),
    )
    found = layer.bounds([Interval(np.full((1, 4), -1.0), np.ones((1, 4)))])
    assert found.low[0, 0] == found.high[0, 0] == found.noise[0, 0] == 0
    assert (found.noise[0, 1:] > 0).all()
