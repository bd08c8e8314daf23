"""A checkpoint's tensors under the names of a network, or why they cannot be brought there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from corobench.benchmark.errors import SubmissionError
from corobench.benchmark.submission.collecting import Collected
from corobench.benchmark.submission.fitting import NORMALIZE, Matched, Parts, core_of, fit
from corobench.benchmark.submission.mask_sets import (
    apply_mask_sets,
    is_beside_its_weight,
    is_mask_name,
    looks_like_mask,
)
from corobench.benchmark.submission.masks import MIN_KEEP_RATIO, bake_masks
from corobench.benchmark.submission.naming import Place, find_places, nearest_place
from corobench.benchmark.submission.reparametrised import bake_norms
from corobench.benchmark.submission.weights import MAX_LISTED, State, is_counter

#: Names of a normalisation's two tensors, whatever stands before both.
_MEAN = re.compile(r"(?P<stem>(?:.*\.)?_?(?:new_|image_|pixel_|data_)?)(?:means?|mu)")
_STDS = ("std", "stds", "sigma", "sd")
MAX_CHANNELS = 4
_NO_NAMES = (
    "expected a state dict (names to tensors), but found {}; save it with "
    "torch.save(model.state_dict(), path)"
)


def match(
    path: Path,
    found: Collected,
    expected: Mapping[str, Tensor],
    *,
    key: str | None = None,
    keep_ratio: float | None = None,
    min_keep_ratio: float = MIN_KEEP_RATIO,
) -> Matched:
    """Bring a checkpoint's tensors to those of the network, with masks and norms applied.

    Args:
        path: to name in errors.
        found: from :func:`~corobench.benchmark.submission.collecting.collect`.
        expected: state dict of the network.
        key: of the one set of weights that is meant, where the file holds several.
        keep_ratio: share of each layer that HYDRA's scores keep.
        min_keep_ratio: smallest share of a layer under HARP.

    Raises:
        SubmissionError: the network is nowhere in the file, or in several places with other
            values, or a mask cannot be applied; every fault.
    """
    if found.faults:
        raise SubmissionError(path, found.list_faults())
    tensors = {name: one for name, one in found.tensors.items() if not is_counter(name)}
    wanted = {name: one for name, one in expected.items() if not is_counter(name)}
    core = core_of(wanted)
    asked = tensors if key is None else _under(path, found, tensors, key)
    parts = _part(tensors, _place(path, found, asked, core), found)
    norms, norm_faults, norm_notes = bake_norms(parts.own)
    baked = bake_masks(norms, keep_ratio, min_keep_ratio)
    state = dict(baked.state)
    faults = [*norm_faults, *baked.faults]
    pair, pair_faults = _normalisation(state, parts.beside)
    faults += pair_faults
    notes = [*norm_notes, *baked.notes]
    masks = _masks(state, parts, faults)
    state, mask_faults, mask_notes = apply_mask_sets(state, masks, found.not_tensors)
    faults += mask_faults
    if faults:
        raise SubmissionError(path, faults[:MAX_LISTED])
    if others := _others(parts, core, found):
        mask_notes.append(
            f"not taken: other weights under {', '.join(others)}; --state-key names another set"
        )
    return fit(path, parts, state, pair, wanted, [*notes, *mask_notes])


# ------------------------------------------------------------------------------ where it is


def _under(path: Path, found: Collected, tensors: State, key: str) -> State:
    """The tensors under a key that was named."""
    key = key.rstrip(".")
    chosen = {
        name: tensor for name, tensor in tensors.items() if name.startswith((f"{key}.", f"{key}["))
    }
    if not chosen:
        raise SubmissionError(
            path,
            [
                f"expected a state dict (names to tensors) under {key!r} (--state-key), but found "
                f"{found.what}"
            ],
        )
    return chosen


def _place(path: Path, found: Collected, tensors: State, core: Mapping[str, Tensor]) -> Place:
    """Where the network is; the nearest place where it is nowhere by name."""
    if not set(tensors) - {""}:
        raise SubmissionError(path, [_NO_NAMES.format(found.what)])
    norms, norm_faults, _ = bake_norms(tensors)
    plain = {
        name: one
        for name, one in bake_masks(norms, 1.0).state.items()
        if "parametrizations" not in name.split(".")
    }
    places = find_places(plain, core)
    if len(places) > 1:
        keys = [_key(place, places, found) for place in places]
        raise SubmissionError(
            path,
            [
                f"expected one set of weights, but found {len(places)} that differ; raw and "
                "averaged weights are different networks, so say which one with --state-key: "
                f"{', '.join(keys)}"
            ],
        )
    if places:
        return places[0]
    if norm_faults:
        raise SubmissionError(path, norm_faults[:MAX_LISTED])
    if all(name.startswith("[") for name in plain):
        raise SubmissionError(path, [_NO_NAMES.format(found.what)])
    nearest = nearest_place(plain, core)
    if 2 * len(nearest.names) > len(core):
        return nearest
    holders = [_holder(name, found) for name in plain]
    return Place(max(dict.fromkeys(holders), key=holders.count), {})


def _key(place: Place, places: list[Place], found: Collected) -> str:
    """What to say with --state-key for one of several places."""
    holders = {one.prefix: _holder(next(iter(one.names.values())), found) for one in places}
    own = holders[place.prefix]
    is_alone = own and list(holders.values()).count(own) == 1
    return (own if is_alone else place.prefix).rstrip(".")


def _holder(name: str, found: Collected) -> str:
    """The mapping or list that holds a tensor, as its names begin; "" is the file itself."""
    return max((one for one in found.containers if name.startswith(one)), key=len, default="")


def _part(tensors: State, place: Place, found: Collected) -> Parts:
    names = place.names.values() or [name for name in tensors if name.startswith(place.prefix)]
    holders = {_holder(name, found) for name in names}
    parts = Parts(place, next(iter(holders)) if len(holders) == 1 else "")
    for name, tensor in tensors.items():
        own = place.own(name)
        if _holder(name, found) not in holders:
            parts.elsewhere[name] = tensor
        elif own is None:
            parts.beside[name.removeprefix(parts.holder)] = tensor
        else:
            parts.own[own] = tensor
    return parts


# ------------------------------------------------------------------------------ what is there


def _normalisation(state: State, beside: State) -> tuple[State, list[str]]:
    """The mean and the deviation in front of a network, taken out of what it is found in."""
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for table in (state, beside):
        for name in list(table):
            found = _MEAN.fullmatch(name)
            deviations = [found["stem"] + one for one in _STDS] if found else []
            std = next((one for one in deviations if one in table), None)
            if std is not None and table[name].numel() == table[std].numel() <= MAX_CHANNELS:
                pairs[name] = (table.pop(name).reshape(-1), table.pop(std).reshape(-1))
    if not pairs:
        return {}, []
    (first, (mean_C, std_C)), *others = pairs.items()
    for name, (mean, std) in others:
        if not torch.equal(mean, mean_C) or not torch.equal(std, std_C):
            return {}, [f"tensors `{first}` and `{name}`: expected one normalisation of the input"]
    return dict(zip(NORMALIZE, (mean_C, std_C), strict=True)), []


def _masks(state: State, parts: Parts, faults: list[str]) -> State:
    """Masks that no layer has used, taken out of the tensors; a set that may be some is a fault."""
    masks: State = {}
    for table in (state, parts.beside, parts.elsewhere):
        of_others = () if table is state else tuple(table)
        for name in [name for name in table if is_mask_name(name)]:
            if not is_beside_its_weight(name, of_others):
                masks[name] = table.pop(name)
    likely = [
        name
        for name, tensor in (parts.beside | parts.elsewhere).items()
        if not is_mask_name(name) and looks_like_mask(name, tensor, state)
    ]
    if likely:
        faults.append(
            f"{len(likely)} tensors such as `{likely[0]}` may say which weights are kept (zeros "
            "and ones, or places of weights): are they masks? Apply them before saving, "
            "layer.weight.data.mul_(mask), or leave them out"
        )
    return masks


def _others(parts: Parts, core: Mapping[str, Tensor], found: Collected) -> list[str]:
    """Other sets of weights in the file, by where they are."""
    sets: dict[str, list[Tensor]] = {}
    for name, tensor in parts.elsewhere.items():
        if tensor.dim() > 1 and not name.startswith("optim"):
            sets.setdefault(_holder(name, found), []).append(tensor)
    shapes = [tensor.shape for tensor in core.values() if tensor.dim() > 1]
    return [
        holder.rstrip(".")
        for holder, tensors in sets.items()
        if 2 * len({*shapes} & {tensor.shape for tensor in tensors}) >= len({*shapes})
    ]
