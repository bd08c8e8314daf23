"""Adversarial weight perturbation (AWP; Wu et al., NeurIPS 2020, arXiv 2004.05884)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_SMALLEST = 1e-20


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """After the block all buffers are as before: a look at the loss moves no running statistics."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)


def uphill(values: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    """gamma * ||values|| * g / ||g||: one step along the gradient, of a relative size.

    >>> uphill(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), 0.5)
    tensor([0.0000, 2.5000])
    """
    length = gradient.norm().clamp(min=_SMALLEST)
    step: Tensor = gamma * values.norm() / length * gradient
    return step


@contextmanager
def perturbed(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], gamma: float
) -> Iterator[None]:
    """Within the block each layer's weights are moved along the gradient; afterwards as before.

    v = gamma * ||w|| * g / ||g|| in each layer, one step to the sphere of the relative size gamma
    (as in their public code). Training then takes the gradient at w + v for w.

    Args:
        weights: of convolutions and linear layers; biases and batch-norm are not perturbed.
        gradients: of the loss at the adversarial images, of the same shapes, 0 where a weight is
            removed.
        gamma: size of the perturbation as a share of the weights' norm.
    """
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.add_(uphill(weight, gradient, gamma))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
