"""The weights that pruning masks and scores in a checkpoint leave.

Public layouts of this field, told by the names beside a weight ``x``:

- torch.nn.utils.prune: ``x_orig`` and ``x_mask``;
- masked layers: ``x`` and ``x_mask``, or ``mask``, ``mask_weight`` or ``weight_mask`` in its layer;
- HYDRA: ``popup_scores`` in the layer. Kept is the given share of each layer, by the size of the
  score; the checkpoint does not hold the share;
- HARP: the same, with ``k_score`` per layer, from which the layer's share follows. Where it pruned
  channels, a layer has one score for each of its input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_MASKS = ("weight_mask", "mask", "mask_weight")
_SCORES, _RATE = "popup_scores", "k_score"
#: Smallest share that HARP leaves of a layer, where nothing else is said.
MIN_KEEP_RATIO = 0.01


@dataclass(frozen=True)
class Baked:
    """A state dict without masks and scores.

    Attributes:
        state: weights by name, removed ones exactly 0.0.
        faults: why a mask or a score could not be used.
        notes: what was done, for people.
    """

    state: dict[str, Tensor]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def bake_masks(
    state: Mapping[str, Tensor],
    keep_ratio: float | None = None,
    min_keep_ratio: float = MIN_KEEP_RATIO,
) -> Baked:
    """Apply masks and scores to the weights they belong to.

    Args:
        state: a checkpoint's tensors.
        keep_ratio: share of each layer that HYDRA's scores keep, in (0, 1]; None where the
            checkpoint has none, or has a rate of its own.
        min_keep_ratio: smallest share of a layer under HARP.
    """
    baked = dict(state)
    faults: list[str] = []
    counts = {"masks": 0, "scores": 0}
    rates = _rates(state)
    is_untrained = bool(rates) and all(bool((rate == 1).all()) for rate in rates.values())
    if rates and is_untrained == (keep_ratio is None):
        what = (
            "the share of every layer is 1, the starting value: a checkpoint of HARP's "
            "pre-training, which uses all weights; confirm this with --keep-ratio 1"
            if is_untrained
            else "the checkpoint has a share for each layer (HARP); leave --keep-ratio out"
        )
        return Baked(baked, (f"tensor `{next(iter(rates))}`: {what}",), ())
    for name in state:
        stem = name.removesuffix("_orig")
        if name.endswith("_orig") and stem + "_mask" in state:
            baked[stem] = baked.pop(name)
    for name in list(baked):
        layer, _, leaf = name.rpartition(".")
        prefix = f"{layer}." if layer else ""
        if leaf not in ("weight", "bias"):
            continue
        candidates = [name + "_mask"] + [prefix + mask for mask in _MASKS if leaf == "weight"]
        mask_name = next((one for one in candidates if one in baked), None)
        if mask_name is not None:
            mask = baked.pop(mask_name)
            if not bool(((mask == 0) | (mask == 1)).all()):
                faults.append(
                    f"tensor `{mask_name}`: expected a mask of zeros and ones; apply it before "
                    "saving: layer.weight.data.mul_(mask)"
                )
                continue
            counts["masks"] += _apply(baked, name, mask != 0, mask_name, faults)
        scores, rate = prefix + _SCORES, prefix + _RATE
        if leaf == "weight" and scores in baked:
            own = baked.pop(rate, None)
            share: float | Tensor | None = keep_ratio
            if own is not None and not is_untrained:
                share = _share_of(own, min_keep_ratio)
            if share is None:
                faults.append(
                    f"tensor `{scores}`: the checkpoint keeps a share of each layer by its scores "
                    "(HYDRA), but does not say which share; set it with --keep-ratio, such as 0.1 "
                    "for 10x"
                )
                continue
            mask = _kept(baked.pop(scores), baked[name], share)
            counts["scores"] += _apply(baked, name, mask, scores, faults)
    if keep_ratio is not None and not counts["scores"] and not faults:
        faults.append(
            "--keep-ratio is for popup scores (HYDRA), but the checkpoint has none; leave it out"
        )
    notes = [f"applied {word} of {count} layer(s)" for word, count in counts.items() if count]
    return Baked(baked, tuple(faults[:10]), tuple(notes))


def _apply(
    baked: dict[str, Tensor], name: str, mask: Tensor, source: str, faults: list[str]
) -> int:
    weight = baked[name]
    if mask.shape != weight.shape:
        faults.append(
            f"tensor `{source}`: expected the shape of `{name}`, {list(weight.shape)}, but found "
            f"{list(mask.shape)}; of whole channels only HARP's scores of input channels are read"
        )
        return 0
    baked[name] = torch.where(mask.to(weight.device), weight, torch.zeros_like(weight))
    return 1


def _rates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HARP's rates, one for each layer that has scores, by their names."""
    layers = [name.removesuffix(_SCORES) for name in state if name.endswith(_SCORES)]
    names = [layer + _RATE for layer in layers if layer + "weight" in state]
    return {name: state[name] for name in names if name in state}


def _share_of(rate: Tensor, min_keep_ratio: float) -> Tensor:
    """The share of a layer that HARP keeps, rounded as its code rounds it: float32, one value."""
    opened = torch.sigmoid(rate.detach().to("cpu", torch.float32).reshape(-1)[0])
    return opened * (1 - min_keep_ratio) + min_keep_ratio


def _kept(scores: Tensor, weight: Tensor, share: float | Tensor) -> Tensor:
    """Which weights the scores of a layer keep: scores of single weights, or of input channels."""
    channels = (1, *weight.shape[1:2], *[1] * (weight.ndim - 2))
    if scores.shape == channels and scores.shape != weight.shape:
        return channels_by_score(scores.flatten(), share).view(channels).expand(weight.shape)
    return kept_by_score(scores, share)


def channels_by_score(scores_C: Tensor, keep_ratio: float | Tensor) -> Tensor:
    """Which input channels HARP keeps: the ``round(keep_ratio * C)`` largest scores.

    Args:
        scores_C: one score per channel.
        keep_ratio: in (0, 1], float32 in HARP's own arithmetic; halves round to even.

    Returns:
        Boolean (C,), True where kept.

    >>> channels_by_score(torch.tensor([0.3, -0.9, 0.1, 0.2]), 0.5).tolist()
    [True, True, False, False]
    """
    num_kept = int(torch.round(torch.as_tensor(keep_ratio, dtype=torch.float32) * len(scores_C)))
    kept = torch.zeros(len(scores_C), dtype=torch.bool)
    kept[scores_C.detach().abs().topk(num_kept).indices] = True
    return kept


def kept_by_score(scores: Tensor, keep_ratio: float | Tensor) -> Tensor:
    """Which weights HYDRA keeps: all but the ``int((1 - keep_ratio) * n)`` smallest scores.

    Args:
        scores: any shape.
        keep_ratio: in (0, 1]; HARP computes with a float32.

    Returns:
        Boolean, True where kept.

    >>> kept_by_score(torch.tensor([0.3, -0.9, 0.1, 0.2]), 0.5).tolist()
    [True, True, False, False]
    """
    order = scores.detach().abs().flatten().argsort()
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[order[: int((1 - keep_ratio) * scores.numel())]] = False
    return kept.reshape(scores.shape)
