"""Weights that a layer computes from other tensors before each call, put down as what they are.

What torch stores, told by the names beside a weight ``x``:

- torch.nn.utils.weight_norm: ``x_g`` and ``x_v``; its successor in `parametrizations`:
  ``parametrizations.x.original0`` and ``original1``;
- torch.nn.utils.spectral_norm: ``x_orig``, ``x_u`` and ``x_v``; its successor:
  ``parametrizations.x.original``, ``0._u`` and ``0._v``;
- a mask of torch.ao.pruning: ``parametrizations.x.original`` and ``0.mask``.

In eval mode each is one formula of stored tensors. It is computed by torch's own operators in the
order of torch's own layers, so that the weights are those of the network to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from corobench.benchmark.submission.weights import State

_NEW = re.compile(r"(?P<layer>(?:.*\.)?)parametrizations\.(?P<leaf>\w+)\.(?P<key>.+)")
_BAKE = "bake it before saving: torch.nn.utils.parametrize.remove_parametrizations(layer, {!r})"


def bake_norms(state: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...], tuple[str, ...]]:
    """The state with each computed weight under its own name.

    Args:
        state: a checkpoint's tensors.

    Returns:
        The tensors; why a weight cannot be computed; what was done, for people.
    """
    baked = _without_masks_of_norms(state)
    faults: list[str] = []
    counts = {"weight norm": 0, "spectral norm": 0, "masks of torch.ao.pruning": 0}
    for name, parts in _new_style(state).items():
        leaf = name.rpartition(".")[2]
        kind, weight = _computed(parts)
        if weight is None:
            faults.append(_fault(name, leaf, parts))
            continue
        counts[kind] += 1
        for key in parts:
            del baked[_stored(name, key)]
        baked[name] = weight
    for name in [name for name in baked if name.endswith(("_g", "_orig"))]:
        _bake_old(baked, name, counts, faults)
    notes = [f"applied {kind} of {count} layer(s)" for kind, count in counts.items() if count]
    return baked, tuple(faults), tuple(notes)


def _without_masks_of_norms(state: Mapping[str, Tensor]) -> State:
    """The state with masks of torch.nn.utils.prune on the parts of a weight norm applied."""
    done = dict(state)
    for name in state:
        stem = name.removesuffix("_orig")
        mask = state.get(stem + "_mask")
        is_part = name.endswith("_orig") and stem.endswith(("_g", "_v"))
        if is_part and mask is not None and mask.shape == state[name].shape:
            done[stem] = done.pop(name) * (done.pop(stem + "_mask") != 0)
    return done


def _stored(name: str, key: str) -> str:
    layer, _, leaf = name.rpartition(".")
    return f"{layer}.parametrizations.{leaf}.{key}" if layer else f"parametrizations.{leaf}.{key}"


def _new_style(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Weights that are parametrised -> the tensors that each is computed from."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        match = _NEW.fullmatch(name)
        if match is not None:
            found.setdefault(match["layer"] + match["leaf"], {})[match["key"]] = tensor
    return found


def _computed(parts: Mapping[str, Tensor]) -> tuple[str, Tensor | None]:
    """Which parametrisation it is, and the weight; None where it is another or does not fit."""
    keys = set(parts)
    if keys == {"original0", "original1"}:
        return "weight norm", _weight_norm(parts["original0"], parts["original1"])
    if keys == {"original", "0._u", "0._v"}:
        return "spectral norm", _spectral(*(parts[key] for key in ("original", "0._u", "0._v")))
    if keys == {"original", "0.mask"}:
        mask, weight = parts["0.mask"], parts["original"]
        fits = mask.shape == weight.shape and bool(((mask == 0) | (mask == 1)).all())
        removed = torch.where(mask != 0, weight, torch.zeros_like(weight)) if fits else None
        return "masks of torch.ao.pruning", removed
    return "", None


def _fault(name: str, leaf: str, parts: Mapping[str, Tensor]) -> str:
    if set(parts) == {"original"}:
        return (
            f"tensor `{name}`: the file holds weights from before a parametrisation and not what "
            "it makes of them. A mask of torch.ao.pruning: call sparsifier.squash_mask() and save "
            f"again; another one: {_BAKE.format(leaf)}"
        )
    found = ", ".join(sorted(parts)[:6])
    return f"tensor `{name}`: is computed from {found}, which is not read; {_BAKE.format(leaf)}"


def _bake_old(baked: State, name: str, counts: dict[str, int], faults: list[str]) -> None:
    """Hooks of torch.nn.utils, which store their parts beside the weight."""
    if name not in baked:
        return
    stem, _, kind = name.rpartition("_")
    leaf = stem.rpartition(".")[2]
    direction, vector = baked.get(stem + "_v"), baked.get(stem + "_u")
    if kind == "g" and direction is not None:
        weight = _weight_norm(baked[name], direction)
        if weight is None:
            faults.append(_old_fault(stem, f"torch.nn.utils.remove_weight_norm(layer, {leaf!r})"))
            return
        counts["weight norm"] += 1
        del baked[name], baked[stem + "_v"]
        baked[stem] = weight
    elif kind == "orig" and stem + "_mask" not in baked:
        way = f"torch.nn.utils.remove_spectral_norm(layer, {leaf!r})"
        if vector is None:
            faults.append(_old_fault(stem, f"torch.nn.utils.prune.remove(layer, {leaf!r})"))
            return
        weight = None if direction is None else _spectral(baked[name], vector, direction)
        if weight is None:
            faults.append(_old_fault(stem, way))
            return
        counts["spectral norm"] += 1
        del baked[name], baked[stem + "_u"], baked[stem + "_v"]
        baked[stem] = weight


def _old_fault(stem: str, way: str) -> str:
    return (
        f"tensor `{stem}`: is computed from tensors beside it that are not all here or do not fit; "
        f"bake it before saving: {way}"
    )


def _weight_norm(size: Tensor, direction: Tensor) -> Tensor | None:
    """``v * g / |v|``, the length taken over all axes but the one that `size` has."""
    if not size.is_floating_point() or size.dtype != direction.dtype or direction.ndim == 0:
        return None
    if size.ndim == 0:
        return torch._weight_norm(direction, size, -1)
    axes = [axis for axis, length in enumerate(size.shape) if length != 1]
    axis = axes[0] if axes else 0
    wanted = [1] * direction.ndim
    wanted[axis] = direction.shape[axis] if axis < direction.ndim else 0
    if list(size.shape) != wanted:
        return None
    return torch._weight_norm(direction, size, axis)


def _spectral(weight: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
    """The weight over its largest singular value, as the stored vectors tell it."""
    is_float = weight.is_floating_point() and left.dtype == right.dtype == weight.dtype
    if not is_float or weight.ndim < 2 or left.ndim != 1 or right.ndim != 1:
        return None
    if len(left) != len(weight) or len(right) * len(left) != weight.numel():
        return None
    found: Tensor = weight / torch.dot(left, torch.mv(weight.flatten(1), right))
    return found
