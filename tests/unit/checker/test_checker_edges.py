"""What a layer loses on the way, though none of its values is near the ends of float32.

Each network is right with a margin in real numbers, and wrong at an image of the ball in torch at
batch size 1. A gate on eight pixels less eight others keeps centre and corners of the ball silent.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planted import RADIUS, SHAPE, Gated, broken, claims, difference, linear
from torch import Tensor, nn

from corobench.benchmark.certify.checker.averages import Mean
from corobench.benchmark.certify.checker.boxed import Norm
from corobench.benchmark.certify.checker.intervals import Interval, UncheckableError
from corobench.benchmark.certify.checker.layers import Linear, Scale
from corobench.benchmark.certify.checker.proofs import crown_bounds
from corobench.benchmark.certify.checker.reading import read_network


def batch_norm() -> nn.Module:
    """2**-102 (x + 2**60) / 2**50: the factor underflows, and with it its product with the mean."""
    norm = nn.BatchNorm1d(1)
    with torch.no_grad():
        norm.weight.fill_(2.0**-102)
        norm.running_var.fill_(2.0**100)  # type: ignore[operator]
        norm.running_mean.fill_(-(2.0**60))  # type: ignore[operator]
    first = linear(64, [{0: 1.0}], [0.0])
    return nn.Sequential(first, norm, nn.ReLU(), linear(1, [{0: -(2.0**92)}], [0.0]))


def group_norm(spread: float, weight: float) -> nn.Module:
    """-1 of two values 0 and -spread: deployed as x (r w) - mean (r w), whose factor underflows."""
    norm = nn.GroupNorm(1, 1)
    with torch.no_grad():
        norm.weight.fill_(weight)
    return nn.Sequential(
        linear(64, [{0: 1.0}, {}], [-spread, 0.0]),
        nn.Unflatten(1, (1, 2)),
        norm,
        nn.Flatten(),
        linear(2, [{0: 1 / weight}], [0.0]),
    )


class Chain(nn.Module):
    """64 pixels, of which only those below the radius count, through layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Hardtanh(0.0, RADIUS), *layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def hard_swish() -> nn.Module:
    """z up to 1.45 2**125, of which 6 z is no float32 any more."""
    huge = 2.0**125
    first = linear(64, [difference(4 * huge)], [1.2 * huge])
    return Chain(first, nn.Hardswish(), linear(1, [{0: -(2.0**-126)}, {}], [0.0, -3.0]))


def softplus() -> nn.Module:
    """log(1 + exp(z)) with z above 89, where exp(z) is no float32."""
    first = linear(64, [difference(320.0)], [80.0])
    last = linear(1, [{0: -1.0}, {}], [0.0, -200.0])
    return Chain(first, nn.Softplus(threshold=1000.0), last)


