"""What a recipe may say. One TOML file per reference entry; every key is here.

A recipe reads like the paper's procedure: ``[pretrain]`` -> ``[prune]`` -> ``[finetune]``, each
with its own objective. A dense entry has ``[pretrain]`` alone; pruning before training has no
``[pretrain]``. A recipe with a ``parent`` starts from that recipe's pre-trained weights and
takes track, epsilon, network and data split from it, so that arms differ in nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, InstanceOf, SerializeAsAny, model_validator

from corobench.baselines.objectives import AdversarialObjective, Objective
from corobench.baselines.pruners import Pruner
from corobench.baselines.schedules import Cumulative, LrName, RampShape, keep_ratios
from corobench.baselines.settings import LATER, RecipeTable
from corobench.baselines.training_data import Augmentation
from corobench.benchmark.records.base import Identifier, Link, LongText, ShortText
from corobench.benchmark.tracks import get_track, parse_epsilon


def _exact(text: str) -> str:
    try:
        parse_epsilon(text)
    except Exception as error:
        raise ValueError(str(error)) from error
    return text


def _known_track(name: str) -> str:
    try:
        get_track(name)
    except Exception as error:
        raise ValueError(str(error)) from error
    return name


Epsilon = Annotated[str, AfterValidator(_exact)]
TrackName = Annotated[str, AfterValidator(_known_track)]
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


class PruneStage(RecipeTable):
    """Table ``[prune]``.

    Attributes:
        pruner: table with a name from the registry and its own settings.
        keep_ratio: kept share of all convolution and linear weights; 0.1 is "10x".
        schedule: at once, or in rounds with training between them.
        num_steps: rounds of an iterative schedule.
        cumulative: how the removed share grows over the rounds.
        epochs_between: of the fine-tuning objective after each round but the last.
        rewind: "init" puts the kept weights back to their first values after each round
            (lottery ticket, Frankle and Carbin, ICLR 2019).
    """

    pruner: SerializeAsAny[InstanceOf[Pruner]]
    keep_ratio: Annotated[float, Field(gt=0.0, le=1.0)]
    schedule: Literal["one-shot", "iterative"] = "one-shot"
    num_steps: Positive = 1
    cumulative: Cumulative = "geometric"
    epochs_between: Positive = 1
    rewind: Literal["none", "init"] = "none"

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if (self.schedule == "one-shot") != (self.num_steps == 1):
            raise ValueError(
                f"schedule {self.schedule!r} does not go with num_steps = {self.num_steps}: "
                "one-shot is 1 step, iterative is 2 or more"
            )
        return self

    def keep_ratios(self) -> tuple[float, ...]:
        """Kept share after each round."""
        return keep_ratios(self.keep_ratio, self.num_steps, self.cumulative)


class Network(RecipeTable):
    """Table ``[model]``.

    Attributes:
        architecture: a name from ``corobench architectures``.
        arguments: of the architecture, e.g. ``width = 2.0``.
        init: "ibp" draws weights so that intervals keep their width (Shi et al. 2021).
    """

    architecture: ShortText
    arguments: dict[str, bool | int | float | str | list[float]] = Field(default_factory=dict)
    init: Literal["default", "ibp"] = "default"


UNKNOWN = "unknown"
"""What a manifest says of its authors and licence where nobody told."""


class Recipe(RecipeTable):
    """One reference entry, from the data to the weights.

    Attributes:
        id: of the entry, and of its folder.
        title: for people.
        method: short name that the board shows, e.g. "LWM 10x".
        description: for the manifest.
        authors: who made it; the packaged recipes are ours, any other says "unknown" by default.
        licence: of the weights, likewise.
        links: to a paper or code, for the manifest.
        parent: the recipe whose pre-trained weights this one starts from.
        counterpart: id of the dense entry that one without a parent is compared with.
        track: where the entry competes, and whose training images it uses.
        epsilon: radius of training and of the quick held-out measures, as an exact fraction.
        seed: of everything random.
        validation_rate: share of the *training* images held out to select the epoch.
        validation_images: at most this many of them are measured after each epoch.
        stored: type of convolution and linear weights in the file; "bf16" rounds them to it.
    """

    id: Identifier
    title: ShortText
    method: ShortText
    description: LongText = ""
    authors: Annotated[tuple[ShortText, ...], Field(min_length=1)] = (UNKNOWN,)
    licence: ShortText = UNKNOWN
    links: tuple[Link, ...] = ()
    parent: InstanceOf[Recipe] | None = None
    counterpart: Identifier | None = None
    track: TrackName
    epsilon: Epsilon
    seed: int = 0
    validation_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    validation_images: Positive = 1000
    stored: Literal["float32", "bf16"] = "float32"
    model: Network
    pretrain: TrainStage | None = None
    prune: PruneStage | None = None
    finetune: TrainStage | None = None

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if (self.prune is None) != (self.finetune is None):
            raise ValueError("[prune] and [finetune] belong together; a dense recipe has neither")
        if self.pretrain is None and self.prune is None:
            raise ValueError("nothing to train: add [pretrain], or [prune] and [finetune]")
        if self.parent is not None and self.prune is None:
            raise ValueError("a recipe with a parent prunes it: add [prune] and [finetune]")
        if self.parent is not None and self.parent.prune is not None:
            raise ValueError(f"parent {self.parent.id!r} is pruned itself; name a dense recipe")
        if self.parent is not None and self.counterpart is not None:
            raise ValueError("a recipe with a parent is compared with it: remove counterpart")
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.pretrain is not None and self.pretrain.objective.needs_teacher:
            raise ValueError(
                f"objective {self.pretrain.objective.name!r} learns from the dense parent, which "
                "[pretrain] has not; use it in [finetune]"
            )
        if self.pretrain is not None and self.pretrain.changes_masks:
            key = "regrowth" if self.pretrain.regrowth is not None else "thresholding"
            raise ValueError(f"{key}: [pretrain] has no masks; use it in [finetune]")
        if self.finetune is None or self.prune is None:
            return self
        pruner = self.prune.pruner
        if self.finetune.regrowth is not None and pruner.structure != "unstructured":
            raise ValueError(
                f"regrowth exchanges single weights, and {pruner.name!r} removes whole groups; "
                "choose another pruner, or leave regrowth out"
            )
        if self.finetune.thresholding is not None:
            if not pruner.reads_weights_alone:
                raise ValueError(
                    f"thresholding asks the pruner again and again, and {pruner.name!r} decides by "
                    "more than the weights; choose one such as 'group-l2' or 'lwm'"
                )
            if self.prune.schedule != "one-shot":
                raise ValueError("thresholding goes with schedule = 'one-shot' alone")
        return self

    @property
    def is_taught(self) -> bool:
        """Whether fine-tuning learns from the dense parent."""
        return self.finetune is not None and self.finetune.objective.needs_teacher

    @property
    def compared_with(self) -> str | None:
        """Id of the dense entry that this one is measured against."""
        return self.parent.id if self.parent else self.counterpart

    def with_seed(self, seed: int | None) -> Recipe:
        """This recipe and its parent under another seed, with ids ``<id>-s<seed>``."""
        if seed is None or seed == self.seed:
            return self
        update: dict[str, object] = {"seed": seed, "id": f"{self.id}-s{seed}"}
        if self.parent is not None:
            update["parent"] = self.parent.with_seed(seed)
        if self.counterpart is not None:
            update["counterpart"] = f"{self.counterpart}-s{seed}"
        return self.model_copy(update=update)


#: What a recipe with a parent must not say, because its parent does.
INHERITED = (
    "track",
    "epsilon",
    "seed",
    "validation_rate",
    "validation_images",
    "stored",
    "model",
    "pretrain",
)


RECIPES = Path(__file__).parent / "recipes"


def find_by_id(folder: Path, entry: str) -> Path | None:
    """The recipe of an id within a folder: ``<id>.toml``, or without the folder's name in front.

    ``digits-adv-dense`` is ``digits/adv-dense.toml``.
    """
    for stem in (entry, entry.removeprefix(f"{folder.name}-")):
        path = folder / f"{stem}.toml"
        if path.is_file():
            return path
    return None


def packaged(name: str) -> Path | None:
    """The recipe of this package called ``<track>/<file>`` or by its id, or None."""
    direct = RECIPES / f"{name}.toml"
    if name.count("/") == 1 and direct.is_file():
        return direct
    found = [find_by_id(folder, name) for folder in sorted(RECIPES.iterdir()) if folder.is_dir()]
    return next((path for path in found if path is not None), None)


def packaged_names(track: str | None = None) -> tuple[str, ...]:
    """``<track>/<file>`` of the recipes that come with this package, of one track or of all."""
    paths = sorted(RECIPES.glob(f"{track or '*'}/*.toml"))
    return tuple(f"{path.parent.name}/{path.stem}" for path in paths)
