"""Objectives against closed forms: on linear models the worst case in the ball is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines.measures import LazyBounds, measure
from corobench.baselines.objectives import OBJECTIVES, Moment
from corobench.baselines.objectives.base import box
from corobench.baselines.objectives.crown_ibp import CrownIbp
from corobench.baselines.objectives.fast_at import FastAt
from corobench.baselines.objectives.ibp import Ibp
from corobench.baselines.objectives.inner import ascend, divergence, random_start
from corobench.baselines.objectives.mixtrain import MixTrain
from corobench.baselines.objectives.natural import Natural
from corobench.baselines.objectives.pgd_at import PgdAt
from corobench.baselines.objectives.trades import Trades

SHAPE = (1, 4, 4)
EPSILON = 0.1


def _linear(num_classes: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))


def _deep() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def _batch(num_classes: int, margin: float = 0.2) -> tuple[Tensor, Tensor]:
    """Images whose ball does not touch the box, so that closed forms hold exactly."""
    generator = torch.Generator().manual_seed(1)
    x = margin + (1 - 2 * margin) * torch.rand(8, *SHAPE, generator=generator)
    return x, torch.arange(8) % num_classes


def _moment(
    model: nn.Module, num_classes: int, epsilon: float = EPSILON, progress: float = 1.0
) -> Moment:
    bounds = LazyBounds(model, SHAPE, num_classes)
    bounds.build()
    return Moment(
        epsilon=epsilon,
        progress=progress,
        generator=torch.Generator().manual_seed(3),
        lower_margins=bounds.lower_margins,
        upper_losses=bounds.upper_losses,
        relu_inputs=bounds.relu_inputs,
    )


def _exact_margins(model: nn.Sequential, x: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Least margins of a linear model over the ball: the clean ones less epsilon * ||w||_1."""
    weight = model[1].weight
    logits = model(x)
    own = logits.gather(1, labels[:, None])
    differences = weight[labels][:, None] - weight[None]
    return own - logits - epsilon * differences.abs().sum(dim=2)


def _interval_margins(model: nn.Sequential, x: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """IBP by hand through Linear - ReLU - Linear, centre and radius, last layer elided."""
    lower, upper = box(x.flatten(1), epsilon)
    first, last = model[1], model[3]
    centre, radius = (lower + upper) / 2, (upper - lower) / 2
    centre, radius = first(centre), radius @ first.weight.abs().T
    lower, upper = (centre - radius).relu(), (centre + radius).relu()
    centre, radius = (lower + upper) / 2, (upper - lower) / 2
    differences = last.weight[labels][:, None] - last.weight[None]
    bias = last.bias[labels][:, None] - last.bias[None]
    middle = torch.einsum("bch,bh->bc", differences, centre) + bias
    return middle - torch.einsum("bch,bh->bc", differences.abs(), radius)


def test_natural_is_cross_entropy() -> None:
    model = _linear()
    x, labels = _batch(2)
    loss = Natural().loss(model, x, labels, _moment(model, 2))
    assert torch.equal(loss, F.cross_entropy(model(x), labels))


@pytest.mark.parametrize("objective", [PgdAt(num_steps=10), FastAt(step_rate=2.0)])
def test_adversarial_training_reaches_the_exact_worst_case(objective: PgdAt | FastAt) -> None:
    model = _linear()
    x, labels = _batch(2)
    loss = objective.loss(model, x, labels, _moment(model, 2))
    exact = F.cross_entropy(-_exact_margins(model, x, labels, EPSILON), labels)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)


def test_ascent_stays_in_the_ball_and_in_the_box() -> None:
    model = _deep()
    x = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(16) % 3
    start = random_start(x, EPSILON, torch.Generator().manual_seed(6))
    found = ascend(
        model, x, start, lambda z: F.cross_entropy(z, labels, reduction="sum"), EPSILON, 20, 0.05
    )
    for images in (start, found):
        assert (images - x).abs().max() <= EPSILON + 1e-6
        assert images.min() >= 0 and images.max() <= 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_attack_does_not_move_batch_norm_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2)).train()
    x, labels = _batch(2)
    before = model[0].running_mean.clone()  # type: ignore[operator, union-attr]
    ascend(model, x, x, lambda z: F.cross_entropy(z, labels, reduction="sum"), EPSILON, 3, 0.05)
    assert torch.equal(model[0].running_mean, before)  # type: ignore[arg-type]
    assert model.training


def test_a_share_of_clean_loss_is_mixed_in() -> None:
    model = _linear()
    x, labels = _batch(2)
    clean = F.cross_entropy(model(x), labels)
    exact = F.cross_entropy(-_exact_margins(model, x, labels, EPSILON), labels)
    loss = PgdAt(num_steps=10, clean_rate=0.25).loss(model, x, labels, _moment(model, 2))
    assert loss.item() == pytest.approx((0.25 * clean + 0.75 * exact).item(), abs=1e-5)


