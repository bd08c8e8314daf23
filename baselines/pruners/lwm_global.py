"""Least weight magnitude with one threshold for all layers (boosting-ticket/ticket_robust)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from corobench.baselines.masks import prunable_weights
from corobench.baselines.pruners.base import PruneContext, Scope, ScorePruner


class LwmGlobal(ScorePruner):
    """Score |w| over the layer's mean |w|: without the division whole layers would vanish.

    In a later round the mean is that of the weights still there.

    Attributes:
        normalised: whether to divide; without it the score is |w| itself, as in Han et al. 2015.
    """

    name: ClassVar[str] = "lwm-global"
    criterion: ClassVar[str] = "least-weight-magnitude"
    reads_weights_alone: ClassVar[bool] = True
    scope: ClassVar[Scope] = "global"

    normalised: bool = True

    def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
        """Magnitude, relative to the layer's mean magnitude unless told otherwise."""
        scores = {}
        for name, weight in prunable_weights(model).items():
            magnitude = weight.detach().abs()
            if not self.normalised:
                scores[name] = magnitude
                continue
            kept = context.previous.get(name)
            alive = magnitude if kept is None else magnitude[kept.to(magnitude.device)]
            scores[name] = magnitude / alive.mean().clamp(min=1e-12)
        return scores
