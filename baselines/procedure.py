"""The procedure: pre-train(objective) -> prune(pruner) -> fine-tune(objective).

The paper ("Towards Compact and Robust Deep Neural Networks", arXiv 1906.06110) has two
insights, and both can be read off :func:`_run_stages`: the two training steps use the
objective of the robustness that is wanted, and the pruning step between them never sees it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines import checkpoint, training_data
from baselines.masks import Masks, sparsity
from baselines.measures import LazyBounds
from baselines.publish import publish
from baselines.recipe import Recipe
from baselines.stages import Prune, Train, plan, prune
from baselines.trainer import Clock, EpochRow, Paused, StageTrainer
from baselines.training_data import TrainingData
from baselines.workspace import Workspace
from benchmark.errors import ConfigError
from benchmark.store import write_atomic
from benchmark.submission.architectures import build
from benchmark.tracks import derive_seed, get_track

Histories = dict[str, list[EpochRow]]


@dataclass(frozen=True)
class Progress:
    """What a callback is told: after each epoch, and when a pruning stage is done.

    Attributes:
        entry: id being trained; a parent is trained under its own.
        stage: name of the stage.
        num_epochs: of the stage; 0 for pruning.
        row: of the epoch just done; None for pruning.
        sparsity: share of zeros in convolution and linear weights, in [0, 1].
    """

    entry: str
    stage: str
    num_epochs: int
    row: EpochRow | None
    sparsity: float


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        entry: id.
        folder: the submission folder; valid only if finished.
        is_finished: false where the time given ran out first.
        stage: the last stage worked on.
        epoch: of that stage, epochs done.
        seconds: of training in all runs together, the parent's not counted.
        selected: the held-out measures of the published weights, if finished.
    """

    entry: str
    folder: Path
    is_finished: bool
    stage: str
    epoch: int
    seconds: float
    selected: EpochRow | None


def run(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    seed: int | None = None,
    max_minutes: float | None = None,
    checkpoint_every_s: float = 15.0,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a recipe, and first its parent where that is not yet there, into submissions.

    Run again with the same arguments it goes on from the last checkpoint, to the same weights;
    a finished recipe is only written out again.

    Args:
        recipe: from :func:`baselines.recipe_file.load_recipe`.
        out: root of the submission folders.
        data_root: where to look for the dataset first.
        device: "cpu", "cuda" or "cuda:<index>".
        seed: instead of the recipe's; the id becomes ``<id>-s<seed>``.
        max_minutes: pause, with everything saved, before this has passed; an epoch is the
            smallest unit and at least one is done.
        checkpoint_every_s: least seconds between saves within a stage.
        progress: told of every epoch.

    Raises:
        CorobenchError: what the user can fix: recipe, data, device, folder, another recipe's
            checkpoints.
    """
    deadline_s = math.inf if max_minutes is None else time.monotonic() + 60.0 * max_minutes
    clock = Clock(deadline_s, checkpoint_every_s)
    recipe = recipe.with_seed(seed)
    where = resolve_device(device)
    data = training_data.load(
        recipe.track,
        recipe.seed,
        recipe.validation_rate,
        recipe.validation_images,
        where,
        data_root,
    )
    trained, _, _ = _train(recipe, out, data, clock, progress or (lambda _: None))
    return trained


def resolve_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        ConfigError: no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:
        raise ConfigError(
            f"device {name!r}: expected 'cpu', 'cuda' or 'cuda:<index>' that works here ({error})"
        ) from error
    return device


def _train(
    recipe: Recipe,
    out: Path,
    data: TrainingData,
    clock: Clock,
    progress: Callable[[Progress], None],
) -> tuple[Trained, nn.Module, Masks]:
    """One recipe after its parent; returns the model that was published."""
    track = get_track(recipe.track)
    workspace = Workspace(out, recipe.id)
    workspace.prepare()
    model = initial_model(recipe).to(data.device)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if recipe.parent is not None:
        parent, parent_model, _ = _train(recipe.parent, out, data, clock, progress)
        if not parent.is_finished:
            return parent, parent_model, Masks()
        model.load_state_dict(parent_model.state_dict())
    bounds = LazyBounds(model, track.shape, track.num_classes)
    histories: Histories = {}
    try:
        masks = _run_stages(
            recipe, model, data, workspace, clock, progress, bounds, initial, histories
        )
        is_finished = True
    except Paused:
        masks, is_finished = Masks(), False
    trained = _summary(recipe, workspace, histories, is_finished)
    workspace.write_curve(recipe.title, histories)
    if is_finished:
        publish(recipe, model, workspace, data.kind)
        _write_summary(recipe, workspace, trained, data)
    return trained, model, masks


def _run_stages(
    recipe: Recipe,
    model: nn.Module,
    data: TrainingData,
    workspace: Workspace,
    clock: Clock,
    progress: Callable[[Progress], None],
    bounds: LazyBounds,
    initial: dict[str, Tensor],
    histories: Histories,
) -> Masks:
    """Pre-train, prune, fine-tune: each from the weights and masks of the one before."""
    epsilon = Fraction(recipe.epsilon)
    masks = Masks()

    def seed_of(purpose: str, index: int) -> int:
        return derive_seed(recipe.seed, recipe.track, purpose, index)

    for stage in plan(recipe):
        path = workspace.checkpoint(stage.name)
        identity = _identity(recipe, stage, data, model, masks)
        if isinstance(stage, Prune):
            state = checkpoint.load(path, identity, data.device)
            if state is None:
                masks = prune(stage, model, masks, data, epsilon, seed_of, bounds, initial)
                state = {"weights": model.state_dict(), "masks": masks.state_dict()}
                checkpoint.save(path, identity, state)
            model.load_state_dict(state["weights"])
            masks = Masks(state["masks"])
            progress(Progress(recipe.id, stage.name, 0, None, sparsity(model)))
        else:
            trainer = StageTrainer(
                stage.name, stage.settings, model, masks, data, epsilon, seed_of, bounds
            )
            histories[stage.name] = trainer.history
            _run_training(recipe, stage, trainer, workspace, path, identity, clock, progress)
    return masks


def _run_training(
    recipe: Recipe,
    stage: Train,
    trainer: StageTrainer,
    workspace: Workspace,
    path: Path,
    identity: checkpoint.Identity,
    clock: Clock,
    progress: Callable[[Progress], None],
) -> None:
    share = sparsity(trainer.model)

    def report(row: EpochRow) -> None:
        progress(Progress(recipe.id, stage.name, stage.settings.epochs, row, share))

    try:
        trainer.run(path, identity, clock, report)
    finally:
        if trainer.history:
            workspace.write_log(stage.name, trainer.history)


def initial_model(recipe: Recipe) -> nn.Module:
    """The recipe's network with its first weights, which depend on track and seed alone."""
    track = get_track(recipe.track)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, recipe.track, "train:init"))
        return build(
            recipe.model.architecture, track.shape, track.num_classes, recipe.model.arguments
        )


