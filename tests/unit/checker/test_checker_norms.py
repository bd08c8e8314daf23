"""Norms without a mean, roots, quotients, powers, products of matrices, a softmax inside.

Each canary is right with a margin in real numbers, and wrong at an image of the ball in torch at
batch size 1: what a layer loses is all that it should have given. A bound that forgot about the
layer's own rounding would certify it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from planted import SHAPE, Gated, broken, claims, linear
from torch import Tensor, nn

from corobench.benchmark.certify.checker import roots
from corobench.benchmark.certify.checker.boxed import Softmax
from corobench.benchmark.certify.checker.intervals import Interval, UncheckableError
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.graph.layers import Clip, UnitLength


class Lost(nn.Module):
    """Numbers that are the same for every image, a function of them, and factors behind it.

    Args:
        numbers: what the function gets, one row.
        function: gives one value per image, 1 times 1 / gain in real numbers.
        gain: factors; the last one is negative, so that -1 is left.
    """

    def __init__(
        self, numbers: list[float], function: Callable[[Tensor], Tensor], *gain: float
    ) -> None:
        super().__init__()
        self.numbers = linear(64, [{} for _ in numbers], numbers)
        self.function = function
        self.gain = nn.Sequential(*(linear(1, [{0: factor}], [0.0]) for factor in gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain(self.function(self.numbers(x)))


class First(nn.Module):
    """A layer, and the first value that it gives."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.first = layer, linear(2, [{0: 1.0}], [0.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.layer(x))


def ones(z: Tensor) -> Tensor:
    return z * 0.0 + 1.0


TINY, HUGE = 2.0**-80, 2.0**70
CANARIES: dict[str, Callable[[], nn.Module]] = {
    "length whose squares underflow": lambda: Lost([TINY, 0.0], First(UnitLength(1).eval()), -1.0),
    "length whose squares overflow": lambda: Lost(
        [HUGE, 0.0], lambda z: F.normalize(z).narrow(1, 0, 1), -1.0
    ),
    "RMS norm whose squares overflow": lambda: Lost(
        [HUGE, HUGE], First(nn.RMSNorm([2], eps=1e-6).eval()), -1.0
    ),
    "RMS norm by hand": lambda: Lost(
        [HUGE, HUGE],
        lambda z: (z * torch.rsqrt((z * z).mean(1, keepdim=True) + 1e-6)).narrow(1, 0, 1),
        -1.0,
    ),
    "cube that underflows": lambda: Lost([2.0**-50], lambda z: z**3, 2.0**120, -(2.0**30)),
    "product of matrices": lambda: Lost(
        [2.0**24, 1.0, -(2.0**24)],
        lambda z: (z.reshape(-1, 1, 3) @ ones(z).reshape(-1, 3, 1)).flatten(1),
        -1.0,
    ),
    "range the wrong way round": lambda: Lost([0.5], lambda z: z.clamp(2.0, 1.0) - 1.0, -1.0),
}
FLUSHED: dict[str, Callable[[], nn.Module]] = {
    "root of what is flushed": lambda: Lost([2.0**-140], torch.sqrt, -(2.0**70)),
    "quotient of what is flushed": lambda: Lost(
        [2.0**-130, 2.0**-130], lambda z: z.narrow(1, 0, 1) / z.narrow(1, 1, 1), -1.0
    ),
}


@pytest.mark.parametrize("name", CANARIES)
def test_what_a_layer_loses_has_no_certificate(name: str) -> None:
    model = Gated(CANARIES[name]()).eval()
    assert broken(model)
    read_network(model, SHAPE)  # it is known, and bounded
    assert not claims(model) > 0


@pytest.mark.parametrize("name", FLUSHED)
def test_what_is_flushed_to_zero_has_no_certificate(name: str) -> None:
    model = Gated(FLUSHED[name]()).eval()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    torch.set_flush_denormal(False)
    assert broken(model, flush=True)
    assert not claims(model) > 0


