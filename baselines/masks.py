"""Masks: which weights are removed, and that they stay removed while training goes on.

A mask never enters the forward pass. Live masks (``torch.nn.utils.prune`` hooks, or
``weight * mask``) are bounded *wrongly without an error* by auto_LiRPA 0.3, so the weights
themselves hold the zeros, from the first step to the file. An optimiser would bring them back,
through momentum or Adam's averages even where the gradient is zero; therefore gradients are
masked before each optimiser step and weights after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from corobench.benchmark.network.compactness import prunable_layers


def prunable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights that count for sparsity: of convolutions and linear layers, in forward order.

    Biases and batch-norm are never among them.

    Returns:
        Parameter name -> parameter.
    """
    return {
        f"{name}.weight" if name else "weight": layer.weight
        for name, layer in prunable_layers(model).items()
    }


class Masks(Mapping[str, Tensor]):
    """Parameter name -> bool tensor of the parameter's shape, true where it is kept.

    Args:
        kept: may name any parameter; a structured pruner also masks biases and batch-norm.
    """

    def __init__(self, kept: Mapping[str, Tensor] | None = None) -> None:
        self._kept = {name: mask.bool() for name, mask in (kept or {}).items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def bind(self, model: nn.Module) -> BoundMasks:
        """Tie the masks to one model's parameters.

        Raises:
            KeyError: a mask names a parameter that the model has not.
        """
        parameters = dict(model.named_parameters())
        pairs = []
        for name, mask in self._kept.items():
            parameter = parameters[name]
            assert mask.shape == parameter.shape, f"mask of {name}: {tuple(mask.shape)}"
            pairs.append((parameter, ~mask.to(parameter.device)))
        return BoundMasks(pairs)

    def apply(self, model: nn.Module) -> None:
        """Set removed weights of `model` to zero."""
        self.bind(model).zero_weights()

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint; ``Masks(state)`` brings them back."""
        return {name: mask.cpu() for name, mask in self._kept.items()}


class BoundMasks:
    """Masks tied to parameters, ready for every training step."""

    def __init__(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
        self._pairs = pairs

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Before the optimiser: removed weights add nothing to momentum or the clipped norm."""
        for parameter, removed in self._pairs:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(removed, 0.0)

    @torch.no_grad()
    def zero_weights(self) -> None:
        """After the optimiser: whatever it did, removed weights are exactly zero (not -0)."""
        for parameter, removed in self._pairs:
            parameter.masked_fill_(removed, 0.0)
