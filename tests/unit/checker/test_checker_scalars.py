"""Values of one number per image, without an axis of their own: bounded as those with one are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from certify_nets import margins
from float32_nets import float64
from torch import Tensor, nn

from corobench.benchmark.certify import Prover
from corobench.benchmark.certify.bab.budget import BranchBudget
from corobench.benchmark.certify.checker import proofs
from corobench.benchmark.certify.checker.reading import read_network

SHAPE = (2, 5, 5)

#: A number per image from a map (B, C, H, W): without an axis, and with one.
WAYS = {
    "mean": (lambda h: h.mean((1, 2, 3)).unsqueeze(1), lambda h: h.flatten(1).mean(1, True)),
    "sum": (lambda h: h.sum((1, 2, 3)).reshape(-1, 1), lambda h: h.flatten(1).sum(1, True)),
    "ReLU": (
        lambda h: F.relu(h.sum((1, 2, 3)) - 7.0).unsqueeze(1),
        lambda h: F.relu(h.flatten(1).sum(1, True) - 7.0),
    ),
    "two": (
        lambda h: F.relu(F.relu(h.flatten(1).mean(1)) * 3.0 - 0.4).view(-1, 1),
        lambda h: F.relu(F.relu(h.flatten(1).mean(1, True)) * 3.0 - 0.4),
    ),
}


class Net(nn.Module):
    """A convolution, one number per image, and a linear layer."""

    def __init__(self, way) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.way = nn.Conv2d(2, 3, 3), nn.Linear(1, 4), way

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.way(F.relu(self.conv(x))))


def _box(radius: float) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(3))
    return images, (images - radius).clamp(0, 1), (images + radius).clamp(0, 1)


@pytest.mark.parametrize("name", WAYS)
def test_a_number_without_an_axis_is_bounded_as_one_with_it(name: str) -> None:
    nets = [Net(way).eval() for way in WAYS[name]]
    images, lower, upper = _box(0.03)
    labels = nets[0](images).argmax(1)
    found = []
    for net in nets:
        prover = Prover(net, SHAPE, 4)
        assert prover.refusals == {}
        bounds = [prover.prove(one, lower, upper, labels) for one in ("IBP", "CROWN-IBP", "CROWN")]
        searched = [
            [one.status for one in prover.search(kind, lower, upper, labels, BranchBudget())]
            for kind in ("alpha-CROWN", "BaB")
        ]
        found.append(([one.certified_B.tolist() for one in bounds], searched))
    assert found[0] == found[1]
    assert any(any(one) for one in found[0][0])


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("radius", [0.005, 0.05, 0.3])
def test_no_image_lies_below_its_bound(name: str, radius: float) -> None:
    net = Net(WAYS[name][0]).eval()
    images, lower, upper = _box(radius)
    labels = net(images).argmax(1)
    network = read_network(net, SHAPE)
    corners = float64(lower, upper)
    generator = torch.Generator().manual_seed(5)
    for method in proofs.METHODS:
        bounds = proofs.margins(network, *corners, labels.numpy(), method)
        for _ in range(40):
            share = torch.rand(images.shape, generator=generator).round()
            seen = margins(net(lower + share * (upper - lower)), labels).detach().numpy()
            assert (bounds <= seen + 1e-6).all()
