"""Certified and adversarial training of today, by closed forms."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines import procedure
from corobench.baselines.averaging import WeightAverage, estimate_norms
from corobench.baselines.first_weights import keep_widths
from corobench.baselines.masks import prunable_weights
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives import Moment
from corobench.baselines.objectives.crown_ibp import CrownIbp
from corobench.baselines.objectives.ibp import REST, Ibp, regularised
from corobench.baselines.objectives.inner import ascend
from corobench.baselines.objectives.mtl_ibp import MtlIbp
from corobench.baselines.objectives.n_fgsm import NFgsm
from corobench.baselines.objectives.pgd_at import PgdAt
from corobench.baselines.objectives.regularisers import explosion, imbalance
from corobench.baselines.objectives.sabr import Sabr, small_box
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.schedules import ramp
from corobench.benchmark.submission.architectures import Normalize, build

SHAPE, EPSILON = (1, 4, 4), 0.1


def _model(depth: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(16, 12)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(), nn.Linear(12, 12)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(12, 3))


def _linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def _batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return 0.3 + 0.4 * torch.rand(8, *SHAPE, generator=generator), torch.arange(8) % 3


def _moment(
    model: nn.Module, progress: float = 1.0, epsilon: float = EPSILON, num_classes: int = 3
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
        shrunk_margins=bounds.shrunk_margins,
    )


def _worst_loss(model: nn.Sequential, x: Tensor, labels: Tensor) -> float:
    """Exact for a linear model over the ball."""
    weight = model[1].weight
    logits = model(x)
    gap = (weight[labels][:, None] - weight[None]).abs().sum(dim=2)
    margins = logits.gather(1, labels[:, None]) - logits - EPSILON * gap
    return F.cross_entropy(-margins, labels).item()


@pytest.mark.parametrize("objective", [Sabr(share=0.25), Sabr(share=1.0), NFgsm(noise_rate=0.0)])
def test_on_a_linear_two_class_model_the_worst_case_is_reached(objective: Sabr | NFgsm) -> None:
    """The best corner of a smaller ball, and the box around it, end at the corner of the ball."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x, _ = _batch()
    labels = torch.arange(8) % 2
    bounds = LazyBounds(model, SHAPE, 2)
    moment = _moment(_linear())
    moment = Moment(
        EPSILON,
        1.0,
        moment.generator,
        bounds.lower_margins,
        bounds.upper_losses,
        bounds.relu_inputs,
    )
    loss = objective.loss(model, x, labels, moment).item()
    assert loss == pytest.approx(_worst_loss(model, x, labels), abs=1e-5)


def test_the_ends_of_mtl_ibp_are_interval_and_adversarial_training() -> None:
    model = _model()
    x, labels = _batch()
    interval = Ibp(kappa_end=0.0).loss(model, x, labels, _moment(model))
    assert torch.allclose(MtlIbp(share=1.0).loss(model, x, labels, _moment(model)), interval)
    attacked = MtlIbp(share=0.0).loss(model, x, labels, _moment(model))
    assert PgdAt(num_steps=8).loss(model, x, labels, _moment(model)) <= attacked + 1e-6
    mixed = MtlIbp(share=0.25).loss(model, x, labels, _moment(model))
    assert torch.allclose(mixed, 0.25 * interval + 0.75 * attacked)
    assert attacked < interval


def test_sabr_lies_between_an_attack_and_the_whole_box() -> None:
    model = _model()
    x, labels = _batch()
    interval = Ibp(kappa_end=0.0).loss(model, x, labels, _moment(model)).item()
    small = Sabr(share=0.1).loss(model, x, labels, _moment(model)).item()
    clean = F.cross_entropy(model(x), labels).item()
    assert clean < small < interval


def test_the_fused_loss_is_no_larger_than_that_of_intervals() -> None:
    model = _model(depth=3)
    x, labels = _batch()
    interval = Ibp(kappa_end=0.0).loss(model, x, labels, _moment(model)).item()
    settings = {"kappa_end": 0.0, "beta_end": 1.0}
    fused = CrownIbp(fusion=True, **settings).loss(model, x, labels, _moment(model)).item()
    by_class = CrownIbp(**settings).loss(model, x, labels, _moment(model)).item()
    assert by_class <= fused + 1e-5 and fused < interval
    half = CrownIbp(fusion=True, kappa_end=0.0, beta_end=0.5)
    loss = half.loss(model, x, labels, _moment(model)).item()
    assert loss == pytest.approx((fused + interval) / 2, abs=1e-5)


