"""Margins against images, exact answers and the bound library; windows, joins and outputs."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from certify_nets import (
    Normalize,
    PreActivation,
    Residual,
    Viewing,
    boxes,
    cnn,
    neighbours,
    seeded,
    worst_found,
)
from float32_nets import float64
from milp_margins import exact_margins
from torch import Tensor, nn

from corobench.benchmark.certify import BoundedModel
from corobench.benchmark.certify.checker import blocks, layers
from corobench.benchmark.certify.checker.cost import is_made_by_affine
from corobench.benchmark.certify.checker.exact import Pad
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.layers import Add, Affine, Linear
from corobench.benchmark.certify.checker.network import Network, Step, require_flat_logits
from corobench.benchmark.certify.checker.passes import Slopes
from corobench.benchmark.certify.checker.proofs import (
    METHODS,
    crown_bounds,
    margins,
    specification,
    taken,
    tightened,
)
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.graph.layers import Concat, Quantise, Slice
from corobench.benchmark.submission.graph.layers import Pad as PadLayer

SHAPE = (1, 8, 8)
TINY = (1, 2, 2)


class Branches(nn.Module):
    """A border, two convolutions side by side, a slice of channels, and a skip across both."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.left = PadLayer([1, 0, 2, 1], 0.3), nn.Conv2d(1, 3, 3)
        self.right, self.join = nn.Conv2d(1, 3, (3, 3)), Concat(1)
        self.part, self.mix = Slice([(1, 1, 5, 1)]), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 9 * 7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pad(x)
        x = torch.relu(self.part(self.join(self.left(x), self.right(x))))
        return self.fc(torch.relu(self.mix(x) - x).flatten(1))


def pooled(pool: nn.Module, num_flat: int, after: nn.Module | None = None) -> nn.Sequential:
    """conv, ReLU, pool, conv, ReLU, pool's map flattened, FC."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1),
        after or nn.ReLU(),
        pool,
        nn.Conv2d(4, 3, 3, 1, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(num_flat, 4),
    )


def flattened(activation: nn.Module) -> nn.Sequential:
    """conv, ReLU, conv, flatten, activation, FC."""
    first, second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 3, 3, 2, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.Flatten(), activation, nn.Linear(12, 4))


def quantised() -> nn.Sequential:
    step = Quantise(torch.tensor([0.02]), torch.zeros(1), 0, 255)
    return nn.Sequential(
        Quantise(torch.tensor([1 / 255]), torch.zeros(1), 0, 255),
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.ReLU(),
        step,
        nn.Conv2d(4, 4, 3, 2, 1),
        nn.ReLU(),
        Quantise(torch.tensor([0.01]), torch.tensor([3.0]), 0, 255),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


NETS = {
    "cnn": lambda: cnn(num_classes=4),
    "viewing": Viewing,
    "residual": Residual,
    "pre-activation": PreActivation,
    "normalised": lambda: nn.Sequential(Normalize([0.3], [0.2]), *cnn(num_classes=4)),
    "branches": Branches,
    "max-pool": lambda: pooled(nn.MaxPool2d(2), 48),
    "overlapping max-pool": lambda: pooled(nn.MaxPool2d(3, 2, 1), 48),
    "average-pool": lambda: pooled(nn.AvgPool2d(3, 2, 1), 48),
    "padding not counted": lambda: pooled(nn.AvgPool2d(3, 2, 1, count_include_pad=False), 48),
    "sigmoid": lambda: pooled(nn.AvgPool2d(2), 48, nn.Sigmoid()),
    "tanh": lambda: pooled(nn.MaxPool2d(2), 48, nn.Tanh()),
    "dilated groups": lambda: pooled(nn.Conv2d(4, 4, 3, 1, 2, 2, groups=2), 192),
    "quantised": quantised,
    "flattened before its relu": lambda: flattened(nn.ReLU()),
    "flattened before its curve": lambda: flattened(nn.Tanh()),
}


def asked(model: nn.Module, low: Tensor, high: Tensor, labels: Tensor, method: str) -> Tensor:
    network = read_network(model, low.shape[1:])
    return torch.from_numpy(margins(network, *float64(low, high), labels.numpy(), method))


@pytest.mark.parametrize("name", NETS)
def test_no_image_has_a_smaller_margin_than_its_bound(name: str) -> None:
    model = seeded(NETS[name], 1).requires_grad_(False)
    x, low, high = boxes(SHAPE, 0.03)
    labels = model(x).argmax(dim=1)
    worst = worst_found(model, low, high, labels).double()
    bounds = [asked(model, low, high, labels, method) for method in METHODS]
    for bound in bounds:
        assert (bound <= worst).all() and torch.isfinite(bound).all()
    # Each may use the proofs of those before it, and where it does the work it is no looser.
    assert (bounds[1] >= bounds[0] - 1e-12).all()
    assert (bounds[2] >= bounds[1] - 1e-12).all()
    assert ((worst - bounds[2]).mean() < worst.abs().mean() + 1.0).all()


@pytest.mark.parametrize("name", NETS)
def test_every_neuron_stays_in_the_bounds_of_crown(name: str) -> None:
    model = seeded(NETS[name], 2)
    _x, low, high = boxes(SHAPE, 0.05, num=1)
    network = read_network(model, SHAPE)
    found = crown_bounds(network, *float64(low, high))
    plain = network.bounds(*float64(low, high))
    rng = np.random.default_rng(0)
    share = rng.uniform(0, 1, (40, *SHAPE))
    share[::2] = share[::2].round()
    points = np.float32(low.numpy() + (high - low).numpy() * share)
    exact = network.bounds(points.astype(np.float64), points.astype(np.float64))
    for here, before, inside in zip(found.values, plain.values, exact.values, strict=True):
        assert (here.low >= before.low).all() and (here.high <= before.high).all()
        assert (inside.high >= here.low - 1e-12).all()
        assert (inside.low <= here.high + 1e-12).all()
    with torch.no_grad():
        logits = model(torch.from_numpy(points)).numpy()
    assert (found.values[-1].low <= logits).all() and (logits <= found.values[-1].high).all()


class Stored(nn.Module):
    """A stored factor, then a summand, of any shape behind a hidden convolution."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)
        self.last = nn.Linear(12, 3)
        self.register_buffer("factor", torch.rand(shape) + 0.5)
        self.register_buffer("summand", torch.rand(shape) - 0.5)

    def inner(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x))) * self.factor + self.summand

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.inner(x)).flatten(1))


