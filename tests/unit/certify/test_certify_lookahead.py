"""Splits are chosen by what their halves gain once they are bounded."""

from __future__ import annotations

import pytest
import torch
from certify_nets import boxes, cnn, relu_bounds, seeded
from torch import Tensor, nn

from corobench.benchmark.certify import BoundedModel, BranchBudget, Prover
from corobench.benchmark.certify.bab import branching
from corobench.benchmark.certify.bab import lookahead as module
from corobench.benchmark.certify.bab.lagrangian import Relaxation, optimise, roots
from corobench.benchmark.certify.bab.lookahead import Lookahead
from corobench.benchmark.certify.bab.reduced import ReducedNet, reduce_net
from corobench.benchmark.certify.bab.split_choice import split
from corobench.benchmark.network.prepare import prepare


def separate(weights: list[float]) -> ReducedNet:
    """margin = 1 - sum w_i relu(x_i) on [-1, 1] per input: every neuron has a part of its own."""
    num = len(weights)
    hidden, last = nn.Linear(num, num), nn.Linear(num, 2)
    with torch.no_grad():
        hidden.weight.copy_(torch.eye(num))
        hidden.bias.zero_()
        last.weight.zero_()
        last.weight[1] = torch.tensor(weights)
        last.bias.copy_(torch.tensor([1.0, 0.0]))
    net = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), last).requires_grad_(False)
    low, high = -torch.ones(1, 1, num), torch.ones(1, 1, num)
    bounds = [(torch.full((num,), -1.0), torch.ones(num))]
    return reduce_net(net.eval(), low, high, bounds, torch.tensor([[1.0, -1.0]]))


def chosen(net: ReducedNet, budget: BranchBudget, signs: dict[int, float] | None = None) -> int:
    """Where the root, or the half of it with some signs, is split."""
    relaxation = Relaxation(net)
    root = roots(net, torch.tensor([0]))
    for neuron, sign in (signs or {}).items():
        (root.low_NB if sign > 0 else root.high_NB)[neuron] = 0.0
    optimise(relaxation, root, budget.root, 10.0)
    lookahead = Lookahead(relaxation, None, budget, 10.0)
    return int(lookahead.choose(root, relaxation.backward(root)))


@pytest.mark.parametrize("num_lookahead", [1, 2, 4, 100])
def test_the_neuron_that_loses_most_is_split(num_lookahead: int) -> None:
    """Where neurons do not depend on each other, a split gains exactly half of the weight in the
    half where the neuron passes nothing, and the relaxation loses as much at the middle."""
    budget = BranchBudget(num_lookahead=num_lookahead)
    net = separate([0.5, 4.0, 1.0, 2.0])
    assert chosen(net, budget) == 1
    assert chosen(net, budget, {1: 1.0}) == 3
    assert chosen(net, budget, {1: -1.0, 3: 1.0}) == 2


def test_a_neuron_without_any_loss_is_split_if_no_other_is_free() -> None:
    """Its coefficient is 0, so nothing is tried; the search goes on all the same."""
    assert chosen(separate([0.0, 0.0]), BranchBudget(), {0: 1.0}) == 1


def test_one_neuron_is_enough() -> None:
    assert chosen(separate([3.0]), BranchBudget(num_lookahead=4)) == 0


def test_the_choice_has_the_larger_product_of_gains() -> None:
    """Of all neurons that are tried, by bounds computed here."""
    budget = BranchBudget(num_lookahead=1000)
    model = seeded(lambda: cnn(width=4, num_classes=4), 7).requires_grad_(False)
    _, low, high = boxes((1, 8, 8), 0.2, num=1, seed=2)
    net = hidden_net(model, low, high)
    relaxation = Relaxation(net)
    root = roots(net, torch.tensor([0]))
    optimise(relaxation, root, budget.root, 10.0)
    found = relaxation.backward(root)
    neuron = int(Lookahead(relaxation, None, budget, 10.0).choose(root, found))

    def product(one: int) -> float:
        halves = split(root.take(slice(0, 1)), torch.tensor([one]))
        optimise(relaxation, halves, budget.leaf, 10.0)
        first, second = (halves.bound_B - root.bound_B).clamp(min=0).tolist()
        return first * second

    best = max(product(one) for one in range(net.num_unstable))
    assert best > 0 and product(neuron) == pytest.approx(best, rel=1e-3)


def hidden_net(model: nn.Module, low: Tensor, high: Tensor) -> ReducedNet:
    """The net with the bounds of CROWN."""
    bounds = relu_bounds(model, low, high)
    spec = torch.eye(4)[:1] - torch.eye(4)[1:2]
    with torch.no_grad():
        return reduce_net(prepare(model, (1, 8, 8)), low[0], high[0], bounds, spec)


