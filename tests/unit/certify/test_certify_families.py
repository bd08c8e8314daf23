"""Families beyond plain ReLU nets: every certifier is asked, and what it proves is true."""

from __future__ import annotations

import pytest
import torch
from certify_nets import boxes, margins, seeded, worst_found
from torch import Tensor, nn

from corobench.benchmark.certify.bab.budget import BranchBudget
from corobench.benchmark.certify.checker.proofs import METHODS
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.prover import Prover
from corobench.benchmark.certify.replayed import Replayed

SHAPE = (1, 8, 8)


def net(*layers: nn.Module, last: nn.Module | None = None) -> nn.Sequential:
    """A convolution with batch-norm, the layers, and two linear layers with a ReLU6 between."""
    front = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), *layers)
    num = front.eval()(torch.zeros(1, *SHAPE)).numel()
    back = [nn.Flatten(), nn.Linear(num, 8), nn.ReLU6(), nn.Linear(8, 3)]
    return nn.Sequential(*front, *back, *([] if last is None else [last]))


class InChannels(nn.Module):
    """A maximum of two halves of the channels, and a leaky ReLU, as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(1, 4, 3, 2, 1)
        self.fc = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.maximum(self.first(x), self.second(x))
        return self.fc(nn.functional.leaky_relu(z - 0.2, 0.1).flatten(1))


class Sums(nn.Module):
    """Channels and their sum, cut to a range."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        return self.fc((z + z.sum(1, keepdim=True)).clamp(-0.2, 0.5).flatten(1))


SEARCHED = {
    "sums": Sums,
    "relu6": lambda: net(nn.ReLU6()),
    "leaky": lambda: net(nn.LeakyReLU(0.1)),
    "prelu": lambda: net(nn.PReLU(4)),
    "hard sigmoid": lambda: net(nn.Hardsigmoid()),
    "max pool": lambda: net(nn.ReLU(), nn.MaxPool2d(2)),
    "max pool first": lambda: net(nn.MaxPool2d(2), nn.ReLU()),
    "padded max pool": lambda: net(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "overlapping average": lambda: net(nn.ReLU(), nn.AvgPool2d(3, 2, 1), nn.Hardtanh()),
    "log-softmax": lambda: net(nn.ReLU(), last=nn.LogSoftmax(1)),
    "functions": InChannels,
}


@pytest.mark.parametrize("name", SEARCHED)
def test_all_certifiers_are_asked_and_what_they_prove_is_true(name: str) -> None:
    model = seeded(SEARCHED[name], 4)
    asked = Prover(model, SHAPE, 3)
    assert not asked.refusals
    proven = dict.fromkeys((*METHODS, "alpha-CROWN", "BaB"), 0)
    for eps in (0.01, 0.06):
        x, low, high = boxes(SHAPE, eps, num=2, seed=6)
        labels = model(x).argmax(dim=1)
        worst = worst_found(model, low, high, labels).amin(dim=1)
        for method in METHODS:
            found = asked.prove(method, low, high, labels)
            assert (found.margin_B <= worst + 1e-6).all()
            assert (worst > 0)[found.certified_B].all()
            proven[method] += int(found.certified_B.sum())
        for certifier in ("alpha-CROWN", "BaB"):
            answers = asked.search(certifier, low, high, labels, BranchBudget(max_subdomains=60))
            for number, answer in enumerate(answers):
                assert float(answer.margins.min()) <= float(worst[number]) + 1e-6
                proven[certifier] += answer.status == "certified"
                assert answer.status != "certified" or worst[number] > 0
    assert proven["BaB"] >= proven["alpha-CROWN"] >= proven["CROWN"] >= proven["IBP"]
    assert proven["BaB"] > 0


@pytest.mark.parametrize("name", SEARCHED)
def test_the_network_that_is_searched_has_the_same_margins(name: str) -> None:
    model = seeded(SEARCHED[name], 4)
    x, labels = torch.rand(5, *SHAPE), torch.zeros(5, dtype=torch.long)
    copy = Replayed(read_network(model, SHAPE, max_as_relus=True))
    found, expected = (margins(one(x), labels) for one in (copy, model))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.SiLU(), "Smooth"),
        (nn.GroupNorm(2, 4), "Norm"),
        (nn.MaxPool2d(3, 2, 1), "MaxPool"),
    ],
    ids=str,
)
def test_what_has_no_signs_is_bounded_but_not_searched(layer: nn.Module, name: str) -> None:
    model = seeded(lambda: net(layer), 4)
    asked = Prover(model, SHAPE, 3)
    assert set(asked.refusals) == {"alpha-CROWN", "BaB"}
    assert name in asked.refusals["BaB"].message
    x, low, high = boxes(SHAPE, 0.001, num=3)
    labels = model(x).argmax(dim=1)
    found = asked.prove("CROWN", low, high, labels)
    assert found.certified_B.any()
    worst = worst_found(model, low, high, labels).amin(dim=1)
    assert (found.margin_B <= worst + 1e-6).all()
