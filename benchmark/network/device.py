"""The device that networks compute on, and how exactly its products are rounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

from corobench.benchmark.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """A device that is there.

    Args:
        name: as torch calls it, for example "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: unknown to torch, or not present.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # each kind of device has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"--device {name}: not usable here ({reason}); expected cpu, or cuda with a GPU"
        ) from error
    return device


@contextmanager
def rounding_to_tf32(is_allowed: bool) -> Iterator[None]:
    """Whether a GPU may round the operands of convolutions and products to 10 bits of mantissa.

    It holds within the block; what was set before is set again after it.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = is_allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before


@contextmanager
def exact_float32() -> Iterator[None]:
    """Float32 within the block: rounding would make an image's logits depend on its batch.

    Also a decorator, for a whole function.
    """
    with rounding_to_tf32(False):
        yield


@cache
def _pools() -> ThreadpoolController:
    """The pools of threads of the libraries that are loaded; looking for them takes a while."""
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within the block: sums in another order would round otherwise.

    So neither the number of cores nor that of workers changes a number. Also a decorator.
    """
    before = torch.get_num_threads()
    with _pools().limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
