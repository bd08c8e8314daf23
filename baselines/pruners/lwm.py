"""Least weight magnitude, layer by layer: the paper's pruner (arXiv 1906.06110; HYDRA's "LWM")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from corobench.baselines.masks import prunable_weights
from corobench.baselines.pruners.base import PruneContext, ScorePruner


class Lwm(ScorePruner):
    """Score |w|; the same share is removed in every convolution and linear layer."""

    name: ClassVar[str] = "lwm"
    criterion: ClassVar[str] = "least-weight-magnitude"
    reads_weights_alone: ClassVar[bool] = True

    def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
        """Magnitude of each weight."""
        return {name: weight.abs() for name, weight in prunable_weights(model).items()}
