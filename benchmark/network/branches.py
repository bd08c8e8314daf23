"""Networks with branches: channels inside a residual block go, and what branches share stays.

A channel that only one later layer reads can be removed as in a chain. Channels that a sum or a
second reader sees would have to go everywhere at once, and stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor, fx, nn

from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.channels import (
    PASSING,
    is_plain,
    removable,
    with_inputs,
    with_outputs,
)
from corobench.benchmark.network.prepare import prepare


def traced(model: nn.Module, input_shape: Sequence[int]) -> fx.GraphModule | None:
    """A copy as a graph of layers, batch-norm folded where it follows a layer.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.

    Returns:
        None for a network that cannot be traced, or where nothing is between two layers.
    """
    try:
        plain = prepare(model, input_shape)
        network = fx.GraphModule(plain, fx.Tracer().trace(plain))
    except NotCertifiable:
        return None
    except Exception:  # tracing a network raises anything
        return None
    return network if any(True for _ in _segments(network)) else None


def hidden_channels(network: fx.GraphModule) -> int:
    """Output channels of all layers with weights but the last one."""
    layers = [network.get_submodule(str(node.target)) for node in _layers(network)]
    return sum(len(_weight(layer)) for layer in layers[:-1])


def remove_inside_blocks(network: fx.GraphModule) -> int:
    """Remove what may go between two layers that nothing else reads, in place.

    Returns:
        How many channels went.
    """
    total = 0
    while number := sum(_shrink(network, *segment) for segment in _segments(network)):
        total += number
    return total


def _shrink(network: fx.GraphModule, here: str, between: list[nn.Module], there: str) -> int:
    layer, reader = network.get_submodule(here), network.get_submodule(there)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert isinstance(reader, nn.Conv2d | nn.Linear)
    may_go, constants = removable(layer, reader, between)
    if not may_go.any() or may_go.all():
        return 0
    _put(network, here, with_outputs(layer, ~may_go))
    _put(network, there, with_inputs(reader, ~may_go, constants))
    return int(may_go.sum())


def _put(network: fx.GraphModule, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)


def _segments(network: fx.GraphModule) -> Iterator[tuple[str, list[nn.Module], str]]:
    """Pairs of layers, by name, the second of which alone reads the first, and what is between."""
    calls = Counter(str(node.target) for node in network.graph.nodes if node.op == "call_module")
    for first in _layers(network):
        between: list[nn.Module] = []
        node = first
        while len(node.users) == 1:
            (node,) = node.users
            if node.op != "call_module" or calls[str(node.target)] != 1 or len(node.args) != 1:
                break
            module = network.get_submodule(str(node.target))
            if is_plain(module):
                is_alone = calls[str(first.target)] == 1
                if is_alone and _fits(network.get_submodule(str(first.target)), between, module):
                    yield str(first.target), between, str(node.target)
                break
            if not isinstance(module, PASSING):
                break
            between.append(module)


def _fits(layer: nn.Module, between: Sequence[nn.Module], reader: nn.Module) -> bool:
    """Whether what the reader takes is known by channel: maps, all of a map's values, or units."""
    flattened = [module for module in between if isinstance(module, nn.Flatten)]
    if isinstance(layer, nn.Linear):
        return isinstance(reader, nn.Linear) and all(
            isinstance(module, nn.ReLU | nn.Identity) for module in between
        )
    if isinstance(reader, nn.Conv2d):
        return not flattened
    return len(flattened) == 1 and (flattened[0].start_dim, flattened[0].end_dim) == (1, -1)


def _layers(network: fx.GraphModule) -> list[fx.Node]:
    return [
        node
        for node in network.graph.nodes
        if node.op == "call_module" and is_plain(network.get_submodule(str(node.target)))
    ]


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.weight
