"""Images that a search comes across are led downhill."""

from __future__ import annotations

import torch
from certify_nets import boxes, cnn, seeded
from torch import nn

from corobench.benchmark.certify import BranchBudget, Prover
from corobench.benchmark.certify.bab.refinement import refined
from corobench.benchmark.certify.margin_spec import margins_of


def test_the_corner_of_a_linear_net_is_found_exactly() -> None:
    """Its smallest margin over the box has a closed form."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    net[1].weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 0.0, 0.0, 0.0]]))
    net[1].bias.copy_(torch.tensor([9.0, 0.0]))
    low, high = torch.full((1, 1, 2, 2), 0.2), torch.full((1, 1, 2, 2), 0.6)
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.2
    found = refined(net, torch.tensor([0]), low, high, x)
    expected = torch.tensor([0.2, 0.6, 0.2, 0.2]).view(1, 1, 2, 2).expand(5, -1, -1, -1)
    torch.testing.assert_close(found, expected)


def test_images_stay_in_the_box_and_never_get_worse() -> None:
    net = seeded(lambda: cnn(width=4, num_classes=4), 3).requires_grad_(False)
    x, low, high = boxes((1, 8, 8), 0.2, num=1, seed=1)
    label = net(x).argmax(dim=1)
    starts = low + (high - low) * torch.rand(
        16, 1, 8, 8, generator=torch.Generator().manual_seed(0)
    )
    found = refined(net, label, low, high, starts)
    assert bool(((found >= low) & (found <= high)).all())
    before, after = (margins_of(net(one), label.expand(16)).amin(dim=1) for one in (starts, found))
    assert bool((after <= before).all()) and bool((after < before).any())
    assert not torch.is_grad_enabled() or not found.requires_grad


def test_a_search_with_a_large_budget_looks_near_what_it_met() -> None:
    """Its points alone refute the network far later."""
    net = seeded(lambda: cnn(width=6, num_classes=4), 13).requires_grad_(False)
    for parameter in net.parameters():
        parameter.data *= 1.5
    x, low, high = boxes((1, 8, 8), 0.3, num=1, seed=13)
    labels = net(x).argmax(dim=1)
    starts = low + (high - low) * torch.rand(
        500, 1, 8, 8, generator=torch.Generator().manual_seed(0)
    )
    found = refined(net, labels, low, high, starts)
    smallest = margins_of(net(found), labels.expand(500)).amin()
    net[-1].bias.data[labels] -= smallest + 0.001
    spent = {}
    for above in (0, 10_000):
        budget = BranchBudget(
            2000,
            tighten_after=8,
            hopeless_splits=1e9,
            hopeless_dives=1e9,
            patience=1e9,
            lookahead_above=above,
        )
        (found,) = Prover(net, (1, 8, 8), 4).search("BaB", low, high, labels, budget)
        assert found.status == "refuted"
        assert margins_of(net(found.proposal[None]), labels).min() < 0
        spent[above] = found.num_subdomains
    assert spent[0] < 30 < spent[10_000], spent
