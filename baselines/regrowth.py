"""Masks that change while a pruned network trains: RigL (Evci et al., ICML 2020).

Now and then the least weights of each layer go, and as many removed ones come back, those whose
gradient is largest. Each layer keeps its number of weights. With the gradient of a robust loss
this is FlyingBird (Chen et al., ICLR 2022, arXiv 2202.09844).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from corobench.baselines.masks import Masks
from corobench.baselines.pruners.base import least
from corobench.baselines.train_stage import Regrowth


class Regrower:
    """Decides when masks change in a stage, and how.

    Args:
        settings: the recipe's table.
        num_steps: of the whole stage.
    """

    def __init__(self, settings: Regrowth, num_steps: int) -> None:
        self._settings = settings
        self._end = settings.until * num_steps

    def is_due(self, step: int) -> bool:
        """Whether masks change at this step, counted from 0, instead of the weights."""
        return 0 < step < self._end and step % self._settings.every == 0

    def share(self, step: int) -> float:
        """Share of the kept weights that is exchanged: falls from `share` to 0, half a cosine."""
        return self._settings.share / 2.0 * (1.0 + math.cos(step * math.pi / self._end))

    def masks(self, model: nn.Module, masks: Masks, step: int) -> Masks:
        """The next masks.

        Args:
            model: with the gradients of all weights, removed ones too.
            masks: the present ones.
            step: of this change.
        """
        parameters = dict(model.named_parameters())
        share = self.share(step)
        found = {}
        for name, kept in masks.items():
            gradient = parameters[name].grad
            assert gradient is not None, f"{name} takes no part in the loss"
            found[name] = exchanged(parameters[name].detach(), gradient, kept, share)
        return Masks(found)


def exchanged(weight: Tensor, gradient: Tensor, kept: Tensor, share: float) -> Tensor:
    """Drop the least magnitudes and grow the largest gradients, equally many.

    A weight that was just dropped may be grown at once, as in the paper.

    Args:
        weight: of a layer.
        gradient: of the loss in it, of the same shape.
        kept: bool mask.
        share: of the kept weights, in [0, 1], rounded down.

    Returns:
        Bool mask on the CPU, with as many true values as `kept`.

    >>> w, g = torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 2.0])
    >>> exchanged(w, g, torch.tensor([True, True, False, False]), 0.5)
    tensor([ True, False, False,  True])
    """
    kept = kept.cpu()
    num_kept = int(kept.sum())
    count = int(share * num_kept)
    magnitude = weight.abs().float().cpu().masked_fill(~kept, -torch.inf)
    staying = least(magnitude, kept.numel() - num_kept + count)
    steepness = gradient.abs().float().cpu().masked_fill(staying, torch.inf)
    return least(steepness, kept.numel() - num_kept)


@torch.no_grad()
def forget(optimiser: torch.optim.Optimizer, parameter: nn.Parameter, changed: Tensor) -> None:
    """Set an optimiser's averages of some weights to 0: what comes back starts anew.

    Args:
        optimiser: of the parameter.
        parameter: of a layer.
        changed: bool, of its shape.
    """
    for value in optimiser.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(changed.to(value.device), 0.0)
