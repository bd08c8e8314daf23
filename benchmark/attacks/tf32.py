"""Search in TF32: on a GPU, attacks may compute with tensor cores; what counts is float32.

TF32 rounds the operands of convolutions and products to 10 bits of mantissa and is several times
as fast. It is what torch does in convolutions by default. Proofs never use it, and neither does
the referee: a claim that float32 does not confirm is attacked once more in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from corobench.benchmark.attacks import layout
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.network.device import rounding_to_tf32

#: Largest difference of an image's logits, as a share of their spread, for which TF32 is used.
TOLERANCE = 0.02


@contextmanager
def tf32(is_on: bool = True) -> Iterator[None]:
    """TF32 within the block, on devices that have it; what was set before is set again after it."""
    with rounding_to_tf32(True) if is_on else nullcontext():
        yield


def require_gpu(device: torch.device) -> None:
    """Refuse to search in TF32 where there is none.

    Raises:
        ConfigError: not a GPU.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"--tf32: expected a GPU (--device cuda), but the device is {device}; leave it out"
        )


@torch.no_grad()
def is_close(model: nn.Module, x_BCHW: Tensor) -> bool:
    """Whether TF32 changes no image's logits by more than `TOLERANCE` of their spread.

    A network whose margins drown in the rounding would be searched blindly.

    Args:
        model: in eval mode.
        x_BCHW: float32 (B, C, H, W) in [0, 1].
    """
    exact_BK = model(x_BCHW)
    with tf32():
        found_BK = model(x_BCHW)
    return layout.is_close(found_BK, exact_BK, TOLERANCE)
