"""Pruning masks that a file keeps apart from the weights, under a key of their own.

Such a mask is applied to the weight of its name, or the file is refused: weights without their mask
are another, dense network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from corobench.benchmark.submission.weights import State

_WAY_OUT = "apply it before saving: layer.weight.data.mul_(mask)"
_WORD = re.compile(r"_?masks?_?", re.IGNORECASE)
_ITEM = re.compile(r"(?P<list>.*)\[(?P<number>\d+)\]")
MAX_FAULTS = 5


def is_mask_name(name: str) -> bool:
    """Whether a name of a file speaks of a mask."""
    return "mask" in name.lower()


def is_binary(tensor: Tensor) -> bool:
    """Whether a tensor holds nothing but zeros and ones."""
    return bool(((tensor == 0) | (tensor == 1)).all())


def apply_mask_sets(
    state: Mapping[str, Tensor], masks: Mapping[str, Tensor], not_tensors: Sequence[str] = ()
) -> tuple[State, list[str], list[str]]:
    """Weights with masks applied that are named like them, or listed in their order.

    Args:
        state: the network's tensors by its own names, in the order of the file.
        masks: by their names in the file.
        not_tensors: names of what else the file holds and is no tensor.

    Returns:
        The tensors; why a mask cannot be applied; what was done, for people.
    """
    done = dict(state)
    faults = [
        f"`{name}`: expected masks as tensors, named like the weights; {_WAY_OUT}"
        for name in not_tensors
        if is_mask_name(name)
    ]
    num = 0
    for name, weight in _pairs(done, masks).items():
        fault = _misfit(masks[name], None if weight is None else done[weight])
        if fault or weight is None:
            faults.append(f"tensor `{name}`: {fault}; {_WAY_OUT}")
            continue
        done[weight] = torch.where(masks[name] != 0, done[weight], torch.zeros_like(done[weight]))
        num += 1
    if len(faults) > MAX_FAULTS:
        faults = [*faults[:MAX_FAULTS], f"{len(faults) - MAX_FAULTS} more masks do not fit"]
    return (
        done,
        faults,
        [f"applied masks of {num} weight(s), from a key of their own"] if num else [],
    )


def weight_of(name: str, state: Mapping[str, Tensor]) -> str | None:
    """The weight that a mask is named after: by its whole name, or by its layer's.

    >>> weight_of("masks.module.conv1", {"conv1.weight": torch.zeros(1)})
    'conv1.weight'
    """
    words = [short for word in name.split(".") if (short := _WORD.sub("", word))]
    for start in range(len(words)):
        own = ".".join(words[start:])
        for candidate in (own, f"{own}.weight"):
            if candidate in state:
                return candidate
    return None


def _pairs(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Each mask and its weight; None where it cannot be told."""
    pairs: dict[str, str | None] = {}
    lists: dict[str, list[str]] = {}
    for name in masks:
        item = _ITEM.fullmatch(name)
        if item is None:
            pairs[name] = weight_of(name, state)
        else:
            lists.setdefault(item["list"], []).append(name)
    matrices = [name for name, tensor in state.items() if tensor.dim() > 1]
    for items in lists.values():
        fits = len(items) == len(matrices) and all(
            masks[item].shape == state[name].shape
            for item, name in zip(items, matrices, strict=True)
        )
        pairs |= dict(zip(items, matrices, strict=True)) if fits else dict.fromkeys(items)
    return pairs


def _misfit(mask: Tensor, weight: Tensor | None) -> str:
    if weight is None:
        return "a mask that is named like no weight"
    fits = mask.dim() == weight.dim() and all(
        size in (1, full) for size, full in zip(mask.shape, weight.shape, strict=True)
    )
    if not fits:
        return f"a mask of shape {list(mask.shape)} for weights of shape {list(weight.shape)}"
    return "" if is_binary(mask) else "a mask with other values than 0 and 1"
