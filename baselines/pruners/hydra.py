"""HYDRA: which weights to keep is itself trained on the robust loss (Sehwag et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners.base import PruneContext, Pruner, keep_of_targets, least, targets
from corobench.baselines.schedules import num_removed


class Hydra(Pruner):
    """Train scores with the weights frozen; keep the top |score| of every layer.

    The forward pass uses the masked weights themselves, not a live mask, so that bounds stay
    right. Gradients pass the mask straight through, d loss / d|score| = d loss / d weight * w
    (their section 3). The first scores are proportional to w, so training starts at layer-wise
    least weight magnitude.

    Attributes:
        epochs: passes over the training images.
        lr: of SGD with momentum on the scores, cosine to 0.
        momentum: of the same.
    """

    name: ClassVar[str] = "hydra"
    criterion: ClassVar[str] = "least-importance-score"

    epochs: Annotated[int, Field(ge=1)] = 20
    lr: Annotated[float, Field(gt=0.0)] = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9

    @property
    def num_epochs(self) -> int:
        """Those of the scores."""
        return self.epochs

    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Masks of the top scores; the model's weights are as before when it returns."""
        weights = prunable_weights(model)
        names = targets(list(weights), self.exempt)
        keep = keep_of_targets(weights, names, keep_ratio)
        original = {name: weights[name].detach().clone() for name in names}
        scores = {name: initial_score(weight) for name, weight in original.items()}
        optimiser = torch.optim.SGD(list(scores.values()), lr=self.lr, momentum=self.momentum)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs)

        def kept() -> dict[str, Tensor]:
            return {name: top(scores[name], keep, context.previous.get(name)) for name in names}

        try:
            for _ in range(self.epochs):
                for x_BCHW, labels_B in context.batches():
                    _write(weights, original, kept())
                    effective = [weights[name] for name in names]
                    gradients = torch.autograd.grad(context.loss(x_BCHW, labels_B), effective)
                    for name, gradient in zip(names, gradients, strict=True):
                        scores[name].grad = gradient * original[name] * scores[name].sign()
                    optimiser.step()
                schedule.step()
        finally:
            _write(weights, original, {})
        return Masks(kept())


def initial_score(weight: Tensor) -> Tensor:
    """sqrt(6 / fan_in) * W / max|W|: of a layer's usual spread, and in the order of |W|."""
    fan_in = weight[0].numel()
    return math.sqrt(6.0 / fan_in) * weight / weight.abs().max().clamp(min=1e-12)


def top(score: Tensor, keep_ratio: Fraction, previous: Tensor | None) -> Tensor:
    """Bool mask of the largest |score|, never bringing back what `previous` removed."""
    importance = score.detach().abs().cpu()
    if previous is not None:
        importance = importance.masked_fill(~previous.cpu(), -torch.inf)
    return least(importance, num_removed(importance.numel(), keep_ratio))


@torch.no_grad()
def _write(
    weights: Mapping[str, Tensor], original: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> None:
    for name, value in original.items():
        weights[name].copy_(value)
        if name in kept:
            weights[name].masked_fill_(~kept[name].to(value.device), 0.0)