def test_explosion_counts_widths_beyond_twice_that_of_the_image() -> None:
    width = torch.full((2, 1, 2, 2), 0.2)
    zero = torch.zeros(2, 5)
    assert explosion(width, [(zero, zero + 0.4), (zero, zero + 0.1)]).item() == 0.0
    found = explosion(width, [(zero, zero + 0.8), (zero, zero + 0.1)])
    assert found.item() == pytest.approx((0.5 - 0.25) / 0.5 / 2)


def test_imbalance_is_none_where_both_sides_are_alike_and_full_where_one_is_empty() -> None:
    centre = torch.tensor([[3.0, -3.0], [1.0, -1.0]])
    assert imbalance([(centre - 0.1, centre + 0.1)]).item() == 0.0
    positive = centre.abs()
    assert imbalance([(positive - 0.1, positive + 0.1)]).item() == pytest.approx(2.0)


def test_both_sides_deviate_from_one_mean_of_the_layer() -> None:
    """Neurons that differ from each other and never from themselves have a variance."""
    centre = torch.tensor([[1.0, 5.0, -3.0, -3.0]]).expand(3, 4)  # mean 0: 26 against 18
    assert imbalance([(centre - 0.1, centre + 0.1)]).item() == 0.0
    centre = torch.tensor([[0.5, 9.5, -5.0, -5.0]]).expand(3, 4)  # 90.5 against 50: above a half
    assert imbalance([(centre - 0.1, centre + 0.1)]).item() == 0.0
    centre = torch.tensor([[1.0, 1.0, 13.0, -5.0, -5.0, -5.0]]).expand(3, 6)  # 171 against 75
    found = imbalance([(centre - 0.1, centre + 0.1)]).item()
    assert found == pytest.approx((0.5 - 75 / 171) / 0.5, abs=1e-5)


def test_widths_are_those_behind_a_normalisation() -> None:
    """A layer that keeps every value keeps every width, however the image was scaled."""
    shape, model = (1, 2, 2), nn.Sequential()
    model.append(Normalize([0.5], [0.1]))
    model.extend([nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)])
    nn.init.eye_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    bounds = LazyBounds(model, shape, 3)
    x, labels = torch.rand(6, *shape).mul(0.5).add(0.25), torch.arange(6) % 3
    generator = torch.Generator()
    parts = (bounds.lower_margins, bounds.upper_losses, bounds.relu_inputs)
    moment = Moment(EPSILON, 0.0, generator, *parts)
    corners = (x - EPSILON, x + EPSILON)
    moment.lower_margins(*corners, labels, "IBP")
    extra = regularised(torch.zeros(()), 1.0, model, corners, moment)
    assert extra.item() == pytest.approx(imbalance(moment.relu_inputs()).item(), abs=1e-5)


@pytest.mark.parametrize("objective", [Ibp, CrownIbp, Sabr, MtlIbp])
def test_regularisers_act_in_full_before_the_ramp(objective: type[Ibp | Sabr | MtlIbp]) -> None:
    """At radius 0 they judge tiny boxes; a linear layer has the ratios of larger ones."""
    model = _model(depth=1)
    with torch.no_grad():
        model[1].weight.mul_(3.0)
    x, labels = _batch()
    moment = _moment(model, progress=0.0, epsilon=0.0)
    plain = objective().loss(model, x, labels, moment).item()
    assert plain == pytest.approx(F.cross_entropy(model(x), labels).item(), abs=1e-6)
    more = objective(regulariser=0.5).loss(model, x, labels, moment).item()
    bounds = moment.relu_inputs()
    low, high = (x - REST).clamp(min=0.0), (x + REST).clamp(max=1.0)
    growth = (model[1].weight.abs().sum(dim=1).mean()).item()
    assert explosion(high - low, bounds).item() == pytest.approx((0.5 - 1 / growth) / 0.5, rel=0.02)
    terms = (explosion(high - low, bounds) + imbalance(bounds)).item()
    assert more - plain == pytest.approx(0.5 * terms, abs=1e-4)


