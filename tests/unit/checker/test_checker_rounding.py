"""Bounds hold for the deployed network: float32, any order of summation, folded or not, flushed."""

from __future__ import annotations

import copy
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from certify_nets import boxes, cnn, seeded
from float32_nets import deployed, exact_linear, float64, flushing, summed
from torch import Tensor, nn

from corobench.benchmark.certify.checker.averages import AveragePool, Mean
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.layers import Conv, Linear
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.proofs import METHODS, margins
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.rounding import MAX_TERMS, centre, gamma, noise_of
from corobench.benchmark.network.prepare import prepare

SHAPE = (1, 8, 8)
FEW = (1, 2, 2)


def normalised() -> nn.Sequential:
    """conv, batch-norm, ReLU, conv, batch-norm, ReLU, flatten, FC."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


def interval(model: nn.Module, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The checker's bounds of the logits over boxes of width 0."""
    (points,) = float64(x)
    found = read_network(model, x.shape[1:]).bounds(points, points).values[-1]
    return found.low, found.high


def layers(*weights: list[list[float]], bias: list[float] | None = None) -> nn.Sequential:
    """Linear layers with these weights on FEW; the bias is the last one's."""
    found: list[nn.Module] = [nn.Flatten()]
    for weight in weights:
        layer = nn.Linear(len(weight[0]), len(weight), bias=False)
        layer.weight.data = torch.tensor(weight)
        found.append(layer)
    if bias is not None:
        found[-1].bias = nn.Parameter(torch.tensor(bias))
    return nn.Sequential(*found).eval()


def refused(model: nn.Module, shape=FEW, fill: float = 1.0) -> bool:
    """Whether no method gives a finite bound for one image, width 0."""
    (x,) = float64(torch.full((1, *shape), fill))
    network = read_network(model, shape)
    return all(
        bool((margins(network, x, x, np.zeros(1, np.int64), method) == -np.inf).all())
        for method in METHODS
    )


# --- deployments ---


