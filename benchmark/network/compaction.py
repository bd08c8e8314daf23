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

from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.branches import hidden_channels, remove_inside_blocks, traced
from corobench.benchmark.network.channels import (
    PASSING,
    is_plain,
    removable,
    with_inputs,
    with_outputs,
)
from corobench.benchmark.network.prepare import prepare

#: The smaller network is used from this share of multiply-adds saved on.
WORTH_IT = 0.1
#: Largest difference of a logit, relative to the largest one, that passes as rounding.
TOLERANCE = 1e-5


def compacted(model: nn.Module, input_shape: Sequence[int], x_BCHW: Tensor) -> nn.Module | None:
    """An equivalent smaller network, or None where there is none worth having.

    Chains of convolution, linear, ReLU, pooling and flattening are understood, after batch-norm
    is folded. In a network with branches only what no branch sees is removed: channels between two
    layers of a block.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.
        x_BCHW: float32 (B, C, H, W), images on which both must agree.
    """
    chain = as_chain(model, input_shape)
    if chain is not None:
        num_weights = count_weights(chain)
        remove_dead(chain)
        if count_weights(chain) > (1 - WORTH_IT) * num_weights:
            return None
        return if_equal(model, chain, x_BCHW)
    network = traced(model, input_shape)
    if network is None:
        return None
    num_weights = count_weights(list(network.modules()))
    remove_inside_blocks(network)
    if count_weights(list(network.modules())) > (1 - WORTH_IT) * num_weights:
        return None
    return if_equal(model, [network], x_BCHW)


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
    network = chain[0] if len(chain) == 1 else nn.Sequential(*chain)
    network = network.eval().requires_grad_(False).to(x_BCHW.device)
    with torch.no_grad():
        expected, found = model(x_BCHW), network(x_BCHW)
    scale = max(1.0, float(expected.abs().max()))
    if expected.shape != found.shape or float((expected - found).abs().max()) > TOLERANCE * scale:
        return None
    return network


def smallest_equivalent(
    model: nn.Module, input_shape: Sequence[int]
) -> tuple[nn.Module, int, int] | None:
    """The smallest network with the same outputs, however little it saves.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.

    Returns:
        The network, batch-norm folded and removable channels gone; the output channels of all
        hidden layers before; and how many of them were removed. None for a network that is neither
        a chain nor has blocks (see :func:`compacted`), or that cannot be traced.
    """
    chain = as_chain(model, input_shape)
    if chain is not None:
        if not count_weights(chain):
            return None
        before = _hidden_channels(chain)
        remove_dead(chain)
        network: nn.Module = nn.Sequential(*chain).eval().requires_grad_(False)
        return network, before, before - _hidden_channels(chain)
    blocks = traced(model, input_shape)
    if blocks is None:
        return None
    before = hidden_channels(blocks)
    num_removed = remove_inside_blocks(blocks)
    return blocks.eval().requires_grad_(False), before, num_removed


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
    if isinstance(model, nn.Conv2d) and not is_plain(model):
        return None
    if isinstance(model, (nn.Conv2d, nn.Linear, *PASSING)):
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
        may_go, constants = removable(layer, reader, between)
        if may_go.any() and not may_go.all():
            keep = ~may_go
            chain[here] = with_outputs(layer, keep)
            chain[there] = with_inputs(reader, keep, constants)
            return True
    return False
