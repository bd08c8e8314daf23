"""LAMP: magnitudes that layers can be compared by (Lee et al., ICLR 2021, arXiv 2010.07611)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from corobench.baselines.masks import prunable_weights
from corobench.baselines.pruners.base import PruneContext, Scope, ScorePruner


class Lamp(ScorePruner):
    """Score w^2 over the sum of v^2 of all v in the layer that are no smaller: their LAMP score.

    One threshold for all layers then decides how much each of them keeps. The largest weight of a
    layer scores 1, so that no layer is lost. Within a layer the order is that of the magnitudes.
    """

    name: ClassVar[str] = "lamp"
    criterion: ClassVar[str] = "layer-adaptive-magnitude"
    reads_weights_alone: ClassVar[bool] = True
    scope: ClassVar[Scope] = "global"

    def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
        """LAMP score of each weight; those removed before score 0 and change no other."""
        return {name: lamp(weight.detach()) for name, weight in prunable_weights(model).items()}


def lamp(weight: Tensor) -> Tensor:
    """LAMP scores of one layer, float64, of the weight's shape; of equal ones the first is less.

    >>> lamp(torch.tensor([1.0, -2.0, 2.0])).tolist()
    [0.1111111111111111, 0.5, 1.0]
    """
    squares = weight.flatten().double().square()
    order = torch.argsort(squares, stable=True)
    ascending = squares[order]
    no_smaller = ascending.flip(0).cumsum(0).flip(0)
    # In a layer of zeros alone the quotient is 0 / 0; such a layer has nothing to keep.
    scores = torch.zeros_like(squares)
    scores[order] = torch.where(no_smaller > 0, ascending / no_smaller, 0.0)
    return scores.view(weight.shape)
