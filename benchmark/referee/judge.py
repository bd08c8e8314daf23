"""The referee: what is claimed about an image is measured again, on the submitted model, alone.

Nothing else decides whether an image is broken: not an attack, not a search, not a stored file.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from corobench.benchmark.referee import threat


@torch.no_grad()
def predict_one_by_one(model: nn.Module, x_BCHW: Tensor) -> Tensor:
    """Logits of each image computed at batch size 1, so that no neighbour plays a part.

    The model gets a copy: what it writes into its input changes no image that is judged.

    Args:
        model: follows the model contract.
        x_BCHW: float32 (B, C, H, W) in [0, 1].

    Returns:
        float32 (B, num_classes); (0, 0) for no images.
    """
    if not len(x_BCHW):
        return x_BCHW.new_zeros((0, 0))
    return torch.cat([model(image_CHW.unsqueeze(0).clone()) for image_CHW in x_BCHW])


def confirm(
    model: nn.Module, x_BCHW: Tensor, y_B: Tensor, proposed_BCHW: Tensor, epsilon: Fraction
) -> tuple[Tensor, Tensor]:
    """The referee: clip what is proposed into the ball, and run the submitted model on each alone.

    Args:
        model: the submitted model in eval mode.
        x_BCHW: float32 (B, C, H, W) in [0, 1].
        y_B: int64 (B,), true classes.
        proposed_BCHW: float32 (B, C, H, W), anything.
        epsilon: exact radius.

    Returns:
        bool (B,), the model errs inside the ball; float32 (B, C, H, W), the clipped images.
    """
    adversarial = threat.project(proposed_BCHW, x_BCHW, epsilon)
    changed = (adversarial != x_BCHW).flatten(1).any(dim=1)
    broken = torch.zeros(len(x_BCHW), dtype=torch.bool, device=x_BCHW.device)
    candidates = torch.nonzero(changed & threat.is_within(adversarial, x_BCHW, epsilon))[:, 0]
    if len(candidates):
        logits = predict_one_by_one(model, adversarial[candidates])
        broken[candidates] = is_wrong(logits, y_B[candidates])
    return broken, adversarial


def is_wrong(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """Whether each prediction errs: another class reaches the label's logit, or one is not finite.

    A tie counts as wrong, in clean accuracy and under attack alike, because a certificate
    promises a strictly positive margin. Logits that are not finite are none that the contract
    knows: an infinite one at the label would win against everything, whatever is in the image.

    >>> is_wrong(torch.tensor([[1.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0])).tolist()
    [True, False]
    >>> is_wrong(torch.tensor([[float("inf"), 1.0]]), torch.tensor([0])).tolist()
    [True]
    """
    own, others = own_and_others(logits_BK, y_B)
    return ~(own > others) | ~torch.isfinite(logits_BK).all(dim=1)


def own_and_others(logits_BK: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's logit of its label, and the largest of the other logits.

    >>> own_and_others(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([1]))
    (tensor([1.]), tensor([3.]))
    """
    own = logits_BK.gather(1, y_B[:, None])[:, 0]
    return own, logits_BK.scatter(1, y_B[:, None], float("-inf")).amax(dim=1)
