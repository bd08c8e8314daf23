"""Recipes too long for a test, end to end in miniature: thin networks, one epoch, made-up images.

Nothing of it is a result; it shows that every recipe of the paper's scale and every pruner of the
reference entries runs through pre-training, pruning and fine-tuning to a valid submission.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import corobench.baselines.trainer
from corobench.baselines import procedure
from corobench.baselines.masks import Masks
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives import CrownIbp, Ibp, MtlIbp, Objective, PgdAt
from corobench.baselines.pruners import Hydra, Pruner
from corobench.baselines.recipe import Network, Recipe, packaged_names
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.train_stage import Ramp, TrainStage
from corobench.baselines.trainer import StageTrainer, has_fast_bf16
from corobench.baselines.training_data import TrainingData
from corobench.benchmark.network.compactness import sparsity
from corobench.benchmark.submission import load_submission
from corobench.benchmark.submission.validate import validate
from corobench.benchmark.tracks import get_track

PAPER_SCALE = [f"cifar10/adv-{network}-lwm-10x" for network in ("vgg16", "resnet18", "wrn")]
PRUNERS = [
    name
    for name in packaged_names("fashion-mnist")
    if name.endswith("-10x") and "/ibp-" in name and "large" not in name
]
ATTACKED = [f"fashion-mnist/adv-{arm}" for arm in ("rslad-10x", "lwm-awp-10x", "flyingbird-long")]
FROM_SCRATCH = ["fashion-mnist/ibp-vericompress-long"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty random images per track as image folders, in a folder named after the track."""
    parent = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("cifar10", "fashion-mnist"):
        channels, height, width = get_track(name).shape
        for label in range(10):
            place = parent / name / "train" / str(label)
            place.mkdir(parents=True)
            for number in range(6):
                shape = (height, width, 3) if channels == 3 else (height, width)
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return parent


def _short(stage: TrainStage | None) -> TrainStage | None:
    if stage is None:
        return None
    update: dict[str, object] = {"epochs": 1, "batch_size": 16, "ramp": Ramp()}
    if stage.regrowth is not None:
        update["regrowth"] = stage.regrowth.model_copy(update={"every": 1})
    return stage.model_copy(update=update)


def miniature(recipe: Recipe, width: float) -> Recipe:
    """The same procedure, thin and short."""
    network = Network(
        architecture=recipe.model.architecture,
        arguments={**recipe.model.arguments, "width": width},
    )
    prune = recipe.prune
    if prune is not None and isinstance(prune.pruner, Hydra):
        pruner: Pruner = prune.pruner.model_copy(update={"epochs": 1})
        prune = prune.model_copy(update={"pruner": pruner})
    return recipe.model_copy(
        update={
            "model": network,
            "validation_rate": 0.2,
            "pretrain": _short(recipe.pretrain),
            "finetune": _short(recipe.finetune),
            "prune": prune,
            "parent": miniature(recipe.parent, width) if recipe.parent else None,
        }
    )


@pytest.mark.parametrize("name", [*PAPER_SCALE, *PRUNERS, *ATTACKED, *FROM_SCRATCH])
def test_a_recipe_runs_in_miniature(name: str, folders: Path, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    trained = procedure.run(miniature(recipe, 0.2), tmp_path, data_root=folders)
    assert trained.is_finished
    assert dict(validate([trained.folder])) == {trained.folder: []}
    kept = 1.0 - sparsity(load_submission(trained.folder).model)
    assert recipe.prune is not None
    # Whole filters cannot hit the share exactly in a thin network. Weights that came back in the
    # last of the few steps are still 0.
    structured = recipe.prune.pruner.structure == "structured"
    regrown = recipe.finetune is not None and recipe.finetune.regrowth is not None
    tolerance = 0.1 if structured else 0.03 if regrown else 0.01
    assert kept == pytest.approx(recipe.prune.keep_ratio, abs=tolerance)


def trainer(settings: TrainStage) -> StageTrainer:
    """Over a small network and sixteen images; nothing but `settings` is free."""
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TrainingData(x, torch.arange(16) % 2, x[:2], torch.arange(2), "canonical", "")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    made = StageTrainer(
        "pretrain",
        settings,
        model,
        Masks(),
        data,
        Fraction(1, 10),
        lambda purpose, index: 0,
        LazyBounds(model, (3, 8, 8), 2),
    )
    made._generator.manual_seed(0)
    return made


def test_the_layout_in_memory_changes_no_step() -> None:
    """What a GPU does for speed, on a CPU: channels last, the same loss and weights."""
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        made = trainer(TrainStage(objective=PgdAt(num_steps=2), epochs=1, batch_size=8))
        made._layout = layout
        made.model.to(memory_format=layout)
        loss = made._step(torch.arange(8), 0.5)
        found.append((loss, next(made.model.parameters()).detach().clone()))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    "objective",
    [PgdAt(num_steps=2), Ibp(kappa_start=0.5), CrownIbp(kappa_start=0.5)],
    ids=lambda objective: objective.name,
)
def test_bf16_rounds_a_step_where_the_processor_is_fast_at_it(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights stay float32; without matrix units nothing changes at all."""

    def step(precision: str, is_fast: bool) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(corobench.baselines.trainer, "has_fast_bf16", lambda *_: is_fast)
        made = trainer(TrainStage(objective=objective, epochs=1, batch_size=8, precision=precision))
        loss = made._step(torch.arange(8), 0.5)
        return loss, next(made.model.parameters()).detach().clone()

    whole, slow, half = step("float32", True), step("bf16", False), step("bf16", True)
    assert torch.equal(whole[0], slow[0]) and torch.equal(whole[1], slow[1])
    assert half[1].dtype == torch.float32 and not torch.equal(whole[0], half[0])
    torch.testing.assert_close(half[0].float(), whole[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", ["bf16", "mixed"])
def test_mixed_precision_keeps_a_loss_of_bounds_alone_to_the_bit(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interval loss is float32 under "mixed"; "bf16" rounds it, too."""
    monkeypatch.setattr(corobench.baselines.trainer, "has_fast_bf16", lambda *_: True)

    def bounds(precision: str) -> Tensor:
        made = trainer(TrainStage(objective=Ibp(), epochs=1, batch_size=8, precision=precision))
        x_BCHW, labels_B = made.data.x_NCHW[:8], made.data.labels_N[:8]
        with made._precision(), torch.no_grad():
            return made.bounds.lower_margins(x_BCHW - 0.01, x_BCHW + 0.01, labels_B, "IBP")

    assert torch.equal(bounds(precision), bounds("float32")) == (precision == "mixed")


def test_mixed_precision_rounds_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corobench.baselines.trainer, "has_fast_bf16", lambda *_: True)
    objective = MtlIbp(num_steps=2, share=0.5)
    losses = [
        trainer(TrainStage(objective=objective, epochs=1, batch_size=8, precision=name))._step(
            torch.arange(8), 0.5
        )
        for name in ("float32", "mixed")
    ]
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[1].float(), losses[0], rtol=0.02, atol=0.02)


def test_each_precision_asks_for_the_instructions_it_was_measured_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    cpu = torch.device("cpu")
    assert has_fast_bf16(cpu, "mixed") and not has_fast_bf16(cpu, "bf16")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not has_fast_bf16(cpu, "mixed")
