"""Groups of weights by L2 norm: filters, and columns of linear layers (VeriCompress)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners.base import PruneContext, Pruner, Structure, least, targets
from corobench.benchmark.errors import ConfigError


class GroupL2(Pruner):
    """Remove whole filters of convolutions and columns of linear layers, those of least L2 norm.

    A column is what reads one value of the layer before. Groups and shares are as in VeriCompress
    (Kaur et al., AAAI 2024, arXiv 2211.09945, and their public code): convolutions and the last
    layer lose half the share that other linear layers lose. Shares are rounded to whole groups, so
    that a layer keeps up to a group more, and at least one. Biases stay: a filter that was removed
    can come back while masks change (`[finetune.thresholding]`).
    """

    name: ClassVar[str] = "group-l2"
    criterion: ClassVar[str] = "group-l2-norm"
    structure: ClassVar[Structure] = "structured"
    reads_weights_alone: ClassVar[bool] = True
    takes_distribution: ClassVar[bool] = False

    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Masks of weights alone.

        Raises:
            ConfigError: so few weights may stay that linear layers would lose all of theirs.
        """
        weights = prunable_weights(model)
        names = targets(list(weights), self.exempt)
        shares = removed_shares(weights, names, keep_ratio)
        masks = {}
        for name in names:
            norms = group_norms(weights[name])
            if name in context.previous:
                gone = ~_grouped(context.previous[name].cpu()).any(dim=1)
                norms = norms.masked_fill(gone, -1.0)
            kept = least(norms, min(math.floor(shares[name] * len(norms)), len(norms) - 1))
            spread = kept[None] if weights[name].dim() == 2 else kept.view(-1, 1, 1, 1)
            masks[name] = spread.expand_as(weights[name]).clone()
        return Masks(masks)


def removed_shares(
    weights: Mapping[str, Tensor], names: list[str], keep_ratio: float
) -> dict[str, Fraction]:
    """The share of its weights that each layer loses, so that all together keep `keep_ratio`.

    Args:
        weights: of all layers, in forward order.
        names: of the layers that are pruned.
        keep_ratio: kept share of all weights.

    Raises:
        ConfigError: a share would be 1 or more.

    >>> three = {"a": torch.zeros(4, 3, 2, 2), "b": torch.zeros(6, 4), "c": torch.zeros(4, 6)}
    >>> {name: str(share) for name, share in removed_shares(three, list(three), 0.5).items()}
    {'a': '2/5', 'b': '4/5', 'c': '2/5'}
    """
    last = list(weights)[-1]
    factor = {
        name: Fraction(1) if weights[name].dim() == 2 and name != last else Fraction(1, 2)
        for name in names
    }
    total = sum(weight.numel() for weight in weights.values())
    share = (
        (1 - Fraction(repr(keep_ratio)))
        * total
        / sum(factor[name] * weights[name].numel() for name in names)
    )
    shares = {name: share * factor[name] for name in names}
    if max(shares.values()) >= 1:
        raise ConfigError(
            f"[prune] keep_ratio {keep_ratio}: convolutions and the last layer lose half the share "
            "of other layers, which would have nothing left; keep more, or exempt fewer layers"
        )
    return shares


def group_norms(weight: Tensor) -> Tensor:
    """L2 norm of each group of a layer, float32 on the CPU.

    Args:
        weight: (K, C) of a linear layer, or (K, C, H, W) of a convolution.

    Returns:
        (C,), of columns, or (K,), of filters.

    >>> group_norms(torch.tensor([[3.0, 0.0], [4.0, 1.0]])).tolist()
    [5.0, 1.0]
    """
    norms: Tensor = torch.linalg.vector_norm(_grouped(weight.detach().float().cpu()), dim=1)
    return norms


def _grouped(weight: Tensor) -> Tensor:
    """One row for each group."""
    return weight.t() if weight.dim() == 2 else weight.flatten(1)