def _identity(
    recipe: Recipe, stage: Train | Prune, data: TrainingData, model: nn.Module, masks: Masks
) -> checkpoint.Identity:
    """Everything that decides what a stage gives: its settings, the data, where it starts."""
    settings = stage.settings.model_dump(mode="json")
    objective = getattr(stage.settings, "objective", None) or stage.settings.pruner  # type: ignore[union-attr]
    return {
        "stage": stage.name,
        "settings": settings,
        "kind": objective.name,
        "keep_ratio": getattr(stage, "keep_ratio", 1.0),
        "track": recipe.track,
        "epsilon": recipe.epsilon,
        "seed": recipe.seed,
        "validation": [recipe.validation_rate, recipe.validation_images],
        "data": data.fingerprint,
        "starts_from": fingerprint({**model.state_dict(), **_prefixed(masks)}),
    }


def _prefixed(masks: Masks) -> dict[str, Tensor]:
    return {f"mask:{name}": mask for name, mask in masks.items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _summary(
    recipe: Recipe, workspace: Workspace, histories: Histories, is_finished: bool
) -> Trained:
    stage, history = list(histories.items())[-1]
    selected = [row for row in history if row.is_best]
    return Trained(
        entry=recipe.id,
        folder=workspace.submission,
        is_finished=is_finished,
        stage=stage,
        epoch=len(history),
        seconds=sum(row.seconds for rows in histories.values() for row in rows),
        selected=selected[-1] if is_finished and selected else None,
    )


def _write_summary(
    recipe: Recipe, workspace: Workspace, trained: Trained, data: TrainingData
) -> None:
    """``summary.json``: the resolved recipe, versions and seconds behind the weights."""
    content = {
        "entry": trained.entry,
        "recipe": recipe.model_dump(mode="json"),
        "data": {"kind": data.kind, "fingerprint": data.fingerprint},
        "device": str(data.device),
        "versions": {"torch": torch.__version__},
        "seconds": round(trained.seconds, 3),
    }
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_atomic(workspace.training / "summary.json", text.encode())
