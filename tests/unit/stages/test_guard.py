"""Gradients and logits that are not finite: seen on every image, and no attack is fooled.

The networks are affine, so that what can be broken in the ball is known exactly, times a factor
that is 1 (or plus a term that is 0) everywhere, whose gradient is not finite somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.context import AttackSearch, Seats
from corobench.benchmark.attacks.guard import GRADIENT, LOGITS, Guard
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.referee.judge import is_wrong
from tests.models import exact_linear_margin

EPSILON, LARGER = Fraction(1, 16), Fraction(1, 8)
TINY = 1e-39  # float32 holds it, and neither its square nor its inverse


class Poisoned(nn.Module):
    """A network whose logits another function of the image and the logits takes the place of."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.inner, self.change = inner, change
        self.register_buffer("tiny", torch.tensor(TINY))

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x, self.inner(x), self.tiny)


class _NoSlope(torch.autograd.Function):
    """The identity, with a gradient of NaN in every number format."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def _one(x: Tensor, tiny: Tensor) -> Tensor:
    """Exactly 1 per image; in float32 its gradient is inf - inf where x is not 0."""
    v = x.flatten(1).mean(dim=1, keepdim=True) * tiny + tiny
    return v / v


def _off_grid(x: Tensor) -> Tensor:
    """How far values are from the whole steps that clean images have, (B, 1); 0 for clean ones."""
    return ((16 * x) - (16 * x).round()).abs().flatten(1).amax(dim=1, keepdim=True)


def _bright(x: Tensor) -> Tensor:
    """Above 0 for some images only, (B, 1)."""
    return (x[:, 0, 4, 3:4] - 0.7).relu()


POISONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "everywhere": lambda x, z, tiny: z * _one(x, tiny),
    "some pixels": lambda x, z, tiny: z * _one(x[:, :, 3:5, 3:5], tiny),
    "some images": lambda x, z, tiny: z * _one(_bright(x), tiny),
    "inside the ball only": lambda x, z, tiny: z * _one((_off_grid(x) - 0.01).relu(), tiny),
    "infinite": lambda x, z, tiny: z + 1e-30 * x[:, 0, :, :2].sqrt().sum(dim=(1, 2))[:, None],
    "0/0 of a root": lambda x, z, tiny: z + 0 * x[:, 0, :, :2].sqrt().sum(dim=(1, 2))[:, None],
    "overflow on the only way": lambda x, z, tiny: (z / 64 * tiny) / tiny * 64,
    "norm of nothing": lambda x, z, tiny: z * (1 + 0 * (x * 0).flatten(1).sum(1, True).sqrt()),
}


@pytest.fixture(scope="module")
def right(linear: nn.Module, digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Images that the plain network gets right, and labels."""
    x, y = digits
    rows = torch.nonzero(~is_wrong(linear(x), y))[:60, 0]
    return x[rows], y[rows]


def _attacks() -> list[object]:
    return [
        pytest.param(PGD(20, restarts=1), id="pgd"),
        pytest.param(
            AutoAttackStandard(10, square_queries=20), id="autoattack", marks=pytest.mark.slow
        ),
    ]


@pytest.mark.parametrize("name", POISONS)
def test_pgd_breaks_what_can_be_broken_and_says_why_it_was_hard(name, linear, right):
    x, y = right
    model = Poisoned(linear, POISONS[name]).eval()
    assert not is_wrong(model(x), y).any()
    can_be_broken = exact_linear_margin(linear, x, y, LARGER) <= 0
    assert 10 < can_be_broken.sum() < 50
    found = PGD(20, restarts=2).run(model, x, y, LARGER, seed=0)
    assert GRADIENT in found.flags and found.flagged[GRADIENT].any()
    assert torch.equal(found.broken_B, PGD(20, restarts=2).run(linear, x, y, LARGER, 0).broken_B)
    assert not (found.broken_B & ~can_be_broken).any()


def test_images_are_counted_where_it_happens(linear, right):
    x, y = right
    found = PGD(10, restarts=1).run(Poisoned(linear, POISONS["some images"]), x, y, EPSILON, 0)
    is_near = x[:, 0, 4, 3] + float(EPSILON) > 0.7
    is_far = x[:, 0, 4, 3] - float(EPSILON) > 0.7
    assert is_far.any() and (~is_near).any()
    assert not (found.flagged[GRADIENT] & ~is_near).any()
    assert found.flagged[GRADIENT][is_far].all()


