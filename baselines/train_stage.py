"""The tables ``[pretrain]`` and ``[finetune]`` of a recipe, and the tables within them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, InstanceOf, SerializeAsAny, model_validator

from corobench.baselines.objectives import AdversarialObjective, Objective
from corobench.baselines.schedules import LrName, RampShape
from corobench.baselines.settings import LATER, RecipeTable
from corobench.baselines.training_data import Augmentation
from corobench.benchmark.tracks import parse_epsilon


def _exact(text: str) -> str:
    try:
        parse_epsilon(text)
    except Exception as error:
        raise ValueError(str(error)) from error
    return text


Epsilon = Annotated[str, AfterValidator(_exact)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Optimiser(RecipeTable):
    """Table ``[<stage>.optimiser]``.

    Attributes:
        lr: learning rate at the start of the schedule.
        momentum: of SGD.
        nesterov: of SGD.
        weight_decay: L2, on all parameters.
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0


class LrSchedule(RecipeTable):
    """Table ``[<stage>.lr_schedule]``.

    Attributes:
        milestones: of "steps", as shares of the stage.
        factor: of one milestone.
    """

    name: LrName = "cosine"
    milestones: tuple[Share, ...] = (0.5, 0.75)
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1


class Ramp(RecipeTable):
    """Table ``[<stage>.ramp]``: how epsilon grows.

    Attributes:
        warmup_epochs: at radius 0.
        epochs: from 0 up to the stage's epsilon; 0 is at once.
        shape: "linear", or "smooth", slow at first, as published certified training has it.
    """

    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0
    epochs: Annotated[float, Field(ge=0.0)] = 0.0
    shape: Annotated[RampShape, LATER] = "linear"


class Awp(RecipeTable):
    """Table ``[<stage>.awp]``: the loss is taken at the worst weights nearby (Wu et al. 2020).

    Attributes:
        gamma: size of the perturbation of each layer, as a share of its weights' norm.
        warmup_epochs: without it at the beginning.
    """

    gamma: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.0


class Regrowth(RecipeTable):
    """Table ``[finetune.regrowth]``: masks change while the network trains (Evci et al. 2020).

    Attributes:
        every: steps between two changes.
        share: of each layer's kept weights that the first change would exchange; it falls to 0 as
            half a cosine.
        until: share of the stage after which the masks stay.
    """

    every: Positive = 100
    share: Share = 0.3
    until: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75


class Thresholding(RecipeTable):
    """Table ``[finetune.thresholding]``: masks are chosen anew, from all weights (VeriCompress).

    Between two choices removed weights train as all others do; each choice sets them to 0 again.

    Attributes:
        every: epochs between two choices; the last epoch ends with one.
    """

    every: Positive = 1


class TrainStage(RecipeTable):
    """Tables ``[pretrain]`` and ``[finetune]``.

    Attributes:
        objective: table with a name from the registry and its own settings.
        epochs: passes over the training images.
        epsilon: training radius as an exact fraction; default is the recipe's.
        batch_size: images per step; a smaller last batch is dropped, others each epoch.
        clip_norm: largest gradient norm; absent is no clipping.
        augmentation: "crop" shifts by up to an eighth of the side, "flip" mirrors half of the
            images, "crop-flip" does both.
        precision: "bf16" autocasts, with the channels last in memory, on a GPU and on a CPU with
            matrix units for it (AMX). "mixed" autocasts all but bounds and their gradients, on a
            GPU and on a CPU with AMX or AVX-512 BF16. Runs elsewhere, and what is measured, are
            float32 always.
        l1: weight of the sum of all convolution and linear weights' magnitudes in the loss.
        averaging: decay per step of a moving average of the weights; the averages are measured,
            selected and handed on. Absent is none.
        norm_batches: training batches from which batch-norm statistics are estimated anew before
            weights are measured; 0 keeps those that moved along.
        awp: adversarial weight perturbation, for an objective that attacks. Absent is none.
        regrowth: masks that change, in fine-tuning. Absent is masks that stay.
        thresholding: masks that are chosen anew, in fine-tuning, by the recipe's pruner.
    """

    objective: SerializeAsAny[InstanceOf[Objective]]
    epochs: Positive
    epsilon: Epsilon | None = None
    batch_size: Positive = 128
    clip_norm: Annotated[float, Field(gt=0.0)] | None = None
    augmentation: Augmentation = "none"
    precision: Literal["float32", "bf16", "mixed"] = "float32"
    l1: Annotated[float, Field(ge=0.0)] = 0.0
    averaging: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    norm_batches: Annotated[int, Field(ge=0)] = 0
    optimiser: Optimiser = Optimiser()
    lr_schedule: LrSchedule = LrSchedule()
    ramp: Ramp = Ramp()
    awp: Annotated[Awp | None, LATER] = None
    regrowth: Annotated[Regrowth | None, LATER] = None
    thresholding: Annotated[Thresholding | None, LATER] = None

    @property
    def changes_masks(self) -> bool:
        """Whether the masks at its end may be others than those at its beginning."""
        return self.regrowth is not None or self.thresholding is not None

    @model_validator(mode="after")
    def _masks_change_in_one_way(self) -> Self:
        if self.thresholding is None:
            return self
        if self.regrowth is not None:
            raise ValueError("regrowth and thresholding both change the masks; keep one of them")
        if self.epochs % self.thresholding.every:
            raise ValueError(
                f"thresholding every {self.thresholding.every} epochs does not end with the stage: "
                f"epochs = {self.epochs} must be a multiple of it"
            )
        return self

    @model_validator(mode="after")
    def _awp_fits(self) -> Self:
        if self.awp is not None and not isinstance(self.objective, AdversarialObjective):
            raise ValueError(
                f"awp needs an objective that attacks, such as 'pgd-at' or 'trades', but the "
                f"objective is {self.objective.name!r}"
            )
        return self

    @model_validator(mode="after")
    def _ramp_ends(self) -> Self:
        if self.ramp.warmup_epochs + self.ramp.epochs >= self.epochs:
            raise ValueError(
                f"the ramp must end before the stage does: warm-up {self.ramp.warmup_epochs:g} "
                f"and ramp {self.ramp.epochs:g} of {self.epochs} epochs leave none to select from"
            )
        return self