def test_what_gained_before_is_tried_again_in_the_same_tree(monkeypatch) -> None:
    """Though its upper relaxation hardly loses any more; another tree knows nothing of it."""
    tried: list[set[int]] = []

    def noted(subdomains, neurons):
        tried.append(set(neurons.tolist()))
        return split(subdomains, neurons)

    monkeypatch.setattr(module, "split", noted)
    budget, net = BranchBudget(num_lookahead=2), separate([0.5, 4.0, 1.0, 2.0])
    relaxation = Relaxation(net)
    root, below = (roots(net, torch.tensor([0])) for _ in range(2))
    below.low_NB[1] = 0.0
    below.low_NB[3] = -0.01
    for subdomains in (root, below):
        optimise(relaxation, subdomains, budget.root, 10.0)
    same, other = (Lookahead(relaxation, None, budget, 10.0) for _ in range(2))
    same.choose(root, relaxation.backward(root))
    same.choose(below, relaxation.backward(below))
    other.choose(below, relaxation.backward(below))
    assert tried == [{1, 3}, {3, 2}, {2, 0}]


def test_halves_are_bounded_under_the_threshold() -> None:
    """A half in which no image is left gains all that is missing."""

    class Emptied:
        """Finds that no image is left where neuron 2 has a sign."""

        def clip(self, subdomains, found):
            has_sign = (subdomains.low_NB[2] >= 0) | (subdomains.high_NB[2] <= 0)
            subdomains.low_NB[0, has_sign] = 1.0
            subdomains.high_NB[0, has_sign] = -1.0

    budget, net = BranchBudget(), separate([0.5, 4.0, 1.0, 2.0])
    relaxation = Relaxation(net)
    root = roots(net, torch.tensor([0]))
    optimise(relaxation, root, budget.root, 10.0)
    lookahead = Lookahead(relaxation, Emptied(), budget, 10.0)
    assert int(lookahead.choose(root, relaxation.backward(root))) == 2


def test_every_tree_has_a_memory_of_its_own(monkeypatch) -> None:
    seen: dict[int, set[int]] = {}

    class Noted(Lookahead):
        def choose(self, subdomains, found):
            seen.setdefault(id(self), set()).update(subdomains.margin_B.tolist())
            trees.append(self)  # so that no other gets its id
            return super().choose(subdomains, found)

    trees: list[Noted] = []
    monkeypatch.setattr(branching, "Lookahead", Noted)
    model = seeded(lambda: cnn(width=6, num_classes=4), 0)
    for parameter in model.parameters():
        parameter.data *= 1.5
    x, low, high = boxes((1, 8, 8), 0.3, num=1, seed=0)
    labels = model(x).argmax(dim=1)
    margins = BoundedModel(model, (1, 8, 8), 4).margins("CROWN", low, high, labels)[0]
    others = torch.tensor([one for one in range(4) if one != int(labels)])
    model[-1].bias.data[others] += 0.5 * margins
    budget = BranchBudget(3000, tighten_after=4, hopeless_splits=1e9, hopeless_dives=1e9)
    (found,) = Prover(model, (1, 8, 8), 4).search("BaB", low, high, labels, budget)
    assert found.status == "certified"
    assert len(seen) > 1 and all(len(margins) == 1 for margins in seen.values())


def test_trees_have_fewer_subdomains() -> None:
    """Of five networks that need 20 to 1300 of them."""
    spent = {0: [], 4: []}
    for seed in range(5):
        model = seeded(lambda: cnn(width=6, num_classes=4), seed)
        for parameter in model.parameters():
            parameter.data *= 1.5
        x, low, high = boxes((1, 8, 8), 0.3, num=1, seed=seed)
        labels = model(x).argmax(dim=1)
        worst = BoundedModel(model, (1, 8, 8), 4).margins("CROWN", low, high, labels).min()
        model[-1].bias.data[labels] -= 0.3 * worst
        for num_lookahead, numbers in spent.items():
            budget = BranchBudget(
                3000,
                tighten_after=4,
                num_lookahead=num_lookahead,
                hopeless_splits=1e9,
                hopeless_dives=1e9,
                patience=1e9,
            )
            (found,) = Prover(model, (1, 8, 8), 4).search("BaB", low, high, labels, budget)
            assert found.status == "certified"
            numbers.append(found.num_subdomains)
    assert sum(spent[4]) < 0.9 * sum(spent[0]), spent


def test_a_small_budget_does_not_look_ahead() -> None:
    """The protocol's searches stay as they are."""
    assert not BranchBudget(500).looks_ahead
    assert BranchBudget(501).looks_ahead
    assert BranchBudget(500, lookahead_above=0).looks_ahead
    assert not BranchBudget(501, num_lookahead=0).looks_ahead
    assert BranchBudget(501, num_lookahead=0).is_large


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_lookahead` to be at least 0, but got -1"):
        BranchBudget(num_lookahead=-1)
