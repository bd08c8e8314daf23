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

from corobench.baselines.pruners import Pruner
from corobench.baselines.schedules import Cumulative, keep_ratios
from corobench.baselines.settings import RecipeTable
from corobench.baselines.train_stage import Epsilon, Positive, TrainStage
from corobench.benchmark.records.base import Identifier, Link, LongText, ShortText
from corobench.benchmark.tracks import get_track


def _known_track(name: str) -> str:
    try:
        get_track(name)
    except Exception as error:
        raise ValueError(str(error)) from error
    return name


TrackName = Annotated[str, AfterValidator(_known_track)]


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
