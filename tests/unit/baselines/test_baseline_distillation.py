"""Learning from the dense parent: closed forms of both losses, and who the teacher is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_recipes import DENSE
from torch import Tensor, nn

from corobench.baselines import procedure
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives import Moment
from corobench.baselines.objectives.ad_cert import AdCert
from corobench.baselines.objectives.crown_ibp import CrownIbp
from corobench.baselines.objectives.feature_cert import FeatureCert
from corobench.baselines.objectives.ibp import Ibp
from corobench.baselines.objectives.inner import divergence
from corobench.baselines.objectives.rslad import Rslad
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.teacher import Teacher
from corobench.benchmark.errors import ConfigError

SHAPE = (1, 4, 4)
EPSILON = 0.1


def _linear(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def _deep(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def _batch(num_classes: int) -> tuple[Tensor, Tensor]:
    """Images whose ball does not touch the box, so that closed forms hold exactly."""
    generator = torch.Generator().manual_seed(1)
    return 0.2 + 0.6 * torch.rand(8, *SHAPE, generator=generator), torch.arange(8) % num_classes


def _moment(
    model: nn.Module, teacher: nn.Module, num_classes: int, epsilon: float = EPSILON
) -> Moment:
    bounds = LazyBounds(model, SHAPE, num_classes)
    bounds.build()
    return Moment(
        epsilon=epsilon,
        progress=1.0,
        generator=torch.Generator().manual_seed(3),
        lower_margins=bounds.lower_margins,
        upper_losses=bounds.upper_losses,
        relu_inputs=bounds.relu_inputs,
        teacher=Teacher(teacher),
    )


def _worst_divergence(model: nn.Sequential, taught: Tensor, x: Tensor) -> Tensor:
    """Exact for a linear model of two classes, where the divergence is convex in one number."""
    swing = EPSILON * (model[1].weight[0] - model[1].weight[1]).abs().sum()
    shift = torch.stack([swing / 2, -swing / 2])
    ends = [divergence(taught, F.log_softmax(model(x) + sign * shift, 1)) for sign in (1, -1)]
    return torch.maximum(*ends).mean()


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    model = _deep(0)
    x, labels = _batch(3)
    moment = _moment(model, model, 3, epsilon=0.0)
    loss = Rslad().loss(model, x, labels, moment)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.abs().max() < 1e-5
    clean = Rslad(alpha=0.0).loss(model, x, labels, _moment(model, model, 3))
    assert clean.item() == 0.0
    assert AdCert().loss(model, x, labels, moment).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 5 / 6, 1.0])
def test_rslad_mixes_the_worst_and_the_clean_divergence(alpha: float) -> None:
    model, teacher = _linear(0), _linear(1)
    x, labels = _batch(2)
    taught = F.log_softmax(teacher(x), dim=1)
    clean = divergence(taught, F.log_softmax(model(x), dim=1)).mean()
    exact = alpha * _worst_divergence(model, taught, x) + (1 - alpha) * clean
    loss = Rslad(alpha=alpha, num_steps=20).loss(model, x, labels, _moment(model, teacher, 2))
    assert loss.item() <= exact.item() + 1e-6
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_no_label_takes_part_in_rslad() -> None:
    model, teacher = _deep(0), _deep(1)
    x, labels = _batch(3)
    found = [
        Rslad().loss(model, x, shifted, _moment(model, teacher, 3)).item()
        for shifted in (labels, (labels + 1) % 3)
    ]
    assert found[0] == found[1]


def test_ad_cert_is_bounds_and_the_worst_divergence_from_the_teacher() -> None:
    model, teacher = _linear(0), _linear(1)
    x, labels = _batch(2)
    taught = F.log_softmax(teacher(x), dim=1)
    interval = Ibp(kappa_end=0.0).loss(model, x, labels, _moment(model, teacher, 2))
    exact = 0.25 * _worst_divergence(model, taught, x) + 0.75 * interval
    objective = AdCert(kappa_end=0.25, num_steps=20)
    loss = objective.loss(model, x, labels, _moment(model, teacher, 2))
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_the_bounds_of_ad_cert_are_intervals_or_those_of_crown_ibp() -> None:
    model, teacher = _deep(0), _deep(1)
    x, labels = _batch(3)

    def loss(objective: Ibp) -> float:
        return objective.loss(model, x, labels, _moment(model, teacher, 3)).item()

    assert loss(AdCert(kappa_end=0.0)) == loss(Ibp(kappa_end=0.0))
    crown = {"kappa_end": 0.0, "beta_start": 1.0, "beta_end": 1.0}
    assert loss(AdCert(**crown)) == loss(CrownIbp(**crown)) < loss(AdCert(kappa_end=0.0))


def test_the_teacher_is_frozen_and_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2)).train()
    teacher, same = Teacher(model), Teacher(model)
    x, _ = _batch(2)
    before = teacher(x)
    model(x)
    with torch.no_grad():
        model[2].weight.zero_()
    assert torch.equal(teacher(x), before) and not before.requires_grad
    # An image's answer does not depend on its batch, as it would in training mode.
    torch.testing.assert_close(teacher(x[:1]), before[:1])
    assert model.training
    assert teacher.fingerprint == same.fingerprint != Teacher(model).fingerprint


def _pair(seed: int) -> nn.Sequential:
    """A linear map to two features and a last layer that no feature depends on."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False), nn.Linear(2, 2))