@pytest.mark.parametrize(
    "layer", [nn.Identity(), nn.ReLU(), nn.MaxPool2d((2, 1))], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("method", METHODS)
def test_a_pixel_that_may_be_flushed_proves_nothing(layer: nn.Module, method: str) -> None:
    """Layers that only move or compare have no rounding of their own, but flush all the same."""
    model = nn.Sequential(layer, nn.Flatten()).eval()
    (x,) = float64(torch.tensor([[[[1e-40, 0.0], [0.0, 0.0]]]]))
    network = read_network(model, FEW)
    labels = np.zeros(1, np.int64)
    assert margins(network, x, x, labels, method).min() <= 0
    assert margins(network, x * 1e40, x * 1e40, labels, method)[0, 0] > 0.9


@pytest.mark.parametrize("build", [cnn, normalised], ids=["cnn", "batch-norm"])
def test_every_deployment_lies_in_the_interval_of_width_0(build) -> None:
    model = seeded(build, 3)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    low, high = interval(model, x)
    assert (high - low).max() < 1e-3  # says something
    found = [torch.cat([model(image) for image in x.split(1)]), model(x)]
    found.append(prepare(model, SHAPE)(x))  # batch-norms folded
    with flushing():
        found.append(model(x))
    seen = [logits.detach().numpy() for logits in found]
    folded = prepare(model, SHAPE)
    folded = nn.Sequential(*(part for part in folded if not isinstance(part, nn.Identity)))
    rng = np.random.default_rng(0)
    for net in (model, folded):
        seen += [np.stack([deployed(net, image, rng) for image in x]) for _ in range(6)]
    for logits in seen:
        assert logits.dtype == np.float32
        assert ((low <= logits) & (logits <= high)).all()
    assert max(np.abs(logits - seen[0]).max() for logits in seen) > 0  # they do differ


def test_a_sum_that_cancels_is_one_value_or_another() -> None:
    """1e8 + 1 - 1e8 is 0 or 1 in float32, as its terms come."""
    model = layers([[1e8, 1.0, -1e8, 0.0], [0.0, 0.0, 0.0, 0.0]])
    terms = np.float32([1e8, 1.0, -1e8])
    sums = {float(summed(terms, np.array(order))) for order in itertools.permutations(range(3))}
    assert sums == {0.0, 1.0}
    low, high = interval(model, torch.ones(1, *FEW))
    assert low[0, 0] <= 0.0 and high[0, 0] >= 1.0
    assert high[0, 0] - low[0, 0] < 2000  # gamma(14) * 2e8 = 170, on both sides, with room


def factors(weight: np.ndarray, num: int) -> tuple[list[float], np.ndarray]:
    """Factors that, folded one by one, round two weights as far apart as they can, and these."""
    found, rng = [], np.random.default_rng(0)
    exact, folded = weight.astype(np.float64), weight.astype(np.float32)
    for _ in range(num):
        drawn = rng.uniform(0.9, 1.1, 400).astype(np.float32)
        products = np.float32(folded * drawn[:, None])
        drift = products / (exact * drawn.astype(np.float64)[:, None])
        best = (drift[:, 1] - drift[:, 0]).argmax()
        found.append(float(drawn[best]))
        folded, exact = products[best], exact * float(drawn[best])
    return found, folded


def test_many_factors_behind_a_sum_that_cancels_may_all_be_folded() -> None:
    """Each rounds the weights once more, and their difference is as small as before."""
    weight = np.float32([1.0, 0.7 * (1.0 - 24 * 2.0**-24)])
    image = np.float32([0.7, 1.0, 0.0, 0.0])
    assert float(image[0]) > float(weight[1])  # right where nothing is folded
    numbers, folded = factors(weight, 60)
    norms = [nn.BatchNorm1d(2, eps=0.0) for _ in numbers]
    for norm, number in zip(norms, numbers, strict=True):
        norm.weight.data[:] = number
    plain = layers([[float(weight[0]), -float(weight[1]), 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    model = nn.Sequential(*plain, *norms).eval()
    logit = np.float32(folded[0] * image[0]) - np.float32(folded[1] * image[1])
    assert logit < 0
    low, high = interval(model, torch.from_numpy(image).view(1, *FEW))
    assert low[0, 0] <= logit <= high[0, 0]


def test_two_sums_that_are_added_may_become_one_sum() -> None:
    """Small terms of one behind a large term of the other are lost, which then cancels."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Linear(1000, 2, bias=False)
            self.small = nn.Linear(1000, 2, bias=False)
            self.large.weight.data.zero_()
            self.large.weight.data[0, :2] = torch.tensor([1.0, -1.0])
            self.small.weight.data.zero_()
            self.small.weight.data[0] = 0.9 * 2.0**-24

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return self.large(flat) + self.small(flat)

    model = Two().eval()
    terms = np.float32([1.0, *[0.9 * 2.0**-24] * 1000, -1.0])
    assert summed(terms, np.arange(1002)) == 0.0
    low, _high = interval(model, torch.ones(1, 1, 10, 100))
    assert low[0, 0] <= 0.0


class Doubled(nn.Module):
    """A difference that is added to itself again and again, and scaled back."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num = num
        self.first, self.last = nn.Linear(4, 2), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        value = torch.relu(self.first(x.flatten(1)))
        for _ in range(self.num):
            value = value + value
        return self.last(value * 2.0**-self.num)


@pytest.mark.parametrize("num", [10, 20, 22, 23, 24, 25, 30])
def test_sums_of_sums_of_more_terms_than_float32_can_tell_prove_nothing(num: int) -> None:
    model = seeded(lambda: Doubled(num), 1)
    x = torch.rand(1, *FEW)
    low, high = interval(model, x)
    found = network_margins(model, x)
    if num <= 20:
        logits = model(x).detach().numpy()
        assert ((low <= logits) & (logits <= high)).all() and np.isfinite(found).all()
    else:
        assert (found == -np.inf).all()


def network_margins(model: nn.Module, x: Tensor) -> np.ndarray:
    (points,) = float64(x)
    labels = model(x).argmax(dim=1).numpy()
    return margins(read_network(model, x.shape[1:]), points, points, labels, "CROWN")


def test_factors_may_be_multiplied_with_each_other_before_the_weights() -> None:
    """1e30 * 1e-20 * 1e-20 * 1e7 is 1e-3, and 0 where the two small factors are one."""
    norms = [nn.BatchNorm1d(2, eps=0.0) for _ in range(3)]
    for norm, number in zip(norms, (1e-20, 1e-20, 1e7), strict=True):
        norm.weight.data[:] = number
    plain = layers([[1e30, 0.0, 0.0, 0.0], [0.0, 1e30, 0.0, 0.0]])
    low, high = interval(nn.Sequential(*plain, *norms).eval(), torch.ones(1, *FEW))
    assert low[0, 0] <= 0.0 and 0.99e-3 <= high[0, 0] < np.inf


def test_a_pruned_row_is_rounded_less() -> None:
    """Terms with a weight of zero are exact: they add neither to k nor to the size."""
    dense = Linear(np.full((1, 1000), 1e-3), np.zeros(1))
    weight = np.zeros((1, 1000))
    weight[0, :2] = 0.5
    ones = np.ones((1, 1000))
    sparse = Linear(weight, np.zeros(1)).bounds([_at(ones)])
    full = dense.bounds([_at(ones)])
    assert sparse.noise is not None and full.noise is not None
    assert full.noise[0, 0] == pytest.approx(float(gamma(1011)), rel=0.02)
    assert sparse.noise[0, 0] == pytest.approx(float(gamma(13)), rel=0.02)


def _at(x: np.ndarray):
    from corobench.benchmark.certify.checker.intervals import Interval

    return Interval(x, x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_a_linear_net_is_bounded_below_its_exact_margin_and_close_to_it(method, seed) -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), seed)
    weight, bias = model[1].weight.detach(), model[1].bias.detach()
    weight *= 10.0**seed
    _, low, high = boxes((1, 4, 4), 0.1, num=2, seed=seed)
    labels = np.array([seed, 0])
    found = margins(read_network(model, (1, 4, 4)), *float64(low, high), labels, method)
    for image, label in enumerate(labels.tolist()):
        exact = exact_linear(weight, bias, *float64(low[image], high[image]), label)
        size = 2 * float(weight.abs().sum(dim=1).max() + bias.abs().max())
        for bound, worst in zip(found[image], exact, strict=True):
            assert Fraction(float(bound)) < worst
            assert float(worst) - bound < 2.1 * float(gamma(16 + 12)) * size


def test_the_exact_margin_minus_the_noise_is_what_remains() -> None:
    """The tightest test of the noise: two logits, each one product plus a bias."""
    model = layers([[3.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], bias=[0.25, 0.5])
    point = np.full((1, *FEW), 0.5)
    found = margins(read_network(model, FEW), point, point, np.array([0]), "CROWN")[0, 0]
    noise = float(gamma(12)) * (1.75 + 1.0)
    assert 0.75 - 1.02 * noise < found < 0.75 - noise


# --- numbers below the smallest ---


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1e-40, 1e38),  # the weight is flushed
        (1e-30, 1e30),  # nothing is
        (1.17e-38, 8e37),  # just below the smallest normal one
    ],
)
def test_a_weight_that_may_be_flushed_is_charged(first: float, second: float) -> None:
    model = layers([[first, 0, 0, 0], [0, 0, 0, 0]], [[second, 0], [0, second]])
    exact = float(np.float32(first)) * float(np.float32(second))
    low, high = interval(model, torch.ones(1, *FEW))
    is_tiny = first < 2.0**-126
    assert low[0, 0] <= exact <= high[0, 0]
    assert (low[0, 0] <= 0.0) == is_tiny
    with flushing() as can:
        if can:
            logits = model(torch.ones(1, *FEW)).detach().numpy()
            assert (low <= logits).all() and (logits <= high).all()


def test_a_convolution_with_such_a_weight_is_charged() -> None:
    weight = np.zeros((1, 1, 1, 1))
    weight[0] = 2.0**-130
    found = Conv(weight, np.zeros(1)).bounds([_at(np.full((1, 1, 2, 2), 2.0**20))])
    assert (found.low <= 0).all() and (found.high >= 2.0**-110).all()


def test_a_product_or_a_value_that_may_be_flushed_is_charged() -> None:
    """2**-70 * 2**-60, and the same value passed on, behind which 2**120 makes it visible."""
    model = layers(
        [[2.0**-70, 0, 0, 0], [0, 0, 0, 0]],
        [[2.0**-60, 0], [0, 0]],
        [[2.0**120, 0], [0, 0]],
    )
    low, high = interval(model, torch.ones(1, *FEW))
    assert low[0, 0] <= 0.0 and high[0, 0] >= 2.0**-10


def test_a_factor_that_may_be_flushed_is_charged() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2.0**-130).flatten(1) * 2.0**120

    low, high = interval(Scaled(), torch.ones(1, *FEW))
    assert (low <= 0.0).all() and (high >= 2.0**-10).all()


