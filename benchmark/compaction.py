"""A smaller network that computes the same function: batch-norm folded, dead channels removed.

A channel is dead when its weights are all zero, so that it is the same number everywhere, or when
nobody reads it. Its constant goes into the next layer's bias where that is exact; where padding
would make it differ at the border, the channel stays. Attacks search on the smaller network when
there is one; success counts on the submitted model only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, fx, nn

from benchmark.certify import NotCertifiable, prepare

#: The smaller network is used from this share of multiply-adds saved on.
WORTH_IT = 0.1
#: Largest difference of a logit, relative to the largest one, that passes as rounding.
TOLERANCE = 1e-5

_PASSING = (nn.ReLU, nn.Identity, nn.Flatten, nn.AvgPool2d, nn.MaxPool2d)


def compacted(model: nn.Module, input_shape: Sequence[int], x_BCHW: Tensor) -> nn.Module | None:
    """An equivalent smaller network, or None where there is none worth having.

    Chains of convolution, linear, ReLU, pooling and flattening are understood, after batch-norm
    is folded; other networks are left alone.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.
        x_BCHW: float32 (B, C, H, W), images on which both must agree.
    """
    chain = as_chain(model, input_shape)
    if chain is None:
        return None
    num_weights = count_weights(chain)
    remove_dead(chain)
    if count_weights(chain) > (1 - WORTH_IT) * num_weights:
        return None
    return if_equal(model, chain, x_BCHW)


def as_chain(model: nn.Module, input_shape: Sequence[int]) -> list[nn.Module] | None:
    """Copies of the layers in order, batch-norm folded, or None for a network that is no chain."""
    try:
        plain = prepare(model, input_shape)
    except NotCertifiable:
        return None
    return _as_chain(plain) or _as_chain(_in_order(plain))


def remove_dead(chain: list[nn.Module]) -> None:
    """Remove every removable channel, in place."""
    while _remove_one(chain):
        pass


def if_equal(model: nn.Module, chain: list[nn.Module], x_BCHW: Tensor) -> nn.Module | None:
    """The chain as a network, or None where its logits are not the model's, save for rounding.

    Args:
        model: in eval mode.
        chain: layers in order.
        x_BCHW: float32 (B, C, H, W), images on which both must agree.
    """
    network = nn.Sequential(*chain).eval().requires_grad_(False).to(x_BCHW.device)
    with torch.no_grad():
        expected, found = model(x_BCHW), network(x_BCHW)
    scale = max(1.0, float(expected.abs().max()))
    if expected.shape != found.shape or float((expected - found).abs().max()) > TOLERANCE * scale:
        return None
    return network


def smallest_equivalent(
    model: nn.Module, input_shape: Sequence[int]
) -> tuple[nn.Sequential, int, int] | None:
    """The smallest network with the same outputs, however little it saves.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.

    Returns:
        The network, batch-norm folded and removable channels gone; the output channels of all
        hidden layers before; and how many of them were removed. None for a network that is no
        chain (see :func:`compacted`) or has no layers.
    """
    chain = as_chain(model, input_shape)
    if chain is None or not count_weights(chain):
        return None
    before = _hidden_channels(chain)
    remove_dead(chain)
    network = nn.Sequential(*chain).eval().requires_grad_(False)
    return network, before, before - _hidden_channels(chain)


def _in_order(model: nn.Module) -> nn.Module:
    """The layers of a forward pass that applies one after another; else the model itself."""
    try:
        nodes = list(fx.Tracer().trace(model).nodes)
    except Exception:  # tracing a network raises anything
        return model
    calls = nodes[1:-1]
    if not calls or any(
        node.op != "call_module" or node.args != (before,) or node.kwargs
        for before, node in pairwise(nodes[:-1])
    ):
        return model
    return nn.Sequential(*(model.get_submodule(str(node.target)) for node in calls))


def _hidden_channels(layers: Sequence[nn.Module]) -> int:
    """Output channels of all weighted layers but the last."""
    weighted = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]
    return sum(len(layer.weight) for layer in weighted[:-1])


def count_weights(chain: Sequence[nn.Module]) -> int:
    """Entries of the weight tensors, biases not counted."""
    return sum(layer.weight.numel() for layer in chain if isinstance(layer, nn.Conv2d | nn.Linear))


def _as_chain(model: nn.Module) -> list[nn.Module] | None:
    """The layers of nested ``Sequential`` modules in order, or None for any other network."""
    if isinstance(model, nn.Sequential):
        parts = [_as_chain(child) for child in model]
        if any(part is None for part in parts):
            return None
        return [layer for part in parts if part for layer in part]
    if isinstance(model, nn.Conv2d) and (model.groups != 1 or model.padding_mode != "zeros"):
        return None
    if isinstance(model, (nn.Conv2d, nn.Linear, *_PASSING)):
        return [model]
    return None


def _remove_one(chain: list[nn.Module]) -> bool:
    """Shrink the first layer that has removable channels; False when none has."""
    weighted = [i for i, layer in enumerate(chain) if isinstance(layer, nn.Conv2d | nn.Linear)]
    for here, there in pairwise(weighted):
        layer, reader = chain[here], chain[there]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert isinstance(reader, nn.Conv2d | nn.Linear)
        between = chain[here + 1 : there]
        removable, constants = _removable(layer, reader, between)
        if removable.any() and not removable.all():
            keep = ~removable
            chain[here] = _with_outputs(layer, keep)
            chain[there] = _with_inputs(reader, keep, constants)
            return True
    return False


def _removable(
    layer: nn.Conv2d | nn.Linear, reader: nn.Conv2d | nn.Linear, between: list[nn.Module]
) -> tuple[Tensor, Tensor]:
    """Which output channels may go, and the constant each shows to its reader."""
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


def _with_outputs(layer: nn.Conv2d | nn.Linear, keep: Tensor) -> nn.Module:
    weight = layer.weight.detach()[keep]
    bias = None if layer.bias is None else layer.bias.detach()[keep]
    return _rebuilt(layer, weight, bias)


def _with_inputs(reader: nn.Conv2d | nn.Linear, keep: Tensor, constants: Tensor) -> nn.Module:
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
    with torch.no_grad():
        new.weight.copy_(weight)
        if bias is not None:
            new.bias.copy_(bias)  # type: ignore[union-attr]
    return new
