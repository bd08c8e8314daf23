"""How far above zero a computed margin must lie before it counts as a proof."""

from __future__ import annotations

import torch
from torch import Tensor

ABSOLUTE_MARGIN = 1e-4
"""Smallest certified margin in logit units; over ten times the largest rounding excess seen."""

RELATIVE_MARGIN = 1e-5
"""Further margin per unit of the largest absolute logit, for nets with large logits."""


def certified(margins: Tensor, logits: Tensor | None = None) -> Tensor:
    """Whether each image is certified: its smallest lower bound clears the float margin.

    Bounds are computed in float32 without directed rounding, so that a bound of +0 is no proof:
    on nearly linear nets CROWN's lower bound was seen to exceed the margin of an attacked image by
    7.6e-6, and a constructed net is "certified" at +1.9e-6 and broken. The rounding error grows
    with the size of the logits. Hence the condition

        min_j margins[:, j] > ABSOLUTE_MARGIN + RELATIVE_MARGIN * max_k |logits[:, k]|

    A margin that is not finite certifies nothing.

    Args:
        margins: float tensor (B, C-1), lower bounds of logit[label] - logit[other].
        logits: float tensor (B, C), the model's output at the centre of each box; without it only
            the absolute part applies.

    Returns:
        bool tensor (B,).

    Raises:
        ValueError: where the shapes do not fit.

    >>> certified(torch.tensor([[0.5, 2e-4], [0.5, 5e-5]])).tolist()
    [True, False]
    >>> certified(torch.tensor([[0.5, 2e-4]]), torch.tensor([[30.0, 0.0, 1.0]])).tolist()
    [False]
    """
    if margins.ndim != 2 or margins.shape[1] < 1:
        raise ValueError(
            "Expected argument `margins` of shape (B, C-1) with C >= 2, "
            f"but got {tuple(margins.shape)}"
        )
    if logits is not None and (logits.ndim != 2 or len(logits) != len(margins)):
        raise ValueError(
            f"Expected argument `logits` of shape ({len(margins)}, C), "
            f"but got {tuple(logits.shape)}"
        )
    threshold = torch.full_like(margins[:, 0], ABSOLUTE_MARGIN)
    if logits is not None:
        threshold = float_margin(logits.detach().to(margins))
    finite = torch.isfinite(margins).all(dim=1)
    return finite & (margins.amin(dim=1) > threshold)


def float_margin(logits: Tensor) -> Tensor:
    """What the smallest margin of each image must exceed, see `certified`.

    Args:
        logits: float tensor (B, C), the model's output at the centre of each box.

    Returns:
        tensor (B,) of the dtype of `logits`.

    >>> round(float_margin(torch.tensor([[30.0, 0.0, -90.0]])).item(), 6)
    0.001
    """
    size = RELATIVE_MARGIN * logits.abs().amax(dim=1)
    return torch.full_like(size, ABSOLUTE_MARGIN) + size
