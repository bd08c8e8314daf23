"""Steps that give values another order, shape or number, and compute nothing: slices, transposes,
shuffles, borders that repeat values.

What such a step does is found by doing it to the numbers of the places, for one image, two and
three, so that one which mixes images is seen, or does something else to one image alone.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.rounding import Array

MODULES = (
    nn.ChannelShuffle,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.Unflatten,
    nn.UpsamplingNearest2d,
)
NAMED = ("Border", "Broadcast", "Slice", "Transpose")
"""Layers of ONNX files."""

_METHODS = (
    *("chunk", "expand", "flip", "movedim", "narrow", "permute", "select", "split", "squeeze"),
    *("swapaxes", "t", "transpose", "tile", "unbind", "unflatten", "unsqueeze"),
)
_FUNCTIONS = (
    *(torch.chunk, torch.flip, torch.movedim, torch.narrow, torch.permute, torch.select),
    *(torch.split, torch.squeeze, torch.swapaxes, torch.t, torch.tile, torch.transpose),
    *(torch.unbind, torch.unflatten, torch.unsqueeze, F.channel_shuffle, F.pixel_shuffle),
    *(F.pixel_unshuffle, operator.getitem),
)
_OF_CONSTANTS = ("contiguous", "detach", "flatten", "reshape", "view", torch.flatten, torch.reshape)
"""Those that are allowed on stored tensors as well."""


def rearranges(target: Any) -> bool:
    """Whether a function or the name of a method does nothing but rearrange."""
    return target in _METHODS or any(target is one for one in _FUNCTIONS)


def is_layer(layer: nn.Module) -> bool:
    """Whether what a layer gives may lie in the memory of what it gets."""
    kinds = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, *MODULES)
    return isinstance(layer, kinds) or type(layer).__name__ in (*NAMED, "Reshape")


def places_of(step: Callable[[Tensor], Any], shape: Sequence[int]) -> list[np.ndarray]:
    """Which value of an image stands where after a step; one array for each tensor that it gives.

    Args:
        step: takes a batch.
        shape: of one image before it.

    Raises:
        UncheckableError: it mixes images, or fails.
    """
    found = [_places_of(step, shape, num_images) for num_images in (1, 2, 3)]
    for other in found[1:]:
        if len(other) != len(found[0]) or not all(map(np.array_equal, found[0], other)):
            raise UncheckableError("a rearrangement that depends on the number of images")
    return found[0]


def _places_of(
    step: Callable[[Tensor], Any], shape: Sequence[int], num_images: int
) -> list[np.ndarray]:
    """The same for so many images at once."""
    num = int(np.prod(shape))
    numbers = torch.arange(num_images * num, dtype=torch.float64).reshape(num_images, *shape)
    try:
        found = step(numbers)
    except Exception as error:  # arguments are a stranger's
        raise UncheckableError(f"a rearrangement ({type(error).__name__})") from error
    parts = list(found) if isinstance(found, tuple | list) else [found]
    places = []
    for part in parts:
        if not isinstance(part, Tensor) or part.ndim < 2 or len(part) != num_images:
            raise UncheckableError("a rearrangement that mixes images")
        images = part.long().numpy()
        shifts = num * np.arange(num_images).reshape(-1, *[1] * (part.ndim - 1))
        if not (images[:1] + shifts == images).all():
            raise UncheckableError("a rearrangement that mixes images")
        places.append(images[0])
    return places


def constant(target: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> Array | None:
    """A stored tensor in another order or shape; None where a step does more than that."""
    first = arguments[0] if arguments else None
    if not isinstance(first, np.ndarray) or not (
        rearranges(target) or any(target is one or target == one for one in _OF_CONSTANTS)
    ):
        return None
    tensor = torch.from_numpy(np.ascontiguousarray(first))
    function = getattr(Tensor, target) if isinstance(target, str) else target
    found = function(tensor, *arguments[1:], **keywords)
    return found.numpy() if isinstance(found, Tensor) else None
