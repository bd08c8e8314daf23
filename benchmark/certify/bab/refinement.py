"""From the images that a search comes across to images that the model gets wrong.

Where a linear bound of a margin is smallest, the margin itself is often small, and it is another
image than an attack begins with that knows nothing of the bounds. A few steps downhill from there
break images that AutoAttack leaves (BaB-Attack: Zhang et al., ICML 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corobench.benchmark.certify.margin_spec import margins_of

NUM_STEPS = 25

FIRST_STEP, LAST_STEP, DECAY = 0.5, 0.02, 0.93
"""A step is the last one and a share of the first one that shrinks, in radii of the box."""


@torch.enable_grad()
def refined(model: nn.Module, label: Tensor, low: Tensor, high: Tensor, x_BCHW: Tensor) -> Tensor:
    """From each image downhill on its smallest margin, by signs of the gradient.

    Args:
        model: float32 classifier; its parameters need no gradients.
        label: long (1,).
        low: float32 (1, C, H, W), lower corner of the box.
        high: float32 (1, C, H, W), upper corner.
        x_BCHW: float32, images of the box.

    Returns:
        float32 (B, C, H, W), of each way the image with the smallest margin.
    """
    radius = (high - low) / 2
    labels = label.expand(len(x_BCHW))
    here = x_BCHW.detach().clone()
    best, best_B = here.clone(), torch.full_like(here[:, 0, 0, 0], torch.inf)
    for step in range(NUM_STEPS + 1):
        here.requires_grad_()
        margin_B = margins_of(model(here), labels).amin(dim=1)
        better = margin_B.detach() < best_B
        best[better], best_B[better] = here.detach()[better], margin_B.detach()[better]
        if step == NUM_STEPS or bool((best_B < 0).any()):
            break
        (slope,) = torch.autograd.grad(margin_B.sum(), here)
        length = radius * (LAST_STEP + FIRST_STEP * DECAY**step)
        here = torch.minimum(torch.maximum(here.detach() - length * slope.sign(), low), high)
    return best
