"""Parts that every architecture shares: input normalisation and the width of layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Per-channel ``(x - mean) / std`` inside the model, so that the input stays in [0, 1].

    Args:
        mean: one number per channel.
        std: one positive number per channel.

    >>> Normalize([0.5], [0.25])(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)


def split_normalize(model: nn.Module) -> tuple[Normalize | None, nn.Module]:
    """The leading :class:`Normalize` of a model, or None, and the network behind it.

    A certifier gives the network the normalised box instead, for what cannot be bounded inside.
    """
    if isinstance(model, nn.Sequential) and len(model) > 1 and isinstance(model[0], Normalize):
        rest = model[1] if len(model) == 2 else model[1:]
        return model[0], rest
    return None, model


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded half to even, at least 1.

    >>> scaled(16, 0.25), scaled(16, 0.01)
    (4, 1)
    """
    return max(1, round(channels * width))


def conv_out(size: int, kernel: int, stride: int, padding: int) -> int:
    """Height or width after a convolution.

    >>> conv_out(28, kernel=4, stride=2, padding=1)
    14
    """
    return (size + 2 * padding - kernel) // stride + 1
