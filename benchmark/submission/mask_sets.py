"""Pruning masks that a file keeps apart from the weights, under a key of their own.

Such a mask is applied to the weight of its name, or the file is refused: weights without their mask
are another, dense network.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

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


def is_beside_its_weight(name: str, others: Collection[str]) -> bool:
    """Whether a mask stands beside a weight of its own, in another network of the same file.

    Args:
        name: of the mask.
        others: names beside it.

    >>> is_beside_its_weight("raw.conv.weight_mask", ["raw.conv.weight_orig"])
    True
    """
    layer, _, leaf = name.rpartition(".")
    prefix = f"{layer}." if layer else ""
    short = prefix + leaf.removesuffix("_mask")
    return bool(leaf) and not {short, f"{short}_orig", f"{prefix}weight"}.isdisjoint(
        {*others} - {name}
    )


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
    used: dict[str, str] = {}
    for name, weight in _pairs(done, masks).items():
        fault = _misfit(masks[name], None if weight is None else done[weight])
        first = used.get(weight or "")
        if first is not None and not _is_same(masks[first], masks[name]):
            fault = fault or f"another mask than `{first}` for the same weights"
        if fault or weight is None:
            faults.append(f"tensor `{name}`: {fault}; {_WAY_OUT}")
            continue
        done[weight] = torch.where(masks[name] != 0, done[weight], torch.zeros_like(done[weight]))
        used.setdefault(weight, name)
    num = len(used)
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
    >>> weight_of("conv1.pruning_mask", {"conv1.weight": torch.zeros(1)})
    'conv1.weight'
    """
    shortened = [short for word in name.split(".") if (short := _WORD.sub("", word))]
    of_its_layer = [word for word in name.split(".") if not is_mask_name(word)]
    for words in (shortened, of_its_layer):
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
        if item is not None:
            lists.setdefault(item["list"], []).append(name)
            continue
        pairs[name] = weight_of(name, state)
        holder, _, last = name.rpartition(".")
        if last.isdecimal():  # a mapping by numbers is a list, or named after layers 0, 1, ...
            lists.setdefault(holder, []).append(name)
    for items in lists.values():
        by_name = {item: pairs[item] for item in items if item in pairs}
        if by_name and not any(
            _misfit(masks[item], None if weight is None else state[weight])
            for item, weight in by_name.items()
        ):
            continue
        pairs |= _in_order(items, masks, state)
    return pairs


def _in_order(
    items: Sequence[str], masks: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, str | None]:
    """Masks in the order of the matrices, or of all weights and biases; None where neither fits."""
    own = [name for name in state if name.rpartition(".")[2] in ("weight", "bias")]
    for names in ([name for name in own if state[name].dim() > 1], own):
        if len(items) == len(names) and all(
            masks[item].shape == state[name].shape for item, name in zip(items, names, strict=True)
        ):
            return dict(zip(items, names, strict=True))
    return dict.fromkeys(items)


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one != 0) == (other != 0)).all())


def looks_like_mask(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor that is called no mask may be one: it says which weights are kept.

    Args:
        name: in the file.
        tensor: that stands beside the network.
        state: the network's tensors by its own names.
    """
    named = weight_of(name, state)
    weight = None if named is None else state[named]
    if weight is not None and weight.dim() > 1 and tensor.numel() > 1:
        if not tensor.is_floating_point() and tensor.dtype != torch.bool and tensor.dim() == 1:
            return True  # places of weights
        if tensor.numel() == weight.numel() and is_binary(tensor) and bool(tensor.any()):
            return True
    shapes = {one.shape for one in state.values() if one.dim() > 1}
    return tensor.shape in shapes and is_binary(tensor) and bool(tensor.any())


def _misfit(mask: Tensor, weight: Tensor | None) -> str:
    if weight is None:
        return "a mask that is named like no weight"
    fits = mask.dim() == weight.dim() and all(
        size in (1, full) for size, full in zip(mask.shape, weight.shape, strict=True)
    )
    if not fits:
        return f"a mask of shape {list(mask.shape)} for weights of shape {list(weight.shape)}"
    return "" if is_binary(mask) else "a mask with other values than 0 and 1"
