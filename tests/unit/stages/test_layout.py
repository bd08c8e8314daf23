"""The layout that attacks search in changes how fast they are, not what counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks import autoattack, layout
from corobench.benchmark.attacks.base import Attack, Proposal
from corobench.benchmark.attacks.context import AttackContext, AttackSearch, Seats
from corobench.benchmark.attacks.guard import Guard
from corobench.benchmark.attacks.layout import laid_out


class _Viewing(nn.Module):
    """Relies on the order of values in memory, as `view` does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.inner(x_BCHW).view(len(x_BCHW), -1)


def test_the_copy_with_channels_last_computes_the_same_and_leaves_the_model_alone() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten()
    model = nn.Sequential(*layers).eval()
    x = torch.rand(2, 3, 8, 8)
    laid = laid_out(model, x)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in laid.modules())
    filters = [layer.weight for layer in laid.modules() if isinstance(layer, nn.Conv2d)]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in filters)
    assert not model[3].weight.is_contiguous(memory_format=torch.channels_last)
    many = torch.rand(2 * layout.IMAGES_AT_ONCE + 3, 3, 8, 8).requires_grad_()
    torch.testing.assert_close(laid(many), model(many))
    mine, others = (torch.autograd.grad(each(many).square().sum(), many) for each in (laid, model))
    torch.testing.assert_close(mine, others)


def test_a_model_that_expects_its_own_layout_keeps_it() -> None:
    model = _Viewing().eval()
    assert laid_out(model, torch.rand(2, 3, 8, 8)) is model


class _ByStrides(nn.Module):
    """Computes with the order of values in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        z = self.inner(x_BCHW)
        return z.as_strided((len(x_BCHW), 10), (z.stride(0), 1))


def test_a_copy_that_computes_something_else_is_not_used() -> None:
    torch.manual_seed(0)
    model = _ByStrides().eval()
    assert laid_out(model, torch.rand(2, 3, 8, 8)) is model


class _Noting(Attack):
    """Notes what it searches on; claims every image, and proposes what it is told to."""

    name = "noting"

    def __init__(self, *steps: float) -> None:
        self.steps = list(steps)
        self.asked: list[tuple[nn.Module, list[int]]] = []

    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        assert isinstance(model, Guard)
        self.asked.append((model.network, search.seats.taken_B.tolist()))
        assert search.is_laid_out == (len(self.asked) % 2 == 1 and layout.LARGE == 10)
        return Proposal(x_BCHW + self.steps.pop(0), [self.name] * len(x_BCHW))


@pytest.fixture
def model() -> nn.Module:
    """Class 1 for images brighter than a half, through a convolution."""
    filters, linear = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(16, 2)
    with torch.no_grad():
        filters.weight.fill_(1.0)
        linear.weight.copy_(torch.tensor([[-1.0], [1.0]]) / 16)
        linear.bias.copy_(torch.tensor([1.0, 0.0]))
    return nn.Sequential(filters, nn.Flatten(), linear).eval()


IMAGES = torch.tensor([0.45, 0.2])[:, None, None, None].expand(-1, 1, 4, 4).clone()
LABELS = torch.zeros(2, dtype=torch.int64)
EPSILON = Fraction(1, 10)


def test_a_large_network_is_searched_in_it_and_copied_once(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LARGE", 10)
    attack = _Noting(0.1, 0.0, 0.1, 0.0)
    for _ in range(2):
        attack.run(model, IMAGES, LABELS, EPSILON, seed=0)
    searched = [each for each, _ in attack.asked]
    assert searched[0] is searched[2] and searched[0] is not model
    assert searched[1] is model and searched[3] is model  # the second try, below


def test_a_claim_that_the_submitted_model_does_not_confirm_is_tried_on_the_network_as_it_was(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LARGE", 10)
    attack = _Noting(0.01, 0.1)
    seats = Seats(5, torch.tensor([1, 3]))
    result = attack.run(model, IMAGES, LABELS, EPSILON, seed=0, context=AttackContext(seats))
    assert [(each is model, rows) for each, rows in attack.asked] == [
        (False, [1, 3]),
        (True, [1, 3]),
    ]
    assert result.broken_B.tolist() == [True, False]
    assert result.flags == {"claim-not-confirmed"}  # of the second image


def test_a_small_network_is_searched_as_it_is(model: nn.Module) -> None:
    attack = _Noting(0.1)
    attack.run(model, IMAGES, LABELS, EPSILON, seed=0)
    assert [each for each, _ in attack.asked] == [model]


@pytest.mark.parametrize(("large", "expected"), [(10, True), (10**9, False)])
def test_fab_projects_without_sorting_in_it_only(
    large: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "LARGE", large)
    asked = []

    @contextlib.contextmanager
    def noting(is_on: bool) -> Iterator[None]:
        asked.append(is_on)
        yield

    monkeypatch.setattr(autoattack, "without_sorting", noting)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 21 * 21, 2)).eval()
    x = torch.rand(1, 1, 23, 23)
    attack = autoattack.AutoAttackStandard(2, square_queries=1)
    attack.run(model, x, model(x).argmax(dim=1), Fraction(1, 10**6), seed=0)
    assert asked and set(asked) == {expected}
