"""The margins of a classifier as linear functions of its logits, and the boxes they range over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def other_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Per image the classes that are not its label, ascending.

    Args:
        labels: long tensor (B,).
        num_classes: C.

    Returns:
        long tensor (B, C-1).

    >>> other_classes(torch.tensor([1, 0]), 3).tolist()
    [[0, 2], [1, 2]]
    """
    rank = torch.arange(num_classes - 1, device=labels.device).expand(len(labels), -1)
    return rank + (rank >= labels[:, None]).long()


def margin_spec(labels: Tensor, num_classes: int) -> Tensor:
    """One row per wrong class: +1 at the label, -1 at the other.

    Bounding these differences is exact in the specification; bounding logits one by one and
    subtracting is much looser.

    Args:
        labels: long tensor (B,).
        num_classes: C.

    Returns:
        float32 tensor (B, C-1, C).

    >>> margin_spec(torch.tensor([1]), 3).tolist()
    [[[-1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]]
    """
    eye = torch.eye(num_classes, device=labels.device)
    return eye[labels][:, None, :] - eye[other_classes(labels, num_classes)]


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """logit[label] - logit[other] for the other classes, ascending.

    Args:
        logits: float tensor (B, C).
        labels: long tensor (B,).

    Returns:
        float tensor (B, C-1).

    >>> margins_of(torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([1])).tolist()
    [[4.0, 3.0]]
    """
    others = logits.gather(1, other_classes(labels, logits.shape[1]))
    return logits.gather(1, labels[:, None]) - others


def check_boxes(
    x_L: Tensor,
    x_U: Tensor,
    labels: Tensor,
    input_shape: Sequence[int],
    num_classes: int,
) -> None:
    """Refuse boxes and labels that do not fit together or the model.

    Raises:
        ValueError: naming the argument.
    """
    if x_L.ndim != len(input_shape) + 1 or tuple(x_L.shape[1:]) != tuple(input_shape):
        raise ValueError(
            f"Expected argument `x_L` of shape (B, {', '.join(map(str, input_shape))}), "
            f"but got {tuple(x_L.shape)}"
        )
    if x_U.shape != x_L.shape:
        raise ValueError(
            f"Expected argument `x_U` of the shape of `x_L`, {tuple(x_L.shape)}, "
            f"but got {tuple(x_U.shape)}"
        )
    if not bool((x_L <= x_U).all()):
        raise ValueError("Expected `x_L` <= `x_U` everywhere, but a lower corner is above or NaN")
    if labels.ndim != 1 or len(labels) != len(x_L) or labels.is_floating_point():
        raise ValueError(
            f"Expected argument `labels` to be {len(x_L)} integers, "
            f"but got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(f"Expected argument `labels` in [0, {num_classes}), but got others")
