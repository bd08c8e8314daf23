"""The paper's three steps as stages: pre-train -> prune -> fine-tune.

:func:`plan` turns a recipe into its stages, in order. Each stage takes weights and masks, gives
weights and masks, and has a checkpoint of its own. An iterative schedule repeats
"prune, recover" before the last "prune, fine-tune"; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from corobench.baselines.masks import Masks
from corobench.baselines.measures import LazyBounds
from corobench.baselines.objectives import Moment
from corobench.baselines.objectives.base import Teaching
from corobench.baselines.pruners import PruneContext
from corobench.baselines.recipe import PruneStage, Recipe
from corobench.baselines.train_stage import LrSchedule, Ramp, TrainStage
from corobench.baselines.training_data import TrainingData, batches_of
from corobench.baselines.weight_perturbation import statistics_kept


@dataclass(frozen=True)
class Train:
    """Train under the masks so far.

    Attributes:
        name: of the stage, of its files and of its random numbers.
        settings: its objective and how long.
        pruning: what chooses the masks anew, where they are chosen more than once.
    """

    name: str
    settings: TrainStage
    pruning: Prune | None = None

    @property
    def is_taught(self) -> bool:
        """Whether the dense parent decides what it gives."""
        return self.settings.objective.needs_teacher


@dataclass(frozen=True)
class Prune:
    """Remove weights down to a kept share.

    Attributes:
        name: of the stage and of its files.
        settings: the pruner and whether weights rewind.
        keep_ratio: kept share after this round.
        loss_settings: the stage whose loss a data-driven pruner is given.
    """

    name: str
    settings: PruneStage
    keep_ratio: float
    loss_settings: TrainStage

    @property
    def is_taught(self) -> bool:
        """Whether the dense parent decides what it gives."""
        return self.loss_settings.objective.needs_teacher


def plan(recipe: Recipe) -> list[Train | Prune]:
    """The stages of a recipe; those of its parent are the parent's own.

    The objective appears in training stages only: a pruner never learns which one it was.
    """
    stages: list[Train | Prune] = []
    if recipe.pretrain is not None:
        stages.append(Train("pretrain", recipe.pretrain))
    if recipe.prune is None or recipe.finetune is None:
        return stages
    keep_ratios = recipe.prune.keep_ratios()
    for step, keep_ratio in enumerate(keep_ratios, start=1):
        is_last = step == len(keep_ratios)
        suffix = "" if len(keep_ratios) == 1 else f"-{step}"
        stages.append(Prune(f"prune{suffix}", recipe.prune, keep_ratio, recipe.finetune))
        if is_last:
            again = recipe.finetune.thresholding is not None
            pruning = stages[-1] if again else None
            assert not isinstance(pruning, Train)
            stages.append(Train("finetune", recipe.finetune, pruning))
        else:
            stages.append(Train(f"recover{suffix}", recovery(recipe.finetune, recipe.prune)))
    return stages


def recovery(finetune: TrainStage, prune: PruneStage) -> TrainStage:
    """Fine-tuning between two rounds: short, at a constant rate and the full radius."""
    return finetune.model_copy(
        update={
            "epochs": prune.epochs_between,
            "lr_schedule": LrSchedule(name="constant"),
            "ramp": Ramp(),
        }
    )


@dataclass(frozen=True)
class Given:
    """What every pruning stage of a recipe works with.

    Attributes:
        data: training images.
        epsilon: radius of the loss, unless its stage has its own.
        seed_of: (purpose, index) -> seed.
        bounds: of the model, for losses that need them.
        teacher: of an objective that needs one.
    """

    data: TrainingData
    epsilon: Fraction
    seed_of: Callable[[str, int], int]
    bounds: LazyBounds
    teacher: Teaching | None = None


def prune(
    stage: Prune, model: nn.Module, masks: Masks, given: Given, initial: dict[str, Tensor]
) -> Masks:
    """Prune a model in place and return the masks that hold from now on.

    Args:
        masks: of earlier rounds.
        initial: the weights before any training, to rewind to.
    """
    if stage.loss_settings.objective.needs_bounds:
        given.bounds.build()
    context = _context(stage, model, masks, given)
    with statistics_kept(model):  # a pruner may look at the loss
        found = stage.settings.pruner.masks(model, stage.keep_ratio, context)
    if stage.settings.rewind == "init":
        model.load_state_dict(initial)
    found.apply(model)
    return found


def chosen_anew(stage: Prune, model: nn.Module, given: Given) -> Masks:
    """Masks from all present weights, whatever was removed before; the model is not changed.

    Args:
        stage: whose pruner reads weights alone.
    """
    context = _context(stage, model, Masks(), given)
    return stage.settings.pruner.masks(model, stage.keep_ratio, context)


def _context(stage: Prune, model: nn.Module, masks: Masks, given: Given) -> PruneContext:
    settings, data, bounds = stage.loss_settings, given.data, given.bounds
    seed = given.seed_of(f"prune-loss:{stage.name}", 0)
    moment = Moment(
        epsilon=float(Fraction(settings.epsilon or given.epsilon)),
        progress=1.0,
        generator=torch.Generator(data.device).manual_seed(seed),
        lower_margins=bounds.lower_margins,
        upper_losses=bounds.upper_losses,
        relu_inputs=bounds.relu_inputs,
        shrunk_margins=bounds.shrunk_margins,
        teacher=given.teacher,
    )
    passes = iter(range(1_000_000))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        seed = given.seed_of(f"prune-data:{stage.name}", next(passes))
        for batch in batches_of(len(data.labels_N), settings.batch_size, seed):
            index = batch.to(data.device)
            yield data.x_NCHW[index], data.labels_N[index]

    return PruneContext(
        previous=masks,
        generator=torch.Generator().manual_seed(given.seed_of(f"prune:{stage.name}", 0)),
        loss=lambda x, labels: settings.objective.loss(model, x, labels, moment),
        batches=batches,
    )