def test_a_network_without_any_gradient_is_still_pushed(linear, right):
    """Nothing is left to mend: differences tell the way, and not exactly."""
    x, y = right
    model = Poisoned(linear, lambda x, z, tiny: _NoSlope.apply(z))
    can_be_broken = exact_linear_margin(linear, x, y, LARGER) <= 0
    found = PGD(20, restarts=1).run(model, x, y, LARGER, seed=0)
    assert GRADIENT in found.flags
    assert not (found.broken_B & ~can_be_broken).any()
    assert found.broken_B.sum() >= 0.8 * can_be_broken.sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["everywhere", "some images", "overflow on the only way"])
def test_autoattack_is_not_fooled_either(name, linear, right):
    x, y = (part[:20] for part in right)
    expected = AutoAttackStandard(10, square_queries=1).run(linear, x, y, EPSILON, 0)
    found = AutoAttackStandard(10, square_queries=1).run(
        Poisoned(linear, POISONS[name]).eval(), x, y, EPSILON, 0
    )
    assert 0 < expected.broken_B.sum() < 20
    assert torch.equal(found.broken_B, expected.broken_B)
    assert GRADIENT in found.flags and GRADIENT not in expected.flags


NOT_FINITE = {
    "nan": lambda x, z, tiny: z * ((0.3 - _off_grid(x)).relu() / (0.3 - _off_grid(x)).relu()),
    "inf": lambda x, z, tiny: z / (_off_grid(x) < 0.3),
    "inf at the answer": lambda x, z, tiny: torch.where(
        (z == z.amax(dim=1, keepdim=True)) & (_off_grid(x) > 0.3), float("inf"), z
    ),
    "minus inf at others": lambda x, z, tiny: torch.where(
        (z < z.amax(dim=1, keepdim=True)) & (_off_grid(x) > 0.3), float("-inf"), z
    ),
}


@pytest.mark.parametrize("name", NOT_FINITE)
@pytest.mark.parametrize("attack", _attacks())
def test_logits_that_are_not_finite_hide_nothing(attack, name, linear, right):
    """The clean images have finite logits; next to each are points without an answer."""
    x, y = (part[:5] for part in right)
    model = Poisoned(linear, NOT_FINITE[name]).eval()
    assert torch.isfinite(model(x)).all() and not is_wrong(model(x), y).any()
    found = attack.run(model, x, y, EPSILON, seed=0)
    assert found.broken_B.all()
    assert LOGITS in found.flags


def test_differences_too_large_for_float32_are_named(linear, right):
    x, y = right
    model = Poisoned(linear, lambda x, z, tiny: z * (3e38 / z.abs().amax(dim=1, keepdim=True)))
    assert torch.isfinite(model(x)).all()
    assert LOGITS in PGD(3, restarts=1).run(model, x, y, EPSILON, 0).flags


@pytest.mark.parametrize("attack", _attacks())
def test_finite_networks_are_attacked_bit_for_bit_as_without_a_guard(attack, right):
    x, y = (part[:20] for part in right)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    y = model(x).argmax(dim=1)
    broken = False
    for part in attack.stages:
        search = AttackSearch(Seats.all(len(x)), part=part)
        plain = attack.propose(model, x, y, EPSILON, 7, search)
        guard = Guard(model, x, y, EPSILON)
        watched = attack.propose(guard, x, y, EPSILON, 7, search)
        assert torch.equal(plain.adversarial_BCHW, watched.adversarial_BCHW)
        assert plain.attack_names == watched.attack_names and plain.flags == watched.flags
        assert guard.flagged() == {} and guard.met == {}
        broken |= any(plain.attack_names)
    assert broken


def test_gradients_of_finite_networks_are_the_same_object_of_values(linear, right):
    x, y = right
    found = []
    for network in (linear, Guard(linear, x, y, EPSILON)):
        inputs = x.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(network(inputs), y)
        found.append(torch.autograd.grad(loss, inputs)[0])
    assert torch.equal(*found)


def test_one_image_without_a_gradient_leaves_the_others_as_they_are(linear, right):
    x, y = right
    model = Poisoned(linear, POISONS["some images"])
    inputs = x.clone().requires_grad_(True)
    guard = Guard(model, x, y, EPSILON)
    (found,) = torch.autograd.grad(nn.functional.cross_entropy(guard(inputs), y), inputs)
    (exact,) = torch.autograd.grad(nn.functional.cross_entropy(linear(inputs), y), inputs)
    is_poisoned = x[:, 0, 4, 3] > 0.7
    assert torch.equal(guard.seen_2B[0], is_poisoned) and is_poisoned.any()
    assert torch.equal(found[~is_poisoned], exact[~is_poisoned])
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-9)
