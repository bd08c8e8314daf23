"""Channels that may go without changing what a network computes, and layers without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: What may stand between a layer and the one that reads it: it treats each channel by itself.
PASSING = (nn.ReLU, nn.Identity, nn.Flatten, nn.AvgPool2d, nn.MaxPool2d)


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a linear one, or a convolution of all channels that pads with zeros."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return isinstance(layer, nn.Linear)


def removable(
    layer: nn.Conv2d | nn.Linear, reader: nn.Conv2d | nn.Linear, between: Sequence[nn.Module]
) -> tuple[Tensor, Tensor]:
    """Which output channels of a layer may go, and the constant each shows to its only reader.

    Args:
        layer: whose channels are looked at.
        reader: the only layer that reads them.
        between: what they pass on the way, of the kinds in `PASSING`.

    Returns:
        Bool (channels,) and float32 (channels,).
    """
    weight = layer.weight.detach()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    constant = bias.clone()
    is_chain = True
    for module in between:
        if isinstance(module, nn.ReLU):
            constant = constant.clamp(min=0)
        elif isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            is_chain &= module.padding in (0, (0, 0))
    is_constant = (weight.flatten(1) == 0).all(dim=1)
    per_channel = _columns(reader, len(weight))
    unread = (per_channel == 0).flatten(1).all(dim=1)
    pads = isinstance(reader, nn.Conv2d) and any(reader.padding)  # type: ignore[arg-type]
    exact = (constant == 0) if pads or not is_chain else torch.ones_like(is_constant)
    return unread | (is_constant & exact), torch.where(is_constant, constant, 0.0)


def _columns(reader: nn.Conv2d | nn.Linear, num_channels: int) -> Tensor:
    """A reader's weights by the channel they read: (channels, ...)."""
    weight = reader.weight.detach()
    if isinstance(reader, nn.Conv2d):
        return weight.transpose(0, 1)
    return weight.reshape(len(weight), num_channels, -1).transpose(0, 1)


def with_outputs(layer: nn.Conv2d | nn.Linear, keep: Tensor) -> nn.Module:
    """The layer with some of its output channels, bool (channels,)."""
    weight = layer.weight.detach()[keep]
    bias = None if layer.bias is None else layer.bias.detach()[keep]
    return _rebuilt(layer, weight, bias)


def with_inputs(reader: nn.Conv2d | nn.Linear, keep: Tensor, constants: Tensor) -> nn.Module:
    """The reader without the removed channels, whose constants move into its bias."""
    columns = _columns(reader, len(keep))
    moved = (columns * constants.view(-1, *[1] * (columns.ndim - 1)))[~keep]
    shift = moved.transpose(0, 1).flatten(1).sum(dim=1)
    old = reader.weight.new_zeros(len(reader.weight)) if reader.bias is None else reader.bias
    kept = columns[keep].transpose(0, 1)
    weight = kept if isinstance(reader, nn.Conv2d) else kept.flatten(1)
    return _rebuilt(reader, weight, old.detach() + shift)


def _rebuilt(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A layer like `layer` with other weights."""
    new: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Conv2d):
        new = nn.Conv2d(
            weight.shape[1],
            weight.shape[0],
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            bias=bias is not None,
        )
    else:
        new = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    new.to(weight.device)
    with torch.no_grad():
        new.weight.copy_(weight)
        if bias is not None:
            new.bias.copy_(bias)  # type: ignore[union-attr]
    return new
