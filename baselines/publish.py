"""From trained weights to a submission folder like anybody's: manifest and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from corobench.baselines.budgets import budget_of
from corobench.baselines.own_parent import ONNX, OwnParent, written
from corobench.baselines.recipe import UNKNOWN, PruneStage, Recipe
from corobench.baselines.train_stage import TrainStage
from corobench.baselines.workspace import Workspace
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.network.compactness import sparsity
from corobench.benchmark.records.result import Manifest, Method, Model, Training
from corobench.benchmark.submission.load import load_submission
from corobench.benchmark.submission.manifest import MANIFEST, format_manifest
from corobench.benchmark.submission.weights import rounded, write_weights
from corobench.benchmark.tracks import get_track

WEIGHTS = "model.safetensors"
STORED = {"float32": torch.float32, "bf16": torch.bfloat16}


def manifest_of(
    recipe: Recipe, measured_sparsity: float, data_kind: str, own: OwnParent | None = None
) -> Manifest:
    """What an entry says of itself, taken from its recipe; the sparsity is measured.

    Args:
        recipe: of the entry.
        measured_sparsity: share of zeros in convolution and linear weights, in [0, 1].
        data_kind: "canonical" or "mirror".
        own: the parent that is no entry, of a network that no architecture names.
    """
    track = get_track(recipe.track)
    model = Model(weights=ONNX, num_classes=track.num_classes)
    if own is None:
        model = Model(
            architecture=recipe.model.architecture,
            weights=WEIGHTS,
            num_classes=track.num_classes,
            arguments=recipe.model.arguments,
        )
    mirror = "" if data_kind == "canonical" else " (mirror: bytes differ from the published ones)"
    return Manifest(
        schema=1,
        id=recipe.id,
        title=recipe.title,
        authors=recipe.authors,
        links=recipe.links,
        description=recipe.description,
        licence=recipe.licence,
        track=recipe.track,
        sparsity=round(measured_sparsity, 6),
        parent=recipe.compared_with,
        model=model,
        method=method_of(recipe) if own is None else method_of_own(recipe),
        training=Training(
            data=f"{track.title} training set without the held-out {recipe.validation_rate:g}"
            + mirror,
            seed=recipe.seed,
            epochs=budget_of(recipe).total if own is None else None,
        ),
    )


def method_of(recipe: Recipe) -> Method:
    """Where the entry stands in the taxonomy of pruning for robustness."""
    pretrain = recipe.parent.pretrain if recipe.parent else recipe.pretrain
    if recipe.prune is None or recipe.finetune is None:
        assert pretrain is not None
        return Method(
            name=recipe.method, pipeline="none", pretrain_objective=objective_of(pretrain)
        )
    pruner = recipe.prune.pruner
    return Method(
        name=recipe.method,
        pipeline=pipeline_of(recipe),
        pretrain_objective=objective_of(pretrain) if pretrain is not None else "none",
        finetune_objective=objective_of(recipe.finetune),
        schedule=recipe.prune.schedule,
        structure=pruner.structure,
        scope=pruner.scope,
        criterion=criterion_of(recipe.prune, recipe.finetune),
    )


def pipeline_of(recipe: Recipe) -> Literal["before", "during", "after"]:
    """When weights go, seen from the training that is longest: masks that change go on with it."""
    if recipe.parent is not None or recipe.pretrain is not None:
        return "after"
    changes = recipe.finetune is not None and recipe.finetune.changes_masks
    return "during" if changes else "before"


def objective_of(stage: TrainStage) -> str:
    """What a stage trains with: its objective, and AWP where weights are perturbed."""
    return f"{stage.objective.name} with AWP" if stage.awp is not None else stage.objective.name


def method_of_own(recipe: Recipe) -> Method:
    """The method of a recipe that started from a trained network.

    How that was trained is not known; the user replaces "unknown" in the manifest.
    """
    update = {"pipeline": "after", "pretrain_objective": UNKNOWN}
    return method_of(recipe).model_copy(update=update)


def criterion_of(prune: PruneStage, finetune: TrainStage) -> str:
    """What decided which weights went: the pruner's criterion, and what departs from it."""
    if prune.rewind == "init":
        return f"lottery-ticket ({prune.pruner.criterion})"
    departures = []
    if prune.pruner.exempt:
        departures.append(f"{' and '.join(prune.pruner.exempt)} layer dense")
    if prune.pruner.distribution != "uniform":
        departures.append(prune.pruner.distribution.upper())
    if finetune.regrowth is not None:
        departures.append("regrown by gradient")
    if finetune.thresholding is not None:
        departures.append("chosen anew in training")
    if not departures:
        return prune.pruner.criterion
    return f"{prune.pruner.criterion} ({', '.join(departures)})"


def publish(
    recipe: Recipe,
    model: nn.Module,
    workspace: Workspace,
    data_kind: str,
    own: OwnParent | None = None,
) -> Manifest:
    """Write ``submission.toml`` and ``model.safetensors``; equal weights give equal bytes.

    A network that started from a parent of one's own is written as ``model.onnx``.

    Removed weights are zeros in the file; there are no masks in it. The model is left with the
    weights that the file gives back, which differ where the recipe stores rounded ones.

    Raises:
        OutputError: the folder cannot be written.
    """
    stored = STORED[recipe.stored]
    model.load_state_dict(rounded(model.state_dict(), stored))
    manifest = manifest_of(recipe, sparsity(model), data_kind, own)
    if own is None:
        write_weights(workspace.submission / WEIGHTS, model.state_dict(), stored)
    else:
        write_atomic(workspace.submission / ONNX, written(model, recipe.track))
    write_atomic(workspace.submission / MANIFEST, format_manifest(manifest))
    return manifest


def published_state(recipe: Recipe, parents: Path | None) -> Mapping[str, Tensor] | None:
    """The weights of an entry that was trained before, or None where it is not there.

    Args:
        recipe: of the entry, which says what the weights must be of.
        parents: folder of submission folders, or None.

    Raises:
        SubmissionError: it is there, but not a valid submission.
        ConfigError: it is there, but of another track, network, objective or seed.
    """
    if parents is None or not (parents / recipe.id / MANIFEST).is_file():
        return None
    submission = load_submission(parents / recipe.id)
    found = submission.manifest
    for key, has, needs in (
        ("track", found.track, recipe.track),
        ("model.architecture", found.model.architecture, recipe.model.architecture),
        ("model.arguments", found.model.arguments, recipe.model.arguments),
        ("method", found.method, method_of(recipe)),
        ("training.seed", found.training.seed, recipe.seed),
    ):
        if has != needs:
            raise ConfigError(
                f"{parents / recipe.id / MANIFEST}: `{key}`: expected {needs!r}, as in the recipe "
                f"of {recipe.id}, but found {has!r}; choose another folder with --parents, or "
                "leave it out to train the parent"
            )
    return submission.model.state_dict()