@pytest.mark.parametrize(
    "shape",
    [(), (1,), (3,), (1, 3), (2, 1), (2, 3), (2, 1, 1), (1, 2, 1), (1, 1, 3), (2, 2, 3)],
    ids=str,
)
def test_stored_tensors_of_any_shape_meet_windows_of_rows(shape: tuple[int, ...]) -> None:
    """A row of one neuron covers one place of the map, a tensor of the shape (3,) its width."""
    for seed in range(12):
        model = seeded(lambda: Stored(shape), seed)
        _x, low, high = boxes((1, 2, 3), 0.3, num=1, seed=seed)
        network = read_network(model, (1, 2, 3))
        found = crown_bounds(network, *float64(low, high)).values
        share = torch.rand(300, 1, 2, 3, generator=torch.Generator().manual_seed(seed))
        points = low + (high - low) * torch.cat([share, share.round()])
        with torch.no_grad():
            inner = model.inner(points).numpy()
        (relu,) = network.relus[1:]
        (number,) = network.steps[relu - 1].sources
        assert (found[number].low <= inner).all() and (inner <= found[number].high).all()


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
def test_no_bound_exceeds_the_exact_worst_case(num_hidden_layers: int) -> None:
    for seed in range(4):
        sizes = [4, 6, 5][: num_hidden_layers + 1]
        layers: list[nn.Module] = [nn.Flatten()]
        for into, out in itertools.pairwise(sizes):
            layers += [nn.Linear(into, out), nn.ReLU()]
        model = seeded(functools.partial(nn.Sequential, *layers, nn.Linear(sizes[-1], 3)), seed)
        x, low, high = boxes(TINY, 0.2, num=2, seed=seed)
        labels = model(x).argmax(dim=1)
        exact = exact_margins(model, low, high, labels).double()
        for method in METHODS:
            bound = asked(model, low, high, labels, method)
            assert (bound <= exact + 1e-6).all()
            assert (bound >= exact - 2.0).all()


@pytest.mark.parametrize("name", ["cnn", "viewing", "residual", "normalised"])
@pytest.mark.parametrize("method", METHODS)
def test_no_looser_than_the_library_by_more_than_the_noise(name: str, method: str) -> None:
    model = seeded(NETS[name], 1)
    x, low, high = boxes(SHAPE, 0.03)
    labels = model(x).argmax(dim=1)
    classes = model(x).shape[1]
    theirs = BoundedModel(model, SHAPE, classes).margins(method, low, high, labels)
    ours = asked(model, low, high, labels, method)
    is_open = ours.amin(dim=1) <= 0  # the others may be left to a cheaper method
    noise = 5e-4  # of the residual net, whose sum may be folded into a convolution
    assert (ours >= theirs - noise)[is_open].all()
    assert not (is_open & (theirs.amin(dim=1) > noise)).any()


def test_where_ibp_bounds_a_neuron_better_than_crown_both_count() -> None:
    net, x, labels = neighbours()
    found = asked(net, x - 0.2, x + 0.2, labels, "CROWN")
    assert found[0, 0] == pytest.approx(1 - 0.55, abs=1e-5)


