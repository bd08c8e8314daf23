"""The procedure: pre-train(objective) -> prune(pruner) -> fine-tune(objective).

The paper ("Towards Compact and Robust Deep Neural Networks", arXiv 1906.06110) has two
insights. :meth:`Procedure.stages` shows both: the two training steps use the objective of the
robustness that is wanted, and the pruning step between them never sees an objective.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from torch import nn

from corobench.baselines import checkpoint, training_data
from corobench.baselines.first_weights import keep_widths
from corobench.baselines.identity import identity_of
from corobench.baselines.masks import Masks
from corobench.baselines.measures import LazyBounds
from corobench.baselines.own_parent import OwnParent
from corobench.baselines.progress import EpochRow, Progress, Trained
from corobench.baselines.publish import publish, published_state
from corobench.baselines.recipe import Recipe
from corobench.baselines.stages import Given, Prune, Train, chosen_anew, plan, prune
from corobench.baselines.teacher import Teacher
from corobench.baselines.trainer import Clock, Paused, StageTrainer
from corobench.baselines.training_data import TrainingData
from corobench.baselines.workspace import Workspace
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.network.compactness import sparsity
from corobench.benchmark.network.device import resolve_device
from corobench.benchmark.submission.architectures import build
from corobench.benchmark.tracks import derive_seed, get_track

Callback = Callable[[Progress], None]


def run(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    seed: int | None = None,
    max_minutes: float | None = None,
    checkpoint_every_s: float = 15.0,
    progress: Callback | None = None,
    parents: Path | None = None,
    own: OwnParent | None = None,
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
        parents: folder of submissions; a parent that is there is not trained, its weights are read.
        own: the network to start from, for a recipe of :func:`baselines.own_parent.adopt`.

    Raises:
        CorobenchError: what the user can fix: recipe, data, device, folder, another recipe's
            checkpoints.
    """
    deadline_s = math.inf if max_minutes is None else time.monotonic() + 60.0 * max_minutes
    recipe = recipe.with_seed(seed)
    data = training_data.load(
        recipe.track,
        recipe.seed,
        recipe.validation_rate,
        recipe.validation_images,
        resolve_device(device),
        data_root,
    )
    clock = Clock(deadline_s, checkpoint_every_s)
    callback = progress or (lambda _: None)
    return Procedure(recipe, Path(out), data, clock, callback, parents, own).train()


def initial_model(recipe: Recipe) -> nn.Module:
    """The recipe's network with its first weights, which depend on track and seed alone."""
    track = get_track(recipe.track)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(recipe.seed, recipe.track, "train:init"))
        model = build(
            recipe.model.architecture, track.shape, track.num_classes, recipe.model.arguments
        )
        if recipe.model.init == "ibp":
            keep_widths(model)
    return model