def test_trades_is_cross_entropy_plus_the_worst_divergence() -> None:
    model = _linear()
    x, labels = _batch(2)
    log_p = F.log_softmax(model(x), dim=1)
    # With two classes the divergence is convex in the logit difference, so its maximum over the
    # ball is at one of the two ends of that difference.
    swing = EPSILON * (model[1].weight[0] - model[1].weight[1]).abs().sum()
    shift = torch.stack([swing / 2, -swing / 2])
    ends = [divergence(log_p, F.log_softmax(model(x) + sign * shift, 1)) for sign in (1, -1)]
    exact = F.cross_entropy(model(x), labels) + 6.0 * torch.maximum(*ends).mean()
    loss = Trades(beta=6.0, num_steps=20).loss(model, x, labels, _moment(model, 2))
    clean = F.cross_entropy(model(x), labels)
    assert clean.item() < loss.item() <= exact.item() + 1e-5
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_ibp_is_exact_on_a_linear_model() -> None:
    model = _linear(3)
    x, labels = _batch(3)
    loss = Ibp(kappa_end=0.0).loss(model, x, labels, _moment(model, 3))
    exact = F.cross_entropy(-_exact_margins(model, x, labels, EPSILON), labels)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)


def test_ibp_equals_intervals_by_hand_and_so_does_its_gradient() -> None:
    model = _deep()
    x, labels = _batch(3, margin=0.0)
    moment = _moment(model, 3)
    verified = F.cross_entropy(-_interval_margins(model, x, labels, EPSILON), labels)
    expected = 0.25 * F.cross_entropy(model(x), labels) + 0.75 * verified
    loss = Ibp(kappa_end=0.25).loss(model, x, labels, moment)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters)
    by_hand = torch.autograd.grad(expected, parameters)
    for one, other in zip(found, by_hand, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_ibp_mixes_from_clean_to_verified_over_the_ramp() -> None:
    model = _deep()
    x, labels = _batch(3)
    clean = F.cross_entropy(model(x), labels).item()
    objective = Ibp(kappa_start=1.0, kappa_end=0.5)
    assert objective.loss(model, x, labels, _moment(model, 3, 0.0, 0.0)).item() == clean
    halfway = objective.loss(model, x, labels, _moment(model, 3, EPSILON / 2, 0.5)).item()
    margins = _interval_margins(model, x, labels, EPSILON / 2)
    expected = 0.75 * clean + 0.25 * F.cross_entropy(-margins, labels).item()
    assert halfway == pytest.approx(expected, abs=1e-5)


def test_crown_ibp_goes_from_crown_to_intervals() -> None:
    model = _deep()
    x, labels = _batch(3)
    bounds = LazyBounds(model, SHAPE, 3)
    corners = box(x, EPSILON)

    def loss(beta: float) -> float:
        objective = CrownIbp(kappa_end=0.0, beta_start=beta, beta_end=beta)
        return objective.loss(model, x, labels, _moment(model, 3)).item()

    crown = bounds.lower_margins(*corners, labels, "CROWN-IBP")
    interval = _interval_margins(model, x, labels, EPSILON)
    assert loss(1.0) == pytest.approx(F.cross_entropy(-crown, labels).item(), abs=1e-5)
    assert loss(0.0) == pytest.approx(F.cross_entropy(-interval, labels).item(), abs=1e-5)
    mixed = 0.25 * crown + 0.75 * interval
    assert loss(0.25) == pytest.approx(F.cross_entropy(-mixed, labels).item(), abs=1e-5)


def test_mixtrain_weights_clean_and_verified() -> None:
    model = _deep()
    x, labels = _batch(3)
    objective = MixTrain(verify_rate=1.0, num_samples=100, weight=3.0, bounds="IBP")
    clean = F.cross_entropy(model(x), labels)
    verified = F.cross_entropy(-_interval_margins(model, x, labels, EPSILON), labels)
    loss = objective.loss(model, x, labels, _moment(model, 3))
    assert loss.item() == pytest.approx((clean + 3.0 * verified).item(), abs=1e-5)
    start = objective.loss(model, x, labels, _moment(model, 3, 0.0, 0.0))
    assert start.item() == clean.item()


@pytest.mark.parametrize("name", sorted(n for n, c in OBJECTIVES.items() if not c.needs_teacher))
def test_every_objective_of_labels_lies_above_the_clean_loss_and_has_gradients(name: str) -> None:
    model = _deep()
    x, labels = _batch(3)
    objective = OBJECTIVES[name]()
    loss = objective.loss(model, x, labels, _moment(model, 3))
    loss.backward()
    assert loss.item() >= F.cross_entropy(model(x), labels).item() - 1e-6
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_held_out_measures_of_a_linear_model_are_exact() -> None:
    model = _linear(2)
    x, _ = _batch(2)
    labels = model(x).argmax(dim=1)
    labels[0] = 1 - labels[0]
    exact = _exact_margins(model, x, labels, EPSILON)
    others = exact.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    found = measure(model, x, labels, EPSILON, LazyBounds(model, SHAPE, 2))
    assert found.clean == 7 / 8
    assert found.bound == found.robust == (others > 0).float().mean().item()
    assert measure(model, x, labels, EPSILON, None).bound is None
