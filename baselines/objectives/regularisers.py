"""What keeps interval bounds trainable in few epochs (Shi et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = 0.5
"""Ratios above this are left alone (their tau)."""

_SMALLEST = 1e-12


def explosion(width_of_input: Tensor, bounds: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How much wider intervals become on the way to the ReLUs: their tightness loss.

    Mean over layers of max(0, tau - E[width of the input] / E[width before the ReLUs]) / tau. The
    input is what the first layer sees, behind a normalisation.

    Args:
        width_of_input: (B, C, H, W), upper less lower corner.
        bounds: before each layer of ReLUs, lower and upper, (B, ...).

    Returns:
        scalar in [0, 1].
    """
    first = width_of_input.mean()
    terms = [_short_of(first / (high - low).mean().clamp(min=_SMALLEST)) for low, high in bounds]
    return torch.stack(terms).mean()


def imbalance(bounds: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How far active and inactive ReLUs differ in mean and variance: their ReLU loss.

    A ratio below tau of the smaller to the larger costs, for the sums of the centres and of their
    squared deviations from the mean of the whole layer and batch, as in the authors' code. Networks
    under interval training tend to switch off.

    Args:
        bounds: before each layer of ReLUs, lower and upper, (B, ...).

    Returns:
        scalar in [0, 2].
    """
    terms = []
    for low, high in bounds:
        centre = (low + high) / 2
        active, inactive = (low > 0).to(centre), (high < 0).to(centre)
        deviation = (centre - centre.mean()).square()
        terms.append(
            _unequal((centre * active).sum(), -(centre * inactive).sum())
            + _unequal((deviation * active).sum(), (deviation * inactive).sum())
        )
    return torch.stack(terms).mean()


def _unequal(one: Tensor, other: Tensor) -> Tensor:
    smaller, larger = torch.minimum(one, other), torch.maximum(one, other)
    return _short_of(smaller / larger.clamp(min=_SMALLEST))


def _short_of(ratio: Tensor) -> Tensor:
    return (TOLERANCE - ratio).clamp(min=0.0) / TOLERANCE
