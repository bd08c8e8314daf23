"""Cheaters and broken models, each caught by the name of the clause it breaks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.errors import ContractError
from benchmark.submission import check_contract
from benchmark.submission.contract import find_broken_clauses


def _linear(num_classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


class _Wrapped(nn.Module):
    """A linear model whose output a function changes."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change, self.calls = _linear(), change, 0

    def forward(self, x):
        self.calls += 1
        return self.change(self, x, self.linear(x))


def _is_grad(model, x, y):
    return y + 1.0 if x.requires_grad else y


CHEATERS = {
    "logits": lambda model, x, y: y.softmax(dim=1),
    "deterministic": lambda model, x, y: y + torch.rand(()) * 1e-3,
    "deterministic (calls)": lambda model, x, y: y + (model.calls > 1) * 0.1,
    "batch-independent": lambda model, x, y: y - y.mean(dim=0),
    "batch-independent (order)": lambda model, x, y: (
        y + 0.1 * torch.arange(len(y))[:, None] * (len(y) > 1)
    ),
    "grad-mode": _is_grad,
    "grad-mode (global)": lambda model, x, y: y + 1.0 if torch.is_grad_enabled() else y,
    "hooks": lambda model, x, y: y + 1.0 if model.linear._forward_hooks else y,
    "input-gradient": lambda model, x, y: y.detach(),
    "input-gradient (sqrt)": lambda model, x, y: y + (x.flatten(1).sum(1, True) * 0).sqrt(),
    "finite": lambda model, x, y: y * float("nan"),
    "finite (inf)": lambda model, x, y: y / 0,
    "output-dtype": lambda model, x, y: y.double(),
    "output-shape": lambda model, x, y: y[:, :7],
    "output-shape (tuple)": lambda model, x, y: (y, y),
    "runs": lambda model, x, y: y @ y,
    "runs (alone)": lambda model, x, y: y if len(y) > 1 else y @ y,
}


@pytest.mark.parametrize("name", CHEATERS)
def test_cheater_is_caught_by_name(name):
    model = _Wrapped(CHEATERS[name]).eval()
    with pytest.raises(ContractError) as caught:
        check_contract(model, torch.rand(4, 1, 8, 8), 10, path="cheater")
    assert any(
        fault.startswith(f"contract clause {name.split()[0]}:") for fault in caught.value.faults
    )
    assert str(caught.value).startswith("cheater: ")


def test_wrong_class_count_says_both():
    faults = find_broken_clauses(_linear(7).eval(), torch.rand(4, 1, 8, 8), 10)
    assert faults == ["contract clause output-shape: expected [4, 10], but found [4, 7]"]


def test_training_mode():
    (fault,) = find_broken_clauses(_linear(), torch.rand(4, 1, 8, 8), 10)
    assert fault.startswith("contract clause eval-mode")


def test_several_clauses_at_once():
    def change(model, x, y):
        return torch.rand_like(y).softmax(dim=1).detach()

    faults = find_broken_clauses(_Wrapped(change).eval(), torch.rand(4, 1, 8, 8), 10)
    names = {fault.split(":")[0].removeprefix("contract clause ") for fault in faults}
    assert {"logits", "deterministic", "batch-independent", "input-gradient"} <= names


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_honest_models_pass(scale):
    model = _linear().eval()
    with torch.no_grad():
        model[1].weight.mul_(scale)
    check_contract(model, torch.rand(4, 1, 8, 8), 10)


def test_constant_model_and_flat_gradient_are_within_the_contract():
    """Zero gradients are a health flag of the evaluation, not a breach of the contract."""
    model = _linear().eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.arange(10.0))
    check_contract(model, torch.rand(4, 1, 8, 8), 10)
