"""Masks that change in training, and weights perturbed in it: by hand, and end to end."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny_recipes import DENSE
from torch import Tensor, nn

from corobench.baselines import procedure
from corobench.baselines.averaging import WeightAverage
from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives.ibp import Ibp
from corobench.baselines.objectives.natural import Natural
from corobench.baselines.objectives.pgd_at import PgdAt
from corobench.baselines.objectives.trades import Trades
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.regrowth import Regrower, exchanged
from corobench.baselines.train_stage import Awp, Optimiser, Regrowth, TrainStage
from corobench.baselines.trainer import StageTrainer
from corobench.baselines.training_data import TrainingData
from corobench.baselines.weight_perturbation import perturbed
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.submission import load_submission


def _masks(model: nn.Module) -> Masks:
    """Half of each layer, at random."""
    generator = torch.Generator().manual_seed(5)
    return Masks(
        {
            name: torch.rand(weight.shape, generator=generator) < 0.5
            for name, weight in prunable_weights(model).items()
        }
    )


def _trainer(settings: TrainStage, epsilon: Fraction = Fraction(1, 10)) -> StageTrainer:
    """Over a small network with batch-norm, half of it removed, and forty images."""
    x = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TrainingData(x, torch.arange(40) % 2, x[:2], torch.arange(2), "canonical", "")
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    model = nn.Sequential(*layers)
    masks = _masks(model)
    masks.apply(model)
    made = StageTrainer(
        "finetune",
        settings,
        model,
        masks,
        data,
        epsilon,
        lambda purpose, index: 0,
        LazyBounds(model, (3, 8, 8), 2),
    )
    made._generator.manual_seed(0)
    return made


def _stage(**settings: object) -> TrainStage:
    given = {"objective": PgdAt(num_steps=2), "epochs": 4, "batch_size": 8, **settings}
    return TrainStage.model_validate(given)


def _states(one: nn.Module, other: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_least_weights_go_and_the_steepest_come(share: float) -> None:
    generator = torch.Generator().manual_seed(7)
    weight, gradient = torch.randn(2, 12, 9, generator=generator)
    kept = torch.rand(12, 9, generator=generator) < 0.4
    weight = weight * kept
    found = exchanged(weight, gradient, kept, share)
    num_kept = int(kept.sum())
    count = int(share * num_kept)
    assert int(found.sum()) == num_kept
    magnitudes = weight.abs()[kept].sort().values
    staying = kept & (weight.abs() > (magnitudes[count - 1] if count else -1))
    assert not (staying & ~found).any()
    # The grown ones are the steepest of all that did not stay, just dropped or not.
    grown, others = found & ~staying, ~found & ~staying
    assert int(grown.sum()) == count
    if count and others.any():
        assert gradient.abs()[grown].min() >= gradient.abs()[others].max()


def test_masks_change_every_so_often_and_less_and_less() -> None:
    regrower = Regrower(Regrowth(every=10, share=0.3, until=0.5), num_steps=100)
    assert [step for step in range(100) if regrower.is_due(step)] == [10, 20, 30, 40]
    assert regrower.share(0) == 0.3
    assert regrower.share(25) == pytest.approx(0.15)
    assert regrower.share(50) == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_change_of_masks_keeps_the_count_and_starts_from_zero(name: str) -> None:
    optimiser = Optimiser.model_validate({"name": name, "lr": 0.01})
    made = _trainer(_stage(regrowth=Regrowth(every=2, share=1.0, until=1.0), optimiser=optimiser))
    weights = prunable_weights(made.model)
    before = made.masks
    batch = torch.arange(8)
    made._step(batch, 0 / 5)
    made._step(batch, 1 / 5)
    held = {key: weight.detach().clone() for key, weight in weights.items()}
    made._step(batch, 2 / 5)
    for key, weight in weights.items():
        kept = made.masks[key]
        assert kept.sum() == before[key].sum() and not torch.equal(kept, before[key])
        assert not weight[~kept].any() and not weight[kept & ~before[key]].any()
        same = kept & before[key]
        assert torch.equal(weight[same], held[key][same])
        for value in made._optimiser.state[weight].values():
            if value.shape == weight.shape:
                assert not value[~same].any() and value[same].any()
    made._step(batch, 3 / 5)
    for key, weight in weights.items():
        assert not weight[~made.masks[key]].any()
        assert weight[made.masks[key] & ~before[key]].any()


def test_averages_forget_what_is_removed() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5)
    kept = torch.tensor([[True, False], [False, True]])
    average.restrict({"weight": kept})
    before = model.weight.detach().clone()
    with average.in_place():
        assert torch.equal(model.weight, before * kept)


def test_awp_of_size_zero_is_no_awp_bit_for_bit() -> None:
    """Running statistics, random numbers and weights: all as without it."""
    for objective in (PgdAt(num_steps=2), Trades(num_steps=2)):
        plain = _trainer(_stage(objective=objective))
        same = _trainer(_stage(objective=objective, awp=Awp(gamma=0.0)))
        for position in (0.0, 0.2, 0.4):
            losses = [made._step(torch.arange(8), position) for made in (plain, same)]
            assert torch.equal(*losses)
        assert all(torch.equal(*pair) for pair in _states(plain.model, same.model))


def test_awp_waits_for_its_warm_up() -> None:
    plain, late = _trainer(_stage()), _trainer(_stage(awp=Awp(gamma=0.5, warmup_epochs=1.0)))
    for made in (plain, late):
        made._step(torch.arange(8), 0.8)
    assert all(torch.equal(*pair) for pair in _states(plain.model, late.model))
    for made in (plain, late):
        made._step(torch.arange(8), 1.0)
    assert not all(torch.equal(*pair) for pair in _states(plain.model, late.model))


def test_awp_takes_the_gradient_at_the_worst_weights_nearby() -> None:
    """One step by hand, at radius 0, where the adversarial images are the images."""
    lr, gamma = 0.1, 0.3
    optimiser = Optimiser(name="sgd", lr=lr, momentum=0.0)
    made = _trainer(_stage(optimiser=optimiser, awp=Awp(gamma=gamma)), Fraction(0))
    x, labels = made.data.x_NCHW[:8], made.data.labels_N[:8]
    other = _trainer(_stage())
    model, masks = other.model, other.masks
    weights = prunable_weights(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss = F.cross_entropy(model(x), labels)
    for (name, weight), gradient in zip(
        weights.items(), torch.autograd.grad(loss, list(weights.values())), strict=True
    ):
        step = gradient * masks[name]
        with torch.no_grad():
            weight += gamma * weight.norm() * step / step.norm()
    worst = F.cross_entropy(model(x), labels)
    assert worst > loss
    gradients = torch.autograd.grad(worst, list(model.parameters()))
    assert made._step(torch.arange(8), 0.0).item() == pytest.approx(worst.item(), abs=1e-5)
    kept = {id(weights[name]): mask for name, mask in masks.items()}
    for found, parameter, value, gradient in zip(
        made.model.parameters(), model.parameters(), before, gradients, strict=True
    ):
        wanted = value - lr * gradient * kept.get(id(parameter), torch.tensor(True))
        torch.testing.assert_close(found.detach(), wanted, atol=1e-5, rtol=1e-4)


def test_weights_come_back_even_after_an_error() -> None:
    weight = torch.tensor([3.0, 4.0])
    with pytest.raises(RuntimeError), perturbed([weight], [torch.tensor([0.0, 2.0])], 0.2):
        torch.testing.assert_close(weight, torch.tensor([3.0, 5.0]))
        raise RuntimeError
    assert torch.equal(weight, torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize("objective", [Natural(), Ibp()])
def test_awp_needs_an_objective_that_attacks(objective: Natural) -> None:
    with pytest.raises(ValidationError, match="needs an objective that attacks"):
        _stage(objective=objective, awp=Awp())


REGROWN = """
id = "tiny-10x"
title = "tiny 10x"
method = "LWM 10x"
parent = "tiny-dense"
[prune]
pruner = { name = "lwm", distribution = "erk" }
keep_ratio = 0.1
schedule = "iterative"
num_steps = 2
epochs_between = 2
[finetune]
objective = { name = "pgd-at", num_steps = 1 }
epochs = 4
batch_size = 32
averaging = 0.9
optimiser = { lr = 0.01 }
regrowth = { every = 3, share = 0.5 }
awp = { gamma = 0.01, warmup_epochs = 1 }
"""


def _write(folder: Path, child: str = REGROWN) -> Path:
    (folder / "tiny-dense.toml").write_text(DENSE)
    (folder / "tiny-10x.toml").write_text(child)
    return folder / "tiny-10x.toml"


def test_a_network_is_regrown_end_to_end_and_resumed_to_the_same_weights(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path))
    whole = procedure.run(recipe, tmp_path / "whole")
    while not procedure.run(recipe, tmp_path / "slices", max_minutes=1e-9).is_finished:
        pass
    name = "tiny-10x/model.safetensors"
    assert (tmp_path / "slices" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    submission = load_submission(whole.folder)
    wanted = "least-weight-magnitude (ERK, regrown by gradient)"
    assert submission.manifest.method.criterion == wanted
    assert submission.manifest.method.pipeline == "after"
    logs = tmp_path / "whole" / ".train" / "tiny-10x"
    first = torch.load(logs / "prune-2.pt", weights_only=True)["state"]["masks"]
    best = torch.load(logs / "finetune.pt", weights_only=True)["state"]["best"]
    total = sum(mask.numel() for mask in first.values())
    assert sum(int(mask.sum()) for mask in best["masks"].values()) == total - total * 9 // 10
    assert any(not torch.equal(first[key], mask) for key, mask in best["masks"].items())
    weights = load_file(tmp_path / "whole" / name)
    for key, mask in best["masks"].items():
        assert mask.sum() == first[key].sum() and not weights[key][~mask].any()


def test_a_later_round_starts_from_the_masks_as_they_were_regrown(tmp_path: Path) -> None:
    procedure.run(load_recipe(_write(tmp_path)), tmp_path / "out")
    logs = tmp_path / "out" / ".train" / "tiny-10x"
    recovered = torch.load(logs / "recover-1.pt", weights_only=True)["state"]["best"]["masks"]
    later = torch.load(logs / "prune-2.pt", weights_only=True)["state"]["masks"]
    assert all(not (mask & ~recovered[key]).any() for key, mask in later.items())


def test_masks_that_change_from_the_start_prune_during_training(tmp_path: Path) -> None:
    child = DENSE.split("[pretrain]")[0].replace("tiny-dense", "tiny-10x")
    pruner = REGROWN.split("[prune]")[1].replace("lwm", "random")
    recipe = load_recipe(_write(tmp_path, f"{child}[prune]{pruner}"))
    manifest = load_submission(procedure.run(recipe, tmp_path / "out").folder).manifest
    assert manifest.method.pipeline == "during"
    assert manifest.method.criterion == "random (ERK, regrown by gradient)"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("every = 3", "evry = 3", "unknown key 'evry': did you mean 'every'"),
        ("every = 3", "every = 0", "every: Input should be greater than"),
        ('"pgd-at", num_steps = 1', '"natural"', "needs an objective that attacks"),
        ('"lwm", distribution = "erk"', '"filter-l1"', "regrowth exchanges single weights"),
        ('"lwm", distribution = "erk"', '"lamp", distribution = "erk"', "decides itself how much"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in REGROWN
    with pytest.raises(ConfigError) as caught:
        load_recipe(_write(tmp_path, REGROWN.replace(old, new)))
    assert said in caught.value.message