def test_the_regularisers_of_mtl_ibp_are_no_part_of_its_share() -> None:
    model = _model()
    x, labels = _batch()
    settings = {"share": 0.01, "num_steps": 1}
    with_both, without = (
        MtlIbp(regulariser=weight, **settings).loss(model, x, labels, _moment(model, progress=0.5))
        for weight in (0.8, 0.0)
    )
    moment = _moment(model, progress=0.5)
    moment.lower_margins(*_corners(x), labels, "IBP")
    low, high = _corners(x)
    terms = explosion(high - low, moment.relu_inputs()) + imbalance(moment.relu_inputs())
    assert (with_both - without).item() == pytest.approx(0.4 * terms.item(), abs=1e-5)


def test_small_boxes_touch_the_found_image_and_stay_inside() -> None:
    low, high = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 0.4, 1.0])
    found = small_box(torch.tensor([1.0, 0.0, 0.5]), (low, high), 0.25)
    torch.testing.assert_close(found[0], torch.tensor([0.75, 0.0, 0.375]))
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0.1, 0.625]))


def test_relu_shrinkage_multiplies_the_upper_ends_of_unstable_relus() -> None:
    model = _model(depth=1)
    x, labels = _batch()
    moment = _moment(model)
    corners = _corners(x)
    interval = moment.lower_margins(*corners, labels, "IBP")
    found = moment.shrunk_margins(*corners, labels, 0.5)
    low, high = (one.flatten(1) for one in corners)
    radius = (high - low) / 2 @ model[1].weight.abs().T
    centre = model[1]((low + high) / 2)
    below, above = centre - radius, centre + radius
    unstable = (below < 0) & (above > 0)
    assert unstable.any()
    bottom, top = below.relu(), torch.where(unstable, 0.5 * above, above).relu()
    last = model[3]
    rows = last.weight[labels][:, None] - last.weight[None]
    middle = (rows * ((bottom + top) / 2)[:, None]).sum(-1)
    width = (rows.abs() * ((top - bottom) / 2)[:, None]).sum(-1)
    expected = middle - width + last.bias[labels][:, None] - last.bias[None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(moment.lower_margins(*corners, labels, "IBP"), interval)
    torch.testing.assert_close(moment.shrunk_margins(*corners, labels, 1.0), interval)
    shrunk = Sabr(share=1.0, relu_share=0.5).loss(model, x, labels, moment)
    assert shrunk.item() == pytest.approx(F.cross_entropy(-found, labels).item(), abs=1e-6)
    with pytest.raises(ValueError, match=r"`share` to be in \(0, 1\]"):
        moment.shrunk_margins(*corners, labels, 0.0)


def test_the_kept_iterate_is_the_worst_one() -> None:
    """Steps as long as the ball jump between its corners; the last one need not be the worst."""
    model = _model(depth=3)
    x, labels = _batch()

    def losses(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    start = x - 0.5 * EPSILON
    path = [start] + [ascend(model, x, start, losses, EPSILON, n, 0.15) for n in range(1, 6)]
    worst = torch.stack([losses(model(one)) for one in path]).amax(0)
    best = ascend(model, x, start, losses, EPSILON, 5, 0.15, keeps_best=True)
    torch.testing.assert_close(losses(model(best)), worst)


def test_regularisers_end_with_the_ramp() -> None:
    model = _model()
    x, labels = _batch()
    plain, more = Ibp(kappa_end=0.5), Ibp(kappa_end=0.5, regulariser=0.7)
    at_end = [one.loss(model, x, labels, _moment(model)).item() for one in (plain, more)]
    assert at_end[0] == at_end[1]
    moment = _moment(model, progress=0.5)
    before = [one.loss(model, x, labels, moment).item() for one in (plain, more)]
    moment.lower_margins(*_corners(x), labels, "IBP")
    bounds = moment.relu_inputs()
    low, high = _corners(x)
    terms = (explosion(high - low, bounds) + imbalance(bounds)).item()
    assert terms > 0.1
    assert before[1] - before[0] == pytest.approx(0.35 * terms, abs=1e-5)


def _corners(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x - EPSILON).clamp(min=0.0), (x + EPSILON).clamp(max=1.0)


def test_relu_inputs_are_those_of_the_last_bounds_from_the_first_layer_on() -> None:
    model = _model(depth=3)
    x, labels = _batch()
    moment = _moment(model)
    moment.upper_losses(*_corners(x), labels)
    bounds = moment.relu_inputs()
    assert len(bounds) == 3
    low, high = (one.flatten(1) for one in _corners(x))
    centre, radius = model[1]((low + high) / 2), (high - low) / 2 @ model[1].weight.abs().T
    torch.testing.assert_close(bounds[0][0], centre - radius, atol=1e-5, rtol=0)
    torch.testing.assert_close(bounds[0][1], centre + radius, atol=1e-5, rtol=0)


def test_label_smoothing_of_adversarial_training() -> None:
    model = _linear()
    x, labels = _batch()
    moment = _moment(model, epsilon=0.0)
    loss = PgdAt(label_smoothing=0.2).loss(model, x, labels, moment)
    logs = F.log_softmax(model(x), dim=1)
    expected = -(0.8 * logs.gather(1, labels[:, None])[:, 0] + 0.2 * logs.mean(dim=1)).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_average_of_weights_follows_the_recursion() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    expected = 0.0
    for step in range(1, 12):
        nn.init.constant_(model.weight, float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.in_place():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 11.0


def test_estimated_statistics_are_those_of_all_images() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    x = torch.rand(40, *SHAPE)
    model.eval()
    estimate_norms(model, x.split(10))
    inner = model[0](x)
    assert not model.training and model[1].momentum == 0.1
    torch.testing.assert_close(model[1].running_mean, inner.mean((0, 2, 3)), atol=1e-5, rtol=0)
    mean = torch.stack([part.var((0, 2, 3)) for part in inner.split(10)]).mean(0)
    torch.testing.assert_close(model[1].running_var, mean, atol=1e-5, rtol=0)


RECIPE = """
id = "tiny-cnn5"
title = "tiny"
method = "dense"
track = "digits"
epsilon = "1/16"
validation_rate = 0.9
validation_images = 60
[model]
architecture = "cnn5"
arguments = { width = 0.03125 }
init = "ibp"
[pretrain]
objective = { name = "crown-ibp", fusion = true, beta_end = 0.5, regulariser = 0.5 }
epochs = 4
batch_size = 32
l1 = 1e-5
averaging = 0.9
norm_batches = 2
optimiser = { lr = 0.01 }
ramp = { warmup_epochs = 1, epochs = 2 }
"""


def test_a_network_with_batch_norm_is_trained_and_resumed_to_the_same_weights(
    tmp_path: Path,
) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "tiny.toml")
    whole = procedure.run(recipe, tmp_path / "whole")
    assert whole.is_finished and whole.selected is not None
    assert whole.selected.bound is not None
    for _ in range(recipe.pretrain.epochs + 1):
        found = procedure.run(recipe, tmp_path / "slices", max_minutes=0.0)
        if found.is_finished:
            break
    name = "tiny-cnn5/model.safetensors"
    assert (tmp_path / "slices" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_interval_initialisation_keeps_the_width_of_intervals(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("0.03125", "1.0"))
    model = procedure.initial_model(load_recipe(tmp_path / "tiny.toml"))
    weight = max(prunable_weights(model).values(), key=torch.Tensor.numel)
    fan_in = weight[0].numel()
    # The mean magnitude of a normal variable is sqrt(2 / pi) of its deviation.
    assert weight.abs().mean().item() * fan_in == pytest.approx(2.0, rel=0.05)
    assert weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=0.05)


def test_interval_initialisation_leaves_the_last_layer_and_halves_behind_sums() -> None:
    torch.manual_seed(0)
    model = build("resnet8", (3, 32, 32), 10)
    last = model.linear.weight.clone()
    keep_widths(model)
    assert torch.equal(model.linear.weight, last)
    halved = {"stack2.conv1", "stack2.shortcut.0", "stack3.conv1", "stack3.shortcut.0"}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 * math.pi) / module.weight[0].numel()
            expected /= 2.0 if name in halved else 1.0
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15), name


def test_the_smooth_ramp_joins_a_power_and_a_line() -> None:
    """Continuous, of one slope where they meet, and slower than a line before the end."""
    points = [ramp(epoch / 1000, 0.0, 1.0, "smooth") for epoch in range(1001)]
    slopes = [after - before for before, after in pairwise(points)]
    assert points[0] == 0.0 and points[-1] == 1.0
    assert all(later >= former - 1e-12 for former, later in pairwise(slopes))
    assert slopes[249] == pytest.approx(slopes[250], rel=0.01)
    assert points[125] == pytest.approx(points[250] / 16)
    assert max(points[i] - i / 1000 for i in range(1001)) <= 1e-12