def test_a_batch_norm_that_scales_by_such_a_number_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    model[0].weight.data.fill_(2.0**-130)
    model[2].weight.data.fill_(2.0**120)
    model[2].bias.data.zero_()
    with pytest.raises(UncheckableError, match="batch-norm weight that may be flushed"):
        read_network(model, FEW)


# --- sums that may overflow ---


@pytest.mark.parametrize("last", [None, nn.Tanh, nn.Sigmoid, nn.ReLU], ids=str)
def test_a_sum_that_may_overflow_proves_nothing(last) -> None:
    """3e38 + 3e38 - 3e38 - 3e38 is 0, infinite or no number, as its terms come."""
    model = layers([[3e38, 3e38, -3e38, -3e38], [0, 0, 0, 0]])
    if last is not None:
        model = nn.Sequential(*model, last())
    model = nn.Sequential(*model, *layers([[1.0, 0.0], [1.0, 0.0]], bias=[5.0, 0.0])[1:]).eval()
    worst = deployed_sum(np.float32([3e38, 3e38, -3e38, -3e38]))
    assert not np.isfinite(worst).all()
    assert refused(model)


def deployed_sum(terms: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.array([summed(terms, np.array(o)) for o in itertools.permutations(range(4))])


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.AvgPool2d(4, 1, 1),
    ],
    ids=["average", "adaptive", "padded"],
)
def test_a_mean_whose_sum_may_overflow_proves_nothing(pool: nn.Module) -> None:
    """Sixteen values of 2**125 have that mean, and a sum that float32 does not hold."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    conv.weight.data.fill_(2.0**125)
    size = 9 if isinstance(pool, nn.AvgPool2d) and pool.padding else 1
    linear = nn.Linear(size, 2)
    linear.weight.data.fill_(2.0**-126)
    linear.bias.data = torch.tensor([10.0, 0.0])
    model = nn.Sequential(conv, pool, nn.Flatten(), linear).eval()
    assert not torch.isfinite(model(torch.ones(1, 1, 4, 4))).all()
    assert refused(model, (1, 4, 4))
    conv.weight.data.fill_(2.0**100)
    assert not refused(model, (1, 4, 4))


def test_a_quantised_value_that_may_be_no_number_proves_nothing() -> None:
    from corobench.benchmark.submission.graph.layers import Quantise as Layer

    step = Layer(torch.ones(1), torch.zeros(1), -128, 127)
    for weight, expected in ((3e38, True), (1e30, False)):
        first = layers([[weight, weight, -weight, -weight], [0, 0, 0, 0]])
        last = layers([[0.01, 0.0], [0.01, 0.0]], bias=[5.0, 0.0])
        assert refused(nn.Sequential(*first, step, *last[1:]).eval()) == expected


def test_a_factor_on_the_way_of_a_batch_norm_may_overflow() -> None:
    """(x - mean) / sqrt(variance) overflows before the weight makes it small again."""
    norm = nn.BatchNorm2d(1, eps=0.0)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(4, 2)).eval()
    model[2].bias.data = torch.tensor([9.0, 0.0])
    norm.running_var.fill_(1e-28)
    norm.running_mean.fill_(-1e30)
    norm.weight.data.fill_(1e-30)
    assert refused(model)
    norm.running_mean.fill_(0.0)
    norm.bias.data.zero_()
    norm.weight.data.fill_(1e-18)
    assert not refused(model)


# --- sums of many terms, and the rest of the arithmetic ---


def test_sums_of_too_many_terms_are_refused() -> None:
    weight = np.ones((1, MAX_TERMS + 1))
    with pytest.raises(UncheckableError, match="more than 1048576 terms"):
        Linear(weight, np.zeros(1))
    weight[0, 100:] = 0.0
    Linear(weight, np.zeros(1))
    with pytest.raises(UncheckableError, match="terms"):
        Conv(np.ones((1, MAX_TERMS + 1, 1, 1)), np.zeros(1))
    with pytest.raises(UncheckableError, match="terms"):
        Mean((1,), False, (MAX_TERMS,))


def test_centre_and_radius_hold_both_ends() -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(size=10000) * 10.0 ** rng.integers(-300, 300, 10000)
    high = low + np.abs(rng.normal(size=10000)) * 10.0 ** rng.integers(-300, 300, 10000)
    mid, rad = centre(low, high)
    for a, b, m, r in zip(low, high, mid, rad, strict=True):
        assert Fraction(m) - Fraction(r) <= Fraction(a)
        assert Fraction(b) <= Fraction(m) + Fraction(r)


def test_noise_is_infinite_where_a_partial_sum_may_overflow() -> None:
    found = noise_of(np.array([1.0, 2.0**125, 2.0**126]), 5.0, 0.0)
    assert np.isfinite(found).tolist() == [True, True, False]


def test_the_share_of_padding_does_not_count() -> None:
    """A corner of 3x3 windows has four values on the map; their mean is theirs."""
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    layer = AveragePool((3, 3), (1, 1), (1, 1, 1, 1), False, (1, 4, 4))
    assert layer.linear(x)[0, 0, 0, 0] == pytest.approx((0 + 1 + 4 + 5) / 4)
    layer = AveragePool((3, 3), (1, 1), (1, 1, 1, 1), True, (1, 4, 4))
    assert layer.linear(x)[0, 0, 0, 0] == pytest.approx((0 + 1 + 4 + 5) / 9)


def test_a_wrong_certificate_of_a_margin_scaled_by_the_logits_is_not_given() -> None:
    """Rounding scales with values inside the network, not with its logits.

    s = (x0 + big) - big is x0 rounded to the grid of big: 0 for small x0. The exact network has
    the margin x0 - 0.4, the deployed one -0.4.
    """
    big = 2.0**25
    model = nn.Sequential(
        *layers([[1.0, 0, 0, 0], [0, 0, 0, 0]], bias=[big, big]),
        nn.ReLU(),
        *layers([[1.0, -1.0], [0.0, 0.0]], bias=[-0.4, 0.0])[1:],
    ).eval()
    x = torch.full((1, *FEW), 0.9)
    low, high = x - 0.01, x + 0.01
    assert int(copy.deepcopy(model).double()(x.double()).argmax()) == 0
    assert int(model(x).argmax()) == 1
    for method in METHODS:
        found = margins(read_network(model, FEW), *float64(low, high), np.array([0]), method)
        assert found.max() <= model(x)[0, 0].item()


def test_a_network_is_its_steps() -> None:
    network = read_network(seeded(cnn), SHAPE)
    assert isinstance(network, Network)
    assert network.num_classes == 10 and network.input_shape == SHAPE
    assert [network.shapes[relu] for relu in network.relus] == [(4, 4, 4), (8, 2, 2), (20,)]
