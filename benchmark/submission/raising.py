"""What a forward pass raises: whether it is the network's doing, and how it is said."""

from __future__ import annotations

import dis

import torch
from torch import Tensor, nn

_RAISE = dis.opmap["RAISE_VARARGS"]


def is_of_the_code(error: BaseException) -> bool:
    """Whether code raised an error itself, so that the network is at fault and nobody outside.

    `SystemExit` is always raised by code. `KeyboardInterrupt` comes from somebody's keyboard,
    unless the last thing that was done before it is a ``raise``.

    >>> is_of_the_code(SystemExit())
    True
    """
    if not isinstance(error, KeyboardInterrupt):
        return True
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_code.co_code[place.tb_lasti] == _RAISE


def failure(model: nn.Module, error: BaseException, images: Tensor) -> str:
    """Why a network does not take images, with a way out where its weights are of another type.

    Args:
        model: that was called.
        error: that it raised.
        images: that it was given.
    """
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"expected the model to take float32 {list(images.shape)}, but it failed with "
        f"{type(error).__name__}: {first_line[:200]}{of_another_type(model)}"
    )


def of_another_type(model: nn.Module) -> str:
    """What to do about weights that are not float32; "" where all are."""
    others = (one.dtype for one in model.parameters() if one.is_floating_point())
    found = next((one for one in others if one != torch.float32), None)
    if found is None:
        return ""
    return f"; its weights are {str(found).removeprefix('torch.')}: call model.float()"
