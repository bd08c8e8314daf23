"""What a checkpoint must agree on before a stage goes on from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn

from corobench.baselines.checkpoint import Identity
from corobench.baselines.masks import Masks
from corobench.baselines.recipe import Recipe
from corobench.baselines.stages import Prune, Train
from corobench.baselines.training_data import TrainingData


def identity_of(
    recipe: Recipe, stage: Train | Prune, data: TrainingData, model: nn.Module, masks: Masks
) -> Identity:
    """Everything that decides what a stage gives: its settings, the data, where it starts.

    Names and titles are not in it, so that an entry can be renamed without being trained again.
    """
    identity: Identity = {
        "stage": stage.name,
        "settings": stage.settings.model_dump(mode="json"),
        "track": recipe.track,
        "epsilon": recipe.epsilon,
        "seed": recipe.seed,
        "validation": {"rate": recipe.validation_rate, "images": recipe.validation_images},
        "data": data.fingerprint,
        "starts_from": fingerprint(
            {**model.state_dict(), **{f"mask:{name}": mask for name, mask in masks.items()}}
        ),
    }
    if isinstance(stage, Train) and stage.pruning is not None:
        identity["pruner"] = stage.pruning.settings.model_dump(mode="json")
        identity["keep_ratio"] = stage.pruning.keep_ratio
    if isinstance(stage, Prune):
        identity["keep_ratio"] = stage.keep_ratio
        identity["loss"] = stage.loss_settings.model_dump(mode="json")
    return identity


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
