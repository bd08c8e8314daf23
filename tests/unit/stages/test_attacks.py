"""Attacks against the closed form of a linear model, and the referee against false claims."""

from fractions import Fraction

import pytest
import torch
from models import Saturated, exact_linear_margin
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard, PlainAutoAttack
from corobench.benchmark.attacks.base import Attack, Proposal
from corobench.benchmark.attacks.context import AttackContext, AttackSearch, Seats
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.referee import threat
from corobench.benchmark.referee.judge import is_wrong

EPSILON = Fraction(1, 16)


def _right(model: nn.Module, digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, y = digits
    right = ~is_wrong(model(x), y)
    return x[right], y[right]


@pytest.mark.parametrize("epsilon", [Fraction(1, 16), Fraction(2, 16)], ids=str)
def test_autoattack_breaks_exactly_what_can_be_broken(
    epsilon: Fraction, linear: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = _right(linear, digits)
    worst = exact_linear_margin(linear, x, y, epsilon)
    result = AutoAttackStandard(10, square_queries=50).run(linear, x, y, epsilon, seed=0)
    clear = worst.abs() > 1e-4
    assert torch.equal(result.broken_B[clear], worst[clear] < 0)
    assert 0 < int(result.broken_B.sum()) < len(x)
    broken = result.broken_B
    assert threat.is_within(result.adversarial_BCHW[broken], x[broken], epsilon).all()
    assert is_wrong(linear(result.adversarial_BCHW[broken]), y[broken]).all()
    assert [bool(name) for name in result.attack_names] == broken.tolist()


def test_pgd_breaks_nothing_that_holds_and_most_of_what_does_not(
    linear: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = _right(linear, digits)
    worst = exact_linear_margin(linear, x, y, Fraction(2, 16))
    broken = PGD(steps=50, restarts=2).run(linear, x, y, Fraction(2, 16), seed=0).broken_B
    assert not broken[worst > 1e-4].any()
    # Sign steps on the cross-entropy stop short of some corners of ten classes: that is why
    # the upper end of the bracket is AutoAttack's.
    assert broken[worst < 0].float().mean() > 0.7


def test_pgd_is_exact_with_two_classes(digits: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    x = digits[0]
    y = model(x).argmax(dim=1)
    worst = exact_linear_margin(model, x, y, EPSILON)
    broken = PGD(steps=20, restarts=1).run(model, x, y, EPSILON, seed=0).broken_B
    clear = worst.abs() > 1e-4
    assert torch.equal(broken[clear], worst[clear] < 0)
    assert broken.any()
    assert not broken.all()


def test_same_seed_same_images_other_seed_other_images(
    linear: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = _right(linear, digits)
    first, again, other = (PGD(5, 1).run(linear, x, y, EPSILON, seed) for seed in (3, 3, 4))
    assert torch.equal(first.adversarial_BCHW, again.adversarial_BCHW)
    assert not torch.equal(first.adversarial_BCHW, other.adversarial_BCHW)


def test_autoattack_equals_calling_the_package_directly(
    linear: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    import pyautoattack

    x, y = digits
    direct = pyautoattack.AutoAttack(linear, eps=float(EPSILON), seed=7)
    direct.square.n_queries = 50
    images, _ = direct.run_standard_evaluation(x, y, batch_size=100)
    robust = ~is_wrong(linear(images), y)
    right = ~is_wrong(linear(x), y)
    ours = AutoAttackStandard(10, square_queries=50).run(linear, x[right], y[right], EPSILON, 7)
    assert torch.equal(~ours.broken_B, robust[right])


class _NeverSearched(nn.Module):
    def forward(self, x_BCHW: Tensor) -> Tensor:
        raise AssertionError("another network than the submitted one was searched on")


def test_plain_autoattack_is_the_package_alone(
    linear: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    """The very images that the package makes: no seat, no other network, no changed part."""
    import pyautoattack

    x, y = _right(linear, digits)
    direct = pyautoattack.AutoAttack(linear, eps=float(EPSILON), seed=7)
    direct.square.n_queries = 50
    images, _ = direct.run_standard_evaluation(x, y, batch_size=100)
    context = AttackContext(Seats(2 * len(x), torch.arange(len(x))), network=_NeverSearched())
    ours = PlainAutoAttack(10, square_queries=50).run(linear, x, y, EPSILON, 7, context)
    broken = is_wrong(linear(images), y)
    assert torch.equal(ours.broken_B, broken) and broken.any()
    assert torch.equal(ours.adversarial_BCHW[broken], images[broken])


def test_autoattack_leaves_the_global_random_stream_alone(
    linear: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = _right(linear, digits)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    AutoAttackStandard(10, square_queries=5).run(linear, x[:4], y[:4], EPSILON, 0)
    assert torch.equal(torch.rand(3), expected)


def test_targets_are_sized_to_the_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    suite = AutoAttackStandard(5).build(model, EPSILON, 0, torch.device("cpu"))
    assert suite.apgd_targeted.n_target_classes == suite.fab.n_target_classes == 4
    assert suite.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]


def test_few_classes_run_without_the_targeted_dlr_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    x = torch.rand(6, 1, 8, 8)
    result = AutoAttackStandard(3, square_queries=10).run(
        model, x, model(x).argmax(1), Fraction(1, 2), 0
    )
    assert result.broken_B.any()
    assert "few-classes" not in result.flags


def test_vanishing_gradient_is_flagged(linear: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = _right(linear, digits)
    assert "zero-gradient" in PGD(3, 1).run(Saturated(linear), x, y, EPSILON, 0).flags
    suite = AutoAttackStandard(10, square_queries=200)
    flags = suite.run(Saturated(linear), x, y, Fraction(2, 16), 0).flags
    assert "zero-gradient" in flags
    assert "square-helps" in flags


class _Liar(Attack):
    """Claims every image, with images far outside the ball, NaN, or no change at all."""

    name = "liar"

    def propose(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        y_B: Tensor,
        epsilon: Fraction,
        seed: int,
        search: AttackSearch,
    ) -> Proposal:
        claimed = x_BCHW.clone()
        claimed[0] = float("nan")
        return Proposal(claimed, ["liar"] * len(x_BCHW))


def test_the_referee_believes_no_claim(linear: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = _right(linear, digits)
    result = _Liar().run(linear, x, y, EPSILON, seed=0)
    assert not result.broken_B.any()
    assert result.flags == {"claim-not-confirmed"}
    assert set(result.attack_names) == {""}