def test_many_images_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from corobench.benchmark.certify.checker import proofs

    model = seeded(NETS["cnn"], 1)
    x, low, high = boxes(SHAPE, 0.06, num=20)
    labels = model(x).argmax(dim=1)
    expected = asked(model, low, high, labels, "CROWN")
    monkeypatch.setattr(proofs, "_IMAGES_AT_ONCE", 7)
    monkeypatch.setattr(proofs, "_NEURONS_AT_ONCE", 3)
    found = asked(model, low, high, labels, "CROWN")
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert asked(model, low[:0], high[:0], labels[:0], "CROWN").shape == (0, 3)


@pytest.mark.parametrize("num_bytes", [8, 200, 3000])
@pytest.mark.parametrize("name", NETS)
def test_rows_may_be_cut_anywhere(
    name: str, num_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into parts that fit into a cache: sums are added in another order, nothing else."""
    model = seeded(NETS[name], 1)
    x, low, high = boxes(SHAPE, 0.1)
    labels = (model(x).argmax(dim=1) + 1) % 4  # wrong ones, so that CROWN is asked
    expected = asked(model, low, high, labels, "CROWN")
    monkeypatch.setattr(blocks, "_BYTES", num_bytes)
    monkeypatch.setattr(layers, "_PRODUCT_BYTES", num_bytes)
    found = asked(model, low, high, labels, "CROWN")
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_bounds_of_some_images_are_theirs() -> None:
    network = read_network(seeded(NETS["residual"], 1), SHAPE)
    _, low, high = boxes(SHAPE, 0.05, num=5)
    every = network.bounds(*float64(low, high))
    some = taken(every, np.array([3, 1]))
    assert some.num_images == 2
    for one, other in zip(some.values, every.values, strict=True):
        assert np.array_equal(one.low, other.low[[3, 1]])
        assert (one.noise is None) == (other.noise is None)


def test_specification_is_label_minus_other() -> None:
    rows = specification(np.array([2, 0]), 3)
    assert rows.tolist() == [
        [[-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]],
        [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]],
    ]


def test_given_slopes_change_the_bound_and_stay_sound() -> None:
    """One neuron with bounds -1 and 2, the lower line of any slope: relu(z) >= s z."""
    identity = Linear(np.array([[3.0]]), np.array([-1.0]))
    steps = [Step(identity, (0,)), Step(_relu(), (1,)), Step(Linear(np.eye(1), np.zeros(1)), (2,))]
    network = Network((1,), steps)
    bounds = network.bounds(np.zeros((1, 1)), np.ones((1, 1)))
    rows = np.ones((1, 3, 1))
    slopes = {2: Slopes(np.array([[0.0], [0.5], [7.0]]))}
    found = network.lower(bounds, 3, rows, slopes=slopes).bound_BR[0]
    np.testing.assert_allclose(found, [0.0, -0.5, -1.0], atol=1e-5)  # 7 is clipped to 1
    better = tightened(network, bounds, 3, np.array([0]), {2: Slopes(np.array([[0.0], [0.3]]))})
    assert better.low[0, 0] == pytest.approx(0.0, abs=1e-5)
    assert better.high[0, 0] == pytest.approx(2.0, abs=1e-5)


def _relu():
    from corobench.benchmark.certify.checker.activations import Relu

    return Relu()


def test_rows_that_lie_on_padding_only_end_there() -> None:
    """A stride that jumps over the map: the last window of it sees nothing but padding."""
    from corobench.benchmark.certify.checker.layers import Conv

    conv = Conv(np.ones((1, 1, 1, 1)), np.array([0.5]), (3, 3), (0, 0, 2, 2))
    network = Network((1, 2, 2), [Step(Pad((0, 0, 2, 2), 0.0), (0,)), Step(conv, (1,))])
    bounds = network.bounds(np.zeros((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))
    row = np.ones((1, 1, 1, 1, 1))
    assert network.lower(bounds, 2, row, (1, 1)).bound_BR[0, 0] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1,), (3, 2)])
def test_outputs_that_are_no_row_of_logits_are_refused(shape: tuple[int, ...]) -> None:
    network = Network(shape, [Step(Add(), (0, 0))])
    with pytest.raises(UncheckableError, match="one row of logits"):
        require_flat_logits(network)


def test_affine_layers_say_what_they_do() -> None:
    layer = Affine()
    x = np.zeros((1, 1))
    for call in (layer.linear, layer.absolute):
        with pytest.raises(NotImplementedError):
            call(x)
    with pytest.raises(NotImplementedError):
        layer.back(x, (0, 0), (1,))


def test_the_image_itself_needs_no_tighter_bounds() -> None:
    network = read_network(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)).eval(), SHAPE)
    low, high = (np.full((1, *SHAPE), end) for end in (-0.25, 0.75))
    found = crown_bounds(network, low, high)
    assert np.array_equal(found.values[0].low, low) and np.array_equal(found.values[1].low, low * 0)
    assert is_made_by_affine(network, 0) and not is_made_by_affine(network, 1)
