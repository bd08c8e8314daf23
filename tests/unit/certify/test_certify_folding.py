"""One affine network in many spellings: the same function, and the same proofs for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from certify_nets import seeded
from torch import Tensor, nn

from corobench.benchmark.certify import CERTIFIERS, Prover
from corobench.benchmark.certify.folding import fold_affine
from corobench.benchmark.certify.lirpa.bounded import BoundedModel
from corobench.benchmark.network.prepare import prepare

SHAPE = (1, 8, 8)


class Spelt(nn.Module):
    """A convolution, a ReLU and a linear layer, with something said otherwise.

    Args:
        image: what the image goes through.
        inner: what the map behind the ReLU goes through.
        last: the linear layer: flat values, weight, bias.
    """

    def __init__(
        self,
        image: Callable[[Tensor], Tensor] = lambda x: x,
        inner: Callable[[Tensor], Tensor] = lambda x: x,
        last: Callable[[Tensor, Tensor, Tensor], Tensor] = F.linear,
    ) -> None:
        super().__init__()
        self.image, self.inner, self.last = image, inner, last
        self.conv = nn.Conv2d(1, 4, 3, 2, 1)
        self.weight = nn.Parameter(0.3 * torch.randn(10, 64))
        self.bias = nn.Parameter(torch.randn(10))
        self.register_buffer("number", torch.tensor(0.4))
        self.register_buffer("channels", torch.linspace(0.2, 0.8, 4).reshape(4, 1, 1))
        self.register_buffer("values", torch.linspace(-0.5, 0.5, 64).reshape(1, 4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(self.image(x)))
        return self.last(self.inner(x).flatten(1), self.weight, self.bias)


class Buffered(Spelt):
    """The same with its own buffers as constants."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv((x - self.number) / self.number))
        x = F.relu(self.channels[None] * x - self.values)
        return self.bias + x.flatten(1) @ self.weight.t()


SPELLINGS: dict[str, Callable[[], nn.Module]] = {
    "a sum behind a product": lambda: Spelt(last=lambda x, w, b: x @ w.t() + b),
    "a bias on the left": lambda: Spelt(last=lambda x, w, b: b + torch.matmul(x, w.t())),
    "a bias of one row": lambda: Spelt(last=lambda x, w, b: x @ w.t() + b[None]),
    "a number at the image": lambda: Spelt(image=lambda x: 2 * x - 0.5),
    "the image taken from 1": lambda: Spelt(image=lambda x: 1 - x),
    "a quotient at the image": lambda: Spelt(image=lambda x: (x - 0.3) / 0.4),
    "a sign inside": lambda: Spelt(inner=lambda x: -x),
    "a number inside": lambda: Spelt(inner=lambda x: 0.1 + x * 1.5),
    "a temperature": lambda: Spelt(last=lambda x, w, b: F.linear(x, w, b) / 2),
    "buffers": Buffered,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_costs_no_certifier_and_no_proof(name: str) -> None:
    net = seeded(SPELLINGS[name])
    x = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(3))
    plain = prepare(net, SHAPE)
    folded = fold_affine(plain, SHAPE)
    assert folded is not plain
    with torch.no_grad():
        assert torch.allclose(folded(x), net(x), atol=1e-5)
        names = {type(one).__name__ for one in folded.modules()}
        assert names <= {"BatchNorm1d", "BatchNorm2d", "Conv2d", "Flatten", "Linear", "ReLU"} | {
            type(folded).__name__,
            "_Shaped",
        }
        low, high, labels = *_box(x), net(x).argmax(dim=1)
    bounded = BoundedModel(net, SHAPE, 10)
    assert bounded.methods == CERTIFIERS, bounded.refusals
    loose = bounded.margins("IBP", low, high, labels)
    tight = bounded.margins("CROWN", low, high, labels)
    assert bool((tight >= loose - 1e-4).all())


def _box(x: Tensor, eps: float = 0.01) -> tuple[Tensor, Tensor]:
    return (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)


def test_all_spellings_of_a_linear_layer_have_the_same_margins() -> None:
    low, high = _box(torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(5)))
    found = []
    for name in ("a sum behind a product", "a bias on the left", "a bias of one row"):
        net = seeded(SPELLINGS[name])
        with torch.no_grad():
            labels = net((low + high) / 2).argmax(dim=1)
        prover = Prover(net, SHAPE, 10)
        assert not prover.refusals
        found.append(prover.prove("CROWN", low, high, labels).margin_B)
    assert all(torch.allclose(one, found[0], atol=1e-4) for one in found)


def test_what_is_padded_keeps_its_border() -> None:
    """A shift in front of a padded convolution is no bias: the border is zero all the same."""
    net = seeded(lambda: Spelt(image=lambda x: x + 1))
    x = torch.rand(4, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(fold_affine(prepare(net, SHAPE), SHAPE)(x), net(x), atol=1e-5)


def test_a_value_that_is_read_twice_is_not_folded_away() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 16), nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x.flatten(1))
            return self.second(F.relu(2 * x) + x)

    net, x = seeded(Twice), torch.rand(4, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(fold_affine(prepare(net, SHAPE), SHAPE)(x), net(x), atol=1e-5)


def test_a_network_without_such_chains_stays_itself() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    plain = prepare(net, SHAPE)
    assert fold_affine(plain, SHAPE) is plain