HARMLESS: dict[str, Callable[[], nn.Module]] = {
    "length": lambda: Lost([1.0, 0.0], First(UnitLength(1).eval()), -1.0),
    "normalize": lambda: Lost([3.0, 0.0], lambda z: F.normalize(z).narrow(1, 0, 1), -1.0),
    "RMS norm": lambda: Lost([2.0, 2.0], First(nn.RMSNorm([2], eps=1e-6).eval()), -1.0),
    "cube": lambda: Lost([2.0], lambda z: z**3, -0.125),
    "product of matrices": lambda: Lost(
        [2.0, 1.0, -2.0],
        lambda z: (z.reshape(-1, 1, 3) @ ones(z).reshape(-1, 3, 1)).flatten(1),
        -1.0,
    ),
    "range the wrong way round": lambda: Lost([0.5], lambda z: z.clamp(2.0, 1.0), -1.0),
    "root": lambda: Lost([4.0], torch.sqrt, -0.5),
    "quotient": lambda: Lost(
        [3.0, 2.0], lambda z: z.narrow(1, 0, 1) / (z.narrow(1, 1, 1) + 1.0), -1.0
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_loses_nothing_keeps_its_certificate(name: str) -> None:
    """The same networks with numbers that float32 holds: the refusals above are not for nothing."""
    model = Gated(HARMLESS[name]()).eval()
    assert claims(model) > 0.3


def test_lengths_at_two_points_by_hand() -> None:
    """3 / 5 and 4 / 5; between (3, 4) and (6, 4) the first rises to 6 / sqrt(52)."""
    layer = roots.Normalised(roots.Length((1,), (2,)), np.ones(()))
    found = layer.bounds([Interval(np.array([[3.0, 4.0]]), np.array([[6.0, 4.0]]))])
    np.testing.assert_allclose(found.low, [[3 / 5, 4 / 52**0.5]], atol=1e-5)
    np.testing.assert_allclose(found.high, [[6 / 52**0.5, 4 / 5]], atol=1e-5)
    assert (found.low <= [[3 / 5, 4 / 52**0.5]]).all() and (found.high >= [[0.832, 0.8]]).all()


def test_a_softmax_of_many_values_is_that_of_few() -> None:
    """Values far below the others change nothing but the noise."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=(2, 20))
    high = low + rng.random((2, 20))
    far = np.full((2, 40), -60.0)
    few = Softmax().bounds([Interval(low, high)])
    many = Softmax().bounds(
        [Interval(np.concatenate([low, far], 1), np.concatenate([high, far], 1))]
    )
    np.testing.assert_allclose(few.low, many.low[:, :20], rtol=0, atol=1e-4)
    np.testing.assert_allclose(few.high, many.high[:, :20], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda z: torch.softmax(z, 0), "a softmax over the batch"),
        (lambda z: F.normalize(z, dim=0), "a length that mixes images"),
        (lambda z: F.normalize(z, p=1.0), "such a norm of rows"),
        (lambda z: z @ z.t(), "mixes images"),
        (lambda z: F.celu(z, 1e-40), "a CELU whose alpha"),
        (lambda z: F.elu(z, 1e10), "an ELU whose alpha"),
        (lambda z: F.rms_norm(z, (3,), torch.full((3,), 2.0**50)), "weights of a normalisation"),
    ],
)
def test_uses_that_are_not_known(layer: Callable[[Tensor], Tensor], text: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return layer(torch.flatten(x, 1).narrow(1, 0, 3))

    with pytest.raises(UncheckableError, match=text):
        read_network(Net().eval(), SHAPE)


def test_the_upper_end_of_a_range_wins_as_in_torch() -> None:
    """Value by value, where a stored range is the wrong way round in part of it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low = nn.Parameter(torch.tensor([0.2, 0.9]))
            self.high = nn.Parameter(torch.tensor([0.7, 0.1]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.flatten(x, 1).narrow(1, 0, 2).clamp(self.low, self.high)

    net = Net().eval()
    network = read_network(net, SHAPE)
    image = torch.rand(1, *SHAPE)
    low, high = np.zeros((1, *SHAPE)), np.ones((1, *SHAPE))
    found = network.bounds(low, high).values[-1]
    np.testing.assert_allclose(found.low, [[0.2, 0.1]], atol=1e-6)
    np.testing.assert_allclose(found.high, [[0.7, 0.1]], atol=1e-6)
    exact = net(image).detach().numpy()
    assert (found.low <= exact).all() and (exact <= found.high).all()
    assert Clip(2.0, 1.0)(image).unique().tolist() == [1.0]
