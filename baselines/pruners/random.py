"""Random pruning: the floor that any criterion has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from corobench.baselines.masks import prunable_weights
from corobench.baselines.pruners.base import PruneContext, ScorePruner


class Random(ScorePruner):
    """Uniform scores; the same share is removed in every layer."""

    name: ClassVar[str] = "random"
    criterion: ClassVar[str] = "random"

    def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
        """One uniform number per weight, from the recipe's seed."""
        return {
            name: torch.rand(weight.shape, generator=context.generator)
            for name, weight in prunable_weights(model).items()
        }
