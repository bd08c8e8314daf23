"""HARP: rates by layer follow their gradients, pay for the budget, and meet it in the end."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners import PRUNERS, PruneContext
from corobench.baselines.pruners.harp import Harp, LearnedRates
from corobench.baselines.pruners.hydra import Hydra
from corobench.benchmark.network.compactness import sparsity

NUMEL = {"a": 400, "b": 100}


def _rates(gamma: float = 1.0, start: float = 0.2) -> LearnedRates:
    return LearnedRates(NUMEL, NUMEL, Fraction(1, 5), start, 0.1, gamma)


def _context(model: nn.Module, weight_of_second: float = 1.0) -> PruneContext:
    """Both layers add up to the sum of the image; what is missing of either is the loss."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(8):
            yield torch.ones(4, 20), torch.zeros(4, dtype=torch.int64)

    def loss(x: Tensor, _: Tensor) -> Tensor:
        first, second = model(x)
        return -first.mean() - weight_of_second * second.mean()

    return PruneContext(Masks(), torch.Generator().manual_seed(0), loss, batches)


class _Two(nn.Module):
    """Two layers side by side, of positive weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 20, bias=False), nn.Linear(20, 20, bias=False)
        torch.manual_seed(0)
        for layer in (self.first, self.second):
            nn.init.uniform_(layer.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(x)


def test_the_gradient_of_a_rate_is_that_of_the_formula() -> None:
    """Against automatic differentiation of loss * k + gamma * max(0, kept / allowed - 1)."""
    rates = _rates(gamma=0.7, start=0.4)
    rates.end_epoch()  # over the budget: the price is doubled
    rates.follow({"a": -0.3, "b": 0.2})
    scores = {name: one.clone().requires_grad_() for name, one in rates._scores.items()}
    k = {name: 0.02 + 0.98 * torch.sigmoid(one) for name, one in scores.items()}
    kept = sum(NUMEL[name] * k[name] for name in NUMEL) / 100
    loss = -0.3 * k["a"] + 0.2 * k["b"] + 2 * 0.7 * torch.relu(kept - 1)
    loss.backward()
    for name, score in scores.items():
        assert rates._scores[name].grad.item() == pytest.approx(score.grad.item(), rel=1e-9)


def test_no_price_within_the_budget_and_none_rising_after_it() -> None:
    rates = _rates(start=0.2)
    assert rates.excess() == pytest.approx(0.0, abs=1e-12)
    for _ in range(3):
        rates.end_epoch()
    for score in rates.parameters:
        score.fill_(2.0)
    assert rates.excess() > 3
    rates.follow({"a": 0.0, "b": 0.0})
    share = torch.sigmoid(torch.tensor(2.0, dtype=torch.float64))
    expected = 0.98 * share * (1 - share) * 400 / 100  # gamma is still that of the first epoch
    assert rates._scores["a"].grad.item() == pytest.approx(expected.item())


def test_learned_rates_meet_the_budget_by_one_factor() -> None:
    rates = _rates()
    rates._scores["a"].fill_(-2.0)
    rates._scores["b"].fill_(0.0)
    ratio = rates.rate("a") * 400 / (rates.rate("b") * 100)
    found = {name: NUMEL[name] - removed for name, removed in rates.found().items()}
    assert sum(found.values()) == 100
    assert found["a"] / found["b"] == pytest.approx(ratio, rel=0.05)
    rates._scores["b"].fill_(9.0)
    rates._scores["a"].fill_(-30.0)
    found = {name: NUMEL[name] - removed for name, removed in rates.found().items()}
    assert sum(found.values()) == 100 and found["a"] > 0  # no layer keeps more than it has


@pytest.mark.parametrize("keep_ratio", [0.5, 0.1, 0.03])
def test_the_kept_total_is_exact(keep_ratio: float) -> None:
    model = _Two()
    masks = Harp(epochs=2, gamma=0.1).masks(model, keep_ratio, _context(model))
    masks.apply(model)
    assert sparsity(model) == pytest.approx(1 - keep_ratio, abs=1e-9)


def test_the_layer_that_matters_keeps_more() -> None:
    model = _Two()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    masks = Harp(epochs=4, gamma=0.5, lr=0.5).masks(model, 0.25, _context(model, 0.02))
    first, second = (int(masks[f"{name}.weight"].sum()) for name in ("first", "second"))
    assert first > 1.5 * second and first + second == 200
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    # Within a layer the order is that of the scores, which here all rise alike: of the weights.
    weight = prunable_weights(model)["first.weight"]
    kept = masks["first.weight"]
    assert weight[kept].min() >= weight[~kept].max() - 0.3


def test_rates_that_cannot_move_are_hydra() -> None:
    """In layers of one size and shape, with a learning rate of almost nothing."""
    model = _Two()
    settings = {"epochs": 1, "lr": 1e-9}
    harp = Harp(**settings).masks(model, 0.2, _context(model))
    hydra = Hydra(**settings).masks(model, 0.2, _context(model))
    assert all(torch.equal(harp[name], hydra[name]) for name in hydra)


def test_later_rounds_bring_nothing_back() -> None:
    model = _Two()
    context = _context(model)
    first = Harp(epochs=1).masks(model, 0.4, context)
    first.apply(model)
    later = PruneContext(first, context.generator, context.loss, context.batches)
    second = Harp(epochs=1).masks(model, 0.2, later)
    assert all(bool((~second[name] | first[name]).all()) for name in first)
    assert sum(int(mask.sum()) for mask in second.values()) == 160


def test_it_is_chosen_by_name_and_shares_nothing_out_by_itself() -> None:
    assert PRUNERS["harp"] is Harp and Harp(epochs=3).num_epochs == 3
    with pytest.raises(ValueError, match="decides itself how much each layer keeps"):
        Harp(distribution="erk")
