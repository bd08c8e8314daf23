"""Peak memory of the activations of one image, by which values are still needed when."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from corobench.benchmark.network.sizes import BYTES_PER_VALUE


class _Peak(fx.Interpreter):
    """Runs a traced network and adds up what is alive at each step."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.peak = 0
        self._alive: dict[int, int] = {}
        self._owners: dict[str, int] = {}
        self._last = {
            source: node for node in module.graph.nodes for source in node.all_input_nodes
        }

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op in ("get_attr", "output"):
            return value
        if isinstance(value, Tensor):
            owner = value.untyped_storage().data_ptr()  # a view takes no memory of its own
            self._owners[n.name] = owner
            self._alive.setdefault(owner, value.untyped_storage().nbytes())
            self.peak = max(self.peak, sum(self._alive.values()))
        needed = {
            self._owners[source.name]
            for source, last in self._last.items()
            if source.name in self._owners and last > n
        }
        for owner in [owner for owner in self._alive if owner not in needed]:
            del self._alive[owner]
        return value


@torch.no_grad()
def peak_activation_bytes(model: nn.Module, input_shape: tuple[int, int, int]) -> int | None:
    """Largest number of bytes of float32 activations that must be held at once for one image.

    Operators run one after another, in the order of the forward pass; at each, its operands, its
    result and every value that a later one needs are held. Nothing is done in place, views such as
    flattening need no memory, weights are not counted, batch-norm and ReLU are layers of their
    own.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.

    Returns:
        Bytes, or None where the forward pass cannot be traced.
    """
    try:
        tracer = fx.Tracer()
        graph = tracer.trace(model)
        traced = fx.GraphModule(tracer.root, graph)
        interpreter = _Peak(traced)
        first = next(model.parameters(), torch.zeros(1))
        interpreter.run(torch.zeros(1, *input_shape, device=first.device))
    except Exception:  # tracing a network raises anything
        return None
    assert interpreter.peak % BYTES_PER_VALUE == 0
    return interpreter.peak
