"""Sparing broken images leaves the flags of APGD as they are."""

from __future__ import annotations

from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.sparing import LEAD, spare

PARTS = ("apgd", "apgd_targeted")


class _Counting(nn.Module):
    """A network with kinks that counts the images it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
        self.num_asked = 0

    def forward(self, x_BCHW: Tensor) -> Tensor:
        self.num_asked += len(x_BCHW)
        return self.net(x_BCHW)


def _attack(network: nn.Module, part: str, epsilon: float, is_spared: bool) -> Any:
    suite = pyautoattack.AutoAttack(
        network, norm="Linf", eps=epsilon, seed=5, version="standard", device="cpu"
    )
    apgd = getattr(suite, part)
    apgd.n_target_classes = 9
    if is_spared:
        apgd.attack_single_run = spare(apgd, apgd.attack_single_run)
    return apgd


def _images(network: nn.Module) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    x = torch.rand(40, 1, 8, 8)
    with torch.no_grad():
        return x, network(x).argmax(dim=1)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("epsilon", [0.001, 0.1, 0.2, 0.5], ids=str)
def test_flags_are_those_of_the_library_and_less_is_asked(part: str, epsilon: float) -> None:
    network = _Counting().eval()
    x, y = _images(network)
    broken, asked = [], []
    for is_spared in (False, True):
        network.num_asked = 0
        made = _attack(network, part, epsilon, is_spared).perturb(x, y)
        asked.append(network.num_asked)
        assert ((made - x).abs() <= epsilon + 1e-6).all()
        assert (made >= 0).all() and (made <= 1).all()
        with torch.no_grad():
            logits = network(made)
        broken.append(logits.argmax(dim=1) != y)
    assert torch.equal(*broken)
    num_broken = int(broken[0].sum())
    assert asked[1] < 0.5 * asked[0] if num_broken == len(x) else asked[1] <= asked[0]
    if num_broken > len(x) // 2:
        assert asked[1] < 0.8 * asked[0]


def test_the_cases_above_reach_from_none_to_all() -> None:
    network = _Counting().eval()
    x, y = _images(network)
    broken = []
    for epsilon in (0.001, 0.1, 0.2, 0.5):
        made = _attack(network, "apgd", epsilon, True).perturb(x, y)
        with torch.no_grad():
            broken.append(int((network(made).argmax(dim=1) != y).sum()))
    assert broken[0] == 0 < broken[1] < broken[2] < broken[3] == len(x)


def test_kept_images_break_by_more_than_rounding() -> None:
    network = _Counting().eval()
    x, y = _images(network)
    made = _attack(network, "apgd", 0.2, True).perturb(x, y)
    changed = (made != x).flatten(1).any(dim=1)
    with torch.no_grad():
        logits = torch.cat([network(image[None]) for image in made[changed]])
    own = logits.gather(1, y[changed, None])[:, 0]
    span = logits.amax(dim=1) - logits.amin(dim=1)
    assert ((logits.amax(dim=1) - own) > 0.9 * LEAD * span).all()


@pytest.mark.parametrize("part", PARTS)
def test_the_network_is_put_back(part: str) -> None:
    network = _Counting().eval()
    x, y = _images(network)
    for epsilon in (0.1, 0.5):
        apgd = _attack(network, part, epsilon, True)
        model = apgd.model
        apgd.perturb(x, y)
        assert apgd.model is model
