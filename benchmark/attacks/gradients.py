"""Do gradients tell an attack anything? Named flags for images that neither side decided."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from corobench.benchmark.referee.judge import own_and_others
from corobench.benchmark.tracks import derive_seed

VANISHING = "vanishing-gradient"
SHATTERED = "shattered-gradient"
#: A gradient vanishes where it promises that the whole ball moves the margin by less than this.
MIN_MOVE = 1e-3
#: How far other gradients are taken from the first, as a share of epsilon, how many, ...
STEP = 0.01
NUM_NEAR = 4
#: ... and the mean of their cosines with it below which a gradient is shattered. A single one would
#: not do: the sign of a steep ripple on one pixel agrees with itself every second time.
MIN_COSINE = 0.5
#: Either is a flag where it holds for more than this share of the images that are looked at.
MIN_RATE = 0.5


def doubtful(
    model: nn.Module, x_BCHW: Tensor, y_B: Tensor, epsilon: Fraction, seed: int
) -> tuple[dict[str, int], NDArray[np.bool_]]:
    """How many images have a gradient that tells nothing, by flag; and which have none to speak of.

    Args:
        model: follows the model contract.
        x_BCHW: float32 (B, C, H, W) in [0, 1], on which the model is right.
        y_B: int64 (B,).
        epsilon: exact radius.
        seed: of the run.

    Returns:
        Flag -> images; bool (B,), the images with a margin or a gradient that is not finite at one
        of the points that were looked at, which count for no other flag.
    """
    if not len(x_BCHW):
        return {VANISHING: 0, SHATTERED: 0}, np.zeros(0, dtype=bool)
    generator = torch.Generator().manual_seed(derive_seed(seed, "gradients", str(epsilon)))
    margin_B, gradient_BD = margin_gradient(model, x_BCHW, y_B)
    is_finite_B = torch.isfinite(margin_B) & torch.isfinite(gradient_BD).all(dim=1)
    cosine_B = torch.zeros_like(margin_B)
    for _ in range(NUM_NEAR):
        noise = (torch.rand(x_BCHW.shape, generator=generator) * 2 - 1).to(x_BCHW.device)
        near = (x_BCHW + STEP * float(epsilon) * noise).clamp(0.0, 1.0)
        _, other_BD = margin_gradient(model, near, y_B)
        is_finite_B &= torch.isfinite(other_BD).all(dim=1)
        cosine_B += torch.cosine_similarity(gradient_BD, other_BD, dim=1) / NUM_NEAR
    move_B = float(epsilon) * gradient_BD.abs().sum(dim=1)
    vanishing_B = move_B < MIN_MOVE * margin_B
    shattered_B = (cosine_B < MIN_COSINE) & ~vanishing_B
    counts = {
        VANISHING: int((vanishing_B & is_finite_B).sum()),
        SHATTERED: int((shattered_B & is_finite_B).sum()),
    }
    return counts, ~is_finite_B.cpu().numpy()


def margin_gradient(model: nn.Module, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
    """The label's logit less the largest other one, float64 (B,), and its gradient (B, D)."""
    with torch.enable_grad():
        inputs = x_BCHW.detach().clone().requires_grad_(True)
        own, others = own_and_others(model(inputs), y_B)
        (gradient,) = torch.autograd.grad((own - others).sum(), inputs)
    return (own - others).detach().double(), gradient.flatten(1).double()
