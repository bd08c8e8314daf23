"""Checkpoints of networks written as one sequence, matched to a network's names by their order.

The public code of certified training builds CNN5 and CNN7 as an `nn.Sequential`, and tensors are
named after places in it: ``layers.3.weight``. The places differ, for a normalisation in front takes
one, and some leave out the batch-norm behind the hidden layer. The order of the layers does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_NAME = re.compile(r"(?P<prefix>(?:\w+\.)*?)(?P<place>\d+)\.(?P<key>\w+)")
_NORMALISATION = ({"mean", "std"}, {"mean", "sigma"}, {"means", "sigma"})
_BATCH_NORM = {"weight", "bias", "running_mean", "running_var"}
#: What code of certified training keeps beside the statistics of a batch-norm, of the last batch.
_OF_THE_LAST_BATCH = {"current_mean", "current_var"}
#: Added to a variance by every batch-norm of this kind.
_EPS = 1e-5

Layer = dict[str, Tensor]


class Renamed(NamedTuple):
    """A checkpoint's tensors under the names of the network.

    Attributes:
        state: every tensor of the network, those of a normalisation included where it has one.
        prefix: what stood before the places.
        added: layers that the checkpoint lacks: batch-norms, which are the identity here.
    """

    state: dict[str, Tensor]
    prefix: str
    added: tuple[str, ...]


def match_by_order(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Renamed | None:
    """The tensors of one sequence under the names of another, layer by layer.

    Args:
        weights: of the checkpoint.
        wanted: of the network.

    Returns:
        None where either is no sequence, or their layers do not fit in this order.
    """
    found, expected = _layers(weights), _layers(wanted)
    if found is None or expected is None:
        return None
    state = dict(found.normalisation)
    added = []
    left = [layer for _, layer in found.layers]
    for place, layer in expected.layers:
        name = f"{expected.prefix}{place}"
        if left and _fits(left[0], layer):
            state |= {f"{name}.{key}": tensor for key, tensor in left.pop(0).items()}
        elif set(layer) == _BATCH_NORM:
            state |= {f"{name}.{key}": tensor for key, tensor in _identity(layer).items()}
            added.append(name)
        else:
            return None
    return None if left else Renamed(state, found.prefix, tuple(added))


class _Sequence(NamedTuple):
    """Layers in order, with what their names begin with."""

    prefix: str
    layers: list[tuple[int, Layer]]
    normalisation: Layer


def _layers(tensors: Mapping[str, Tensor]) -> _Sequence | None:
    """The layers that tensors are named after; None where that is no sequence."""
    normalisation = {name: one for name, one in tensors.items() if name.startswith("normalize.")}
    places: dict[int, Layer] = {}
    prefixes = set()
    for name in sorted(set(tensors) - set(normalisation)):
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        prefixes.add(found["prefix"])
        if found["key"] not in _OF_THE_LAST_BATCH:
            places.setdefault(int(found["place"]), {})[found["key"]] = tensors[name]
    if len(prefixes) != 1:
        return None
    for place in [place for place, layer in places.items() if set(layer) in _NORMALISATION]:
        mean, std = (tensor.reshape(-1) for _, tensor in sorted(places.pop(place).items()))
        normalisation |= {"normalize.mean": mean, "normalize.std": std}
    return _Sequence(prefixes.pop(), sorted(places.items()), normalisation)


def _fits(found: Layer, wanted: Layer) -> bool:
    """Whether a layer has the tensors of another; the bias of a matrix may be missing."""
    missing = set(wanted) - set(found)
    if set(found) - set(wanted) or missing - {"bias"} or (missing and found["weight"].dim() < 2):
        return False
    return all(found[key].shape == wanted[key].shape for key in found)


def _identity(layer: Layer) -> Layer:
    """A batch-norm of the same size that changes nothing, but for rounding."""
    ones, zeros = torch.ones_like(layer["weight"]), torch.zeros_like(layer["bias"])
    return {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones - _EPS}
