"""Trees that are too large are told from the others: walks, and what the first splits gained."""

from __future__ import annotations

import pytest
import torch
from certify_nets import boxes, cnn, seeded
from torch import Tensor, nn

from corobench.benchmark.certify import BoundedModel, BranchBudget, Prover
from corobench.benchmark.certify.bab import branching
from corobench.benchmark.certify.bab.dives import Dives, splits_left
from corobench.benchmark.certify.bab.proof_log import ProofLog
from corobench.benchmark.certify.bab.tightening import tightened


def grown(depths: list[int]) -> ProofLog:
    """A tree in which the first half of every split is closed, down to a depth."""
    log = ProofLog(1)
    node = log._add(0, -1, -1, 0.0)
    for depth in depths:
        for _ in range(depth):
            first, second = (log._add(0, node, 0, sign) for sign in (1.0, -1.0))
            log.children[node] = first, second
            log.is_closed[first] = True
            node = second
    return log


def test_walks_estimate_the_size_of_a_full_tree_exactly() -> None:
    log = ProofLog(1)
    level = [log._add(0, -1, -1, 0.0)]
    for _ in range(5):
        below = []
        for node in level:
            pair = tuple(log._add(0, node, 0, sign) for sign in (1.0, -1.0))
            log.children[node] = pair
            below += pair
        level = below
    for node in level:
        log.is_closed[node] = True
    dives = Dives(log, [0], 8)
    assert dives.waiting() == set()
    assert dives.expected() == 63.0


def test_walks_are_right_on_average_for_a_tree_of_one_long_branch() -> None:
    depth = 6
    log = grown([depth])
    log.is_closed[-1] = True
    dives = Dives(log, [0], 20_000)
    assert dives.waiting() == set()
    assert dives.expected() == pytest.approx(1 + 2 * depth, rel=0.1)


def test_walks_wait_at_open_nodes_and_go_on() -> None:
    log = grown([3])
    dives = Dives(log, [0], 64)
    (open_node,) = dives.waiting()
    assert not log.is_closed[open_node] and log.children[open_node] is None
    before = dives.expected()
    pair = tuple(log._add(0, open_node, 0, sign) for sign in (1.0, -1.0))
    log.children[open_node] = pair
    for node in pair:
        log.is_closed[node] = True
    assert dives.waiting() == set() and dives.expected() > before


def test_splits_that_gain_alike_say_how_many_are_left() -> None:
    depth, gain = torch.tensor([3.0, 3.0, 1.0]), torch.tensor([6.0, 6.0, 2.0])
    missing = 10.0 - gain
    assert splits_left(depth, gain, missing) == pytest.approx(float(missing.mean()) / 2)
    assert splits_left(torch.zeros(2), torch.zeros(2), missing[:2]) == 0.0  # nothing is known yet
    assert splits_left(depth, torch.zeros(3), missing) == torch.inf


def test_a_subdomain_is_as_deep_as_it_was_split() -> None:
    log = grown([4])
    assert [log.depth(node) for node in range(9)] == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_search_whose_splits_gain_too_little_ends_before_neurons_are_tightened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stays open and says what it expected; it is tightened where there is hope."""
    tightenings = []

    def noted(net, settings):
        tightenings.append(net)
        return tightened(net, settings)

    monkeypatch.setattr(branching, "tightened", noted)
    asked, low, high, labels = _hard()
    for splits, is_tightened in ((0.5, False), (1e9, True)):
        budget = BranchBudget(200, tighten_after=40, hopeless_splits=splits)
        (found,) = asked.search("BaB", low, high, labels, budget)
        assert found.status == "open" and found.margins.min() < 0
        assert (found.num_subdomains < 100) == (not is_tightened)
        assert bool(tightenings) == is_tightened
        if not is_tightened:
            assert found.expected > 2.0**splits and found.splits_left > splits


def test_dives_end_where_splits_still_gain_too_little() -> None:
    """They need not come to their end, but twelve subdomains must be open."""
    asked, low, high, labels = _hard()
    spent = {}
    for splits in (0.5, 1e9):
        budget = BranchBudget(
            500, tighten_after=40, hopeless_splits=1e9, hopeless_dives=splits, patience=1e9
        )
        (found,) = asked.search("BaB", low, high, labels, budget)
        spent[splits] = found.num_subdomains
        if splits < 1:
            assert found.status == "open" and found.margins.min() < 0
            assert found.dive_splits_left > splits and found.expected > 2.0**splits
    assert 40 + branching.DIVE_WIDTH < spent[0.5] < 100 < spent[1e9]


def _hard() -> tuple[Prover, Tensor, Tensor, Tensor]:
    """A box that is far from a proof: who is asked, its corners, its label."""
    model = seeded(lambda: cnn(width=6, num_classes=4), 7)
    for parameter in model.parameters():
        parameter.data *= 2.0
    x, low, high = boxes((1, 8, 8), 0.5, num=1, seed=2)
    labels = model(x).argmax(dim=1)
    worst = BoundedModel(model, (1, 8, 8), 4).margins("CROWN", low, high, labels).min()
    model[-1].bias.data[labels] -= 0.4 * worst  # so that it is right, and hard to prove
    return Prover(model, (1, 8, 8), 4), low, high, labels


def test_a_search_without_dives_ends_where_its_subdomains_are_spent() -> None:
    """Also where they are spent to the last one."""
    net = seeded(
        lambda: nn.Sequential(nn.Flatten(), *_hidden(16), *_hidden(40), nn.Linear(40, 2)), 1
    )
    prover = Prover(net, (1, 4, 4), 2)
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    low, high, labels = (x - 0.2).clamp(0, 1), (x + 0.2).clamp(0, 1), net(x).argmax(dim=1)
    spent = set()
    for most in range(180, 220):
        budget = BranchBudget(
            max_subdomains=most, num_dives=0, hopeless_splits=1e9, tighten_after=2, clips=0
        )
        (found,) = prover.search("BaB", low, high, labels, budget)
        assert found.num_subdomains <= most
        if found.status == "open":
            spent.add(found.num_subdomains == most)
    assert True in spent


def _hidden(num: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(num, 40), nn.ReLU()
