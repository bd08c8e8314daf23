"""Removed weights stay exactly zero, whatever the optimiser remembers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.benchmark.network.compactness import sparsity

OPTIMISERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "sgd nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adam weight decay": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=1e-2),
}


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def _step(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    model(torch.ones(2, 1, 4, 4)).square().sum().backward()


def _half(model: nn.Module) -> Masks:
    return Masks({name: torch.rand(w.shape) < 0.5 for name, w in prunable_weights(model).items()})


@pytest.mark.parametrize("name", OPTIMISERS)
def test_masks_hold_though_the_optimiser_has_momentum_from_before_pruning(name: str) -> None:
    model = _model()
    optimiser = OPTIMISERS[name](list(model.parameters()))
    for _ in range(3):
        _step(model, optimiser)
        optimiser.step()
    masks = _half(model)
    bound = masks.bind(model)
    bound.zero_weights()
    for _ in range(5):
        _step(model, optimiser)
        bound.zero_gradients()
        optimiser.step()
        bound.zero_weights()
        for key, kept in masks.items():
            weight = dict(model.named_parameters())[key]
            assert not weight[~kept].any()
            assert not torch.signbit(weight[~kept]).any(), "a removed weight is -0"
            assert weight[kept].all()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_without_masks_the_same_optimiser_brings_weights_back(name: str) -> None:
    model = _model()
    optimiser = OPTIMISERS[name](list(model.parameters()))
    _step(model, optimiser)
    optimiser.step()
    masks = _half(model)
    masks.apply(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    revived = [dict(model.named_parameters())[key][~kept].any() for key, kept in masks.items()]
    assert any(revived)


def test_gradients_of_removed_weights_do_not_count_for_clipping() -> None:
    model = _model()
    masks = Masks({"3.weight": torch.zeros(3, 16, dtype=torch.bool)})
    _step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    masks.bind(model).zero_gradients()
    gradient = dict(model.named_parameters())["3.weight"].grad
    assert gradient is not None and not gradient.any()


def test_sparsity_counts_convolution_and_linear_weights_only() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight.fill_(1.0)  # type: ignore[operator, union-attr]
    assert sparsity(model) == 0.5


def test_a_mask_of_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(KeyError):
        Masks({"nothing.weight": torch.ones(1)}).bind(_model())
