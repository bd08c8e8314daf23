"""SNIP: connection sensitivity on a few batches (Lee et al., ICLR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.masks import prunable_weights
from corobench.baselines.pruners.base import PruneContext, Scope, ScorePruner


class Snip(ScorePruner):
    """Score |w * dL/dw|, one threshold for all layers.

    In a recipe without ``[pretrain]`` it prunes before training, as in the paper.

    Attributes:
        num_batches: over which the gradient is averaged.
        loss: "robust" is that of the first training stage, "natural" the cross-entropy of clean
            images, as published.
    """

    name: ClassVar[str] = "snip"
    criterion: ClassVar[str] = "gradient"
    scope: ClassVar[Scope] = "global"

    num_batches: Annotated[int, Field(ge=1)] = 8
    loss: Literal["robust", "natural"] = "robust"

    def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
        """Sensitivity of the loss to each connection."""
        weights = prunable_weights(model)
        sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for x_BCHW, labels_B in islice(context.batches(), self.num_batches):
            if self.loss == "natural":
                loss = F.cross_entropy(model(x_BCHW), labels_B)
            else:
                loss = context.loss(x_BCHW, labels_B)
            for name, gradient in zip(
                weights, torch.autograd.grad(loss, list(weights.values())), strict=True
            ):
                sums[name] += gradient
        return {name: (sums[name] * weight.detach()).abs() for name, weight in weights.items()}