class Procedure:
    """The stages of one recipe, from its first or its parent's weights to a submission.

    Args:
        recipe: what to do.
        out: root of the submission folders.
        data: of the recipe's track, split.
        clock: when to pause and save.
        callback: told of every epoch.
        parents: submissions to take a parent's weights from, where it is among them.
        own: a parent that is no entry.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        data: TrainingData,
        clock: Clock,
        callback: Callback,
        parents: Path | None = None,
        own: OwnParent | None = None,
    ) -> None:
        self.recipe, self.out, self.data, self.own = recipe, out, data, own
        self.clock, self.callback, self.parents = clock, callback, parents
        self.workspace = Workspace(out, recipe.id)
        self.epsilon = Fraction(recipe.epsilon)
        first = initial_model(recipe) if own is None else own.copy()
        self.model = first.to(data.device)
        self.initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.masks = Masks()
        self.teacher: Teacher | None = None
        track = get_track(recipe.track)
        self.bounds = LazyBounds(self.model, track.shape, track.num_classes)
        self.histories: dict[str, list[EpochRow]] = {}
        self._is_changed = False

    def train(self) -> Trained:
        """Run what is left to do, and publish the weights once all of it is done."""
        self.workspace.prepare()
        if self.recipe.parent is not None:
            state = published_state(self.recipe.parent, self.parents)
            if state is None:
                parent = Procedure(
                    self.recipe.parent, self.out, self.data, self.clock, self.callback
                )
                trained = parent.train()
                if not trained.is_finished:
                    return trained
                state = parent.model.state_dict()
            self.model.load_state_dict(state)
        if self.recipe.is_taught:
            assert self.recipe.parent is not None or self.own is not None
            self.teacher = Teacher(self.model)
        try:
            self.stages()
            is_finished = True
        except Paused:
            is_finished = False
        if self._is_changed or not (self.workspace.training / "curve.png").is_file():
            self.workspace.write_curve(self.recipe.title, self.histories)
        trained = self._trained(is_finished)
        if is_finished:
            publish(self.recipe, self.model, self.workspace, self.data.kind, self.own)
            self._write_summary(trained)
        return trained

    def stages(self) -> None:
        """Pre-train, prune, fine-tune: each from the weights and masks of the one before."""
        for stage in plan(self.recipe):
            path = self.workspace.checkpoint(stage.name)
            identity = identity_of(self.recipe, stage, self.data, self.model, self.masks)
            if self.own is not None:
                identity["parent"] = self.own.fingerprint
            if self.teacher is not None and stage.is_taught:
                identity["teacher"] = self.teacher.fingerprint
            if isinstance(stage, Prune):
                self._prune(stage, path, identity)
            else:
                self._train(stage, path, identity)

    def seed_of(self, purpose: str, index: int) -> int:
        """The seed of everything random in this recipe."""
        return derive_seed(self.recipe.seed, self.recipe.track, purpose, index)

    def _prune(self, stage: Prune, path: Path, identity: checkpoint.Identity) -> None:
        state = checkpoint.load(path, identity, self.data.device)
        if state is None:
            given = Given(self.data, self.epsilon, self.seed_of, self.bounds, self.teacher)
            self.masks = prune(stage, self.model, self.masks, given, self.initial)
            state = {"weights": self.model.state_dict(), "masks": self.masks.state_dict()}
            checkpoint.save(path, identity, state)
        self.model.load_state_dict(state["weights"])
        self.masks = Masks(state["masks"])
        self.callback(Progress(self.recipe.id, stage.name, 0, None, sparsity(self.model)))

    def _train(self, stage: Train, path: Path, identity: checkpoint.Identity) -> None:
        trainer = StageTrainer(
            stage.name,
            stage.settings,
            self.model,
            self.masks,
            self.data,
            self.epsilon,
            self.seed_of,
            self.bounds,
            self.teacher,
            None if stage.pruning is None else partial(self._chosen_anew, stage.pruning),
        )
        self.histories[stage.name] = trainer.history
        share, num_epochs = sparsity(self.model), stage.settings.epochs

        def report(row: EpochRow) -> None:
            self._is_changed = True
            self.callback(Progress(self.recipe.id, stage.name, num_epochs, row, share))

        try:
            trainer.run(path, identity, self.clock, report)
            self.masks = trainer.masks
        finally:
            if trainer.history:
                self.workspace.write_log(stage.name, trainer.history)

    def _chosen_anew(self, stage: Prune) -> Masks:
        given = Given(self.data, self.epsilon, self.seed_of, self.bounds)
        return chosen_anew(stage, self.model, given)

    def _trained(self, is_finished: bool) -> Trained:
        stage, history = list(self.histories.items())[-1]
        selected = [row for row in history if row.is_best]
        return Trained(
            entry=self.recipe.id,
            folder=self.workspace.submission,
            is_finished=is_finished,
            stage=stage,
            epoch=len(history),
            seconds=sum(row.seconds for rows in self.histories.values() for row in rows),
            selected=selected[-1] if is_finished else None,
        )

    def _write_summary(self, trained: Trained) -> None:
        """``summary.json``: the resolved recipe, versions and seconds behind the weights."""
        content = {
            "entry": trained.entry,
            "recipe": self.recipe.model_dump(mode="json"),
            "data": {"kind": self.data.kind, "fingerprint": self.data.fingerprint},
            "device": str(self.data.device),
            "versions": {"torch": torch.__version__},
            "seconds": round(trained.seconds, 3),
        }
        text = json.dumps(content, indent=1, sort_keys=True) + "\n"
        write_atomic(self.workspace.training / "summary.json", text.encode())