NETWORKS = {
    "batch-norm": lambda: Gated(batch_norm()),
    "group-norm": lambda: Gated(group_norm(2.0**51, 2.0**-101)),
    "hard-swish": hard_swish,
    "softplus": softplus,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_lost_inside_a_layer_has_no_certificate(name: str) -> None:
    model = NETWORKS[name]().eval()
    assert broken(model), "the network shows nothing"
    assert claims(model) <= 0


def test_a_group_norm_whose_factor_is_flushed_has_no_certificate() -> None:
    model = Gated(group_norm(2.0**28, 2.0**-100)).eval()
    assert broken(model, flush=True), "the network shows nothing"
    assert claims(model) <= 0


def test_ordinary_numbers_in_the_same_layers_cost_no_certificate() -> None:
    assert claims(Gated(group_norm(2.0**4, 2.0**-8)).eval()) > 0
    plain = Chain(linear(64, [difference(4.0)], [1.0]), nn.Softplus(), linear(1, [{}, {}], [1, 0]))
    assert claims(plain.eval()) > 0


@pytest.mark.parametrize("num", [2, 2**16])
def test_a_weight_of_a_norm_may_be_flushed(num: int) -> None:
    """One value stands out of n by many deviations, times a weight below 2**-126."""
    weight = 0.99 * 2.0**-126
    norm = Norm((1,), (num,), np.full(num, weight), np.zeros(num), 2.0**-17)
    x = np.zeros((1, num))
    x[0, 0] = 0.5
    found = norm.bounds([Interval(x, x)])
    assert found.low[0, 0] <= 0.0 <= found.high[0, 0]


def test_a_norm_whose_factor_may_overflow_is_not_known() -> None:
    """r is up to 2**29, w 2**105: x (r w) is infinite, (x - mean) r w is not."""
    norm = Norm((1,), (2,), np.full(2, 2.0**105), np.zeros(2), 2.0**-60)
    x = np.array([[2.0**-40, 0.0]])
    assert not norm.bounds([Interval(x, x)]).is_finite.any()


@pytest.mark.parametrize("kind", [nn.InstanceNorm1d, nn.InstanceNorm2d])
def test_an_instance_norm_that_takes_the_batch_for_channels_is_refused(kind) -> None:
    shape = (4,) if kind is nn.InstanceNorm1d else (4, 4)
    first = nn.Sequential(nn.Flatten(), nn.Linear(64, int(np.prod(shape))))
    model = nn.Sequential(first, nn.Unflatten(1, shape), kind(4), nn.Flatten()).eval()
    with pytest.raises(UncheckableError, match="instance norm"):
        read_network(model, SHAPE)


# ---------------------------------------------------------------------- factors, and sums of them


def test_a_factor_folded_into_weights_is_lost_on_what_a_summand_cancels() -> None:
    """x 2**-100 - 1 with x = 2**100 is 0; folded, the weight 2**-130 is flushed and -1 is left."""
    x = np.full((1, 1), 2.0**100)
    scaled = Scale(np.float64(2.0**-100), np.zeros(())).bounds([Interval(x, x)])
    moved = Scale(np.ones(()), np.float64(-1.0)).bounds([scaled])
    found = Linear(np.full((1, 1), 2.0**-30), np.zeros(1)).bounds([moved])
    assert found.low[0, 0] <= -(2.0**-30)


def test_a_sum_without_its_factor_may_overflow_on_what_a_summand_cancels() -> None:
    """x 2**30 = 2**130 is infinite in a sum whose factor 2**-100 comes behind it."""
    x = np.full((1, 1), 2.0**100)
    scaled = Scale(np.float64(2.0**-100), np.zeros(())).bounds([Interval(x, x)])
    moved = Scale(np.ones(()), np.float64(-1.0)).bounds([scaled])
    found = Linear(np.full((1, 1), 2.0**30), np.zeros(1)).bounds([moved])
    assert not found.is_finite.any()


def test_factors_before_and_behind_a_sum_may_meet_in_its_weights() -> None:
    """2**-60 before, weights of 2**-40, 2**-40 behind: folded they are 2**-140, flushed to zero."""
    x = np.full((1, 1), 2.0**60)
    before = Scale(np.float64(2.0**-60), np.zeros(())).bounds([Interval(x, x)])
    summed = Linear(np.full((1, 1), 2.0**-40), np.zeros(1)).bounds([before])
    found = Scale(np.float64(2.0**-40), np.zeros(())).bounds([summed])
    assert found.low[0, 0] <= 0.0


def chained(x: float, *layers: Scale | Linear) -> Interval:
    """The interval of one number after layers."""
    found = Interval(np.full((1, 1), x), np.full((1, 1), x))
    for layer in layers:
        found = layer.bounds([found])
    return found


def times(power: int) -> Scale:
    return Scale(np.float64(2.0**power), np.zeros(()))


def weight(power: int) -> Linear:
    return Linear(np.full((1, 1), 2.0**power), np.zeros(1))


def test_some_factors_may_meet_while_others_stay_where_they_are() -> None:
    """2**100 keeps all of the products large, but 2**-80 times 2**-80 is flushed to zero."""
    assert chained(1.0, times(100), times(-80), times(-80)).low[0, 0] <= 0.0
    assert chained(1.0, times(-60), times(80), weight(-90)).low[0, 0] <= 0.0


def test_a_factor_before_a_sum_multiplies_what_was_flushed_behind_it() -> None:
    """2**-103 2**22 2**-107 is flushed; 2**90, which was before the sum, comes behind that."""
    found = chained(2.0**-103, times(90), weight(22), times(-107))
    assert found.low[0, 0] <= 0.0 <= found.high[0, 0]


def test_a_factor_before_a_mean_may_meet_its_divisor() -> None:
    """2**-125 of x = 2**100, over 64 values: 2**-131 as one factor is flushed to zero."""
    x = np.full((1, 64), 2.0**100)
    before = Scale(np.float64(2.0**-125), np.zeros(())).bounds([Interval(x, x)])
    assert Mean((1,), False, (64,)).bounds([before]).low.min() <= 0.0


# ---------------------------------------------------------------------- places beyond the map


def test_neurons_that_see_nothing_but_padding_are_bounded() -> None:
    """Padding wider than the kernel: the window of a row lies below and right of the map."""
    convolution = nn.Conv2d(2, 2, 3, padding=5)
    with torch.no_grad():
        convolution.bias.zero_()  # type: ignore[union-attr]
    layers = (nn.Conv2d(1, 2, 3), nn.ReLU(), convolution, nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(2 * 14 * 14, 3)).eval()
    network = read_network(model, SHAPE)
    low, high = np.full((1, *SHAPE), 0.4), np.full((1, *SHAPE), 0.6)
    corner = crown_bounds(network, low, high).values[3]
    assert corner.low[0, 0, -1, -1] <= 0.0 <= corner.high[0, 0, -1, -1] < 2.0**-100
