"""How long each reference entry is trained, read from the recipes: who has had more than whom.

A comparison of methods is fair where the published weights have had equally many epochs. What a
method spends beside them, on scores or on a mask, is in the total.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from corobench.baselines.recipe import Recipe, packaged_names
from corobench.baselines.recipe_file import load_recipe
from corobench.baselines.schedules import lr_factor
from corobench.baselines.stages import Prune, Train, plan
from corobench.baselines.train_stage import TrainStage

HEADER = (
    "| family | arms | dense | rounds, scores | last | total | of these the weights | "
    "learning rate, dense | learning rate, last |"
)


@dataclass(frozen=True)
class Budget:
    """Epochs of one entry from nothing on, the training of its parent included.

    Attributes:
        dense: of pre-training, its own or its parent's; 0 where it is pruned before training.
        pruning: between rounds, and of a pruner that trains scores.
        last: of the training after the last pruning; 0 for a dense network.
        weights: that the published weights have been trained for: all but those of scores and
            those before the weights were put back to their first values.
        lr_dense: learning rate of pre-training as (first, end of the schedule), or None.
        lr_last: the same of the training after the last pruning.
    """

    dense: int
    pruning: int
    last: int
    weights: int
    lr_dense: tuple[float, float] | None
    lr_last: tuple[float, float] | None

    @property
    def total(self) -> int:
        """Epochs of all steps."""
        return self.dense + self.pruning + self.last


def budget_of(recipe: Recipe) -> Budget:
    """What a recipe, with its parent, spends."""
    pretrain = recipe.parent.pretrain if recipe.parent else recipe.pretrain
    weights = dense = pretrain.epochs if pretrain else 0
    pruning = 0
    for stage in plan(recipe):
        if isinstance(stage, Prune):
            pruning += stage.settings.pruner.num_epochs
            weights = 0 if stage.settings.rewind == "init" else weights
        elif stage.name != "pretrain":
            weights += stage.settings.epochs
            pruning += _between(stage)
    return Budget(
        dense=dense,
        pruning=pruning,
        last=recipe.finetune.epochs if recipe.finetune else 0,
        weights=weights,
        lr_dense=_lr(pretrain),
        lr_last=_lr(recipe.finetune),
    )


def family_of(recipe: Recipe) -> str:
    """Id of the dense entry that a recipe is compared with; of a dense one its own."""
    return recipe.compared_with or recipe.id


def arm_of(recipe: Recipe) -> str:
    """Name of a recipe within its family: ``lwm-10x`` of ``digits-adv-lwm-10x``."""
    return recipe.id.removeprefix(_stem(family_of(recipe)))


def budget_table(track: str) -> str:
    """Markdown: the packaged recipes of a track, those of one family and budget in one row.

    Args:
        track: "digits", "fashion-mnist" or "cifar10".
    """
    arms: dict[tuple[str, Budget], list[str]] = defaultdict(list)
    for name in packaged_names(track):
        recipe = load_recipe(name)
        arms[family_of(recipe), budget_of(recipe)].append(arm_of(recipe))
    rows = sorted(arms.items(), key=lambda item: (item[0][0], item[0][1].total, min(item[1])))
    lines = [HEADER, "|---" * HEADER.count(" | ") + "|---|"]
    lines += [_row(family, budget, names) for (family, budget), names in rows]
    return "\n".join(lines) + "\n"


def _stem(dense: str) -> str:
    """What the ids of a family begin with: ``digits-adv-`` of ``digits-adv-dense``."""
    return dense[: dense.rfind("dense")] if "dense" in dense else f"{dense}-"


def _between(stage: Train) -> int:
    return 0 if stage.name == "finetune" else stage.settings.epochs


def _lr(settings: TrainStage | None) -> tuple[float, float] | None:
    if settings is None:
        return None
    schedule, first = settings.lr_schedule, settings.optimiser.lr
    return first, first * lr_factor(schedule.name, 1.0, schedule.milestones, schedule.factor)


def _row(family: str, budget: Budget, names: list[str]) -> str:
    shown = " ".join(f"`{name}`" for name in sorted(names))
    epochs = (budget.dense, budget.pruning, budget.last, budget.total, budget.weights)
    cells = [_stem(family).rstrip("-"), shown, *(f"{count or '–'}" for count in epochs)]
    return "| " + " | ".join([*cells, _span(budget.lr_dense), _span(budget.lr_last)]) + " |"


def _span(rates: tuple[float, float] | None) -> str:
    if rates is None:
        return "–"
    return " to ".join(f"{rate:.8f}".rstrip("0").rstrip(".") for rate in rates)