def test_features_are_distilled_at_the_farthest_image() -> None:
    """With one feature that differs the worst corner is known: the sign of its weights."""
    teacher, student = _pair(0), _pair(0)
    with torch.no_grad():
        student[1].weight[0] += 0.3
    x, labels = _batch(2)
    moment = _moment(student, teacher, 2)
    taught = teacher[1](x.flatten(1))
    assert torch.equal(Teacher(teacher).features(x), taught)
    loss = FeatureCert(kappa_end=1.0, num_steps=40, step_rate=0.2).loss(student, x, labels, moment)
    gap = student[1](x.flatten(1)) - taught
    weight = student[1].weight
    # Of each feature alone the farthest image; of both together no more than the sum.
    reach = gap.abs() + EPSILON * weight.abs().sum(dim=1)
    length = taught.square().sum(dim=1)
    low = (reach.square().amax(dim=1) / length).mean().item()
    high = (reach.square().sum(dim=1) / length).mean().item()
    assert low * 0.98 <= loss.item() <= high + 1e-5
    (gradient,) = torch.autograd.grad(loss, student[2].weight, allow_unused=True)
    assert gradient is None, "the last layer learns from the bounds alone"


def test_equal_features_leave_the_bound_alone() -> None:
    model = _deep(0)
    x, labels = _batch(3)
    moment = _moment(model, model, 3, epsilon=1e-7)
    found = FeatureCert(kappa_end=0.5).loss(model, x, labels, moment).item()
    bound = Ibp(kappa_end=0.0).loss(model, x, labels, moment).item()
    assert found == pytest.approx(0.5 * bound, abs=1e-4)
    assert model.training and not model[1]._forward_pre_hooks and not model[3]._forward_pre_hooks


TAUGHT = """
id = "tiny-10x"
title = "tiny 10x"
method = "LWM 10x"
parent = "tiny-dense"
[prune]
pruner = { name = "lwm" }
keep_ratio = 0.1
[finetune]
objective = { name = "rslad", num_steps = 2 }
epochs = 2
batch_size = 32
"""


def _write(folder: Path, child: str = TAUGHT, dense: str = DENSE) -> Path:
    (folder / "tiny-dense.toml").write_text(dense)
    (folder / "tiny-10x.toml").write_text(child)
    return folder / "tiny-10x.toml"


@pytest.mark.parametrize(
    ("objective", "pruner"),
    [
        ('{ name = "rslad", num_steps = 2 }', '{ name = "hydra", epochs = 1 }'),
        ('{ name = "ad-cert", num_steps = 2, beta_start = 0.5 }', '{ name = "lwm" }'),
        ('{ name = "feature-cert", num_steps = 2 }', '{ name = "lwm" }'),
    ],
)
def test_the_teacher_of_a_recipe_is_its_dense_parent(
    tmp_path: Path, objective: str, pruner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Teacher] = []

    class Spied(Teacher):
        def __init__(self, model: nn.Module) -> None:
            super().__init__(model)
            taught.append(self)

    monkeypatch.setattr(procedure, "Teacher", Spied)
    text = TAUGHT.replace('{ name = "rslad", num_steps = 2 }', objective)
    recipe = load_recipe(_write(tmp_path, text.replace('{ name = "lwm" }', pruner)))
    trained = procedure.run(recipe, tmp_path / "out")
    assert trained.is_finished and len(taught) == 1
    dense = torch.load(tmp_path / "out/.train/tiny-dense/pretrain.pt", weights_only=True)
    model = procedure.initial_model(recipe)
    model.load_state_dict(dense["state"]["best"]["weights"])
    assert taught[0].fingerprint == Teacher(model).fingerprint
    child = torch.load(tmp_path / "out/.train/tiny-10x/finetune.pt", weights_only=True)
    assert child["identity"]["teacher"] == taught[0].fingerprint


def test_a_taught_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path))
    procedure.run(recipe, tmp_path / "whole")
    while not procedure.run(recipe, tmp_path / "slices", max_minutes=1e-9).is_finished:
        pass
    name = "tiny-10x/model.safetensors"
    assert (tmp_path / "slices" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_who_has_no_dense_parent_cannot_be_taught(tmp_path: Path) -> None:
    dense = DENSE.replace('"natural"', '"rslad"')
    with pytest.raises(ConfigError, match=r"\[pretrain\] has not; use it in \[finetune\]"):
        load_recipe(_write(tmp_path, dense=dense))
    before = DENSE.split("[pretrain]")[0] + "[prune]" + TAUGHT.split("[prune]")[1]
    with pytest.raises(ConfigError, match="expected a key 'parent' with the id of a dense"):
        load_recipe(_write(tmp_path, child=before))
