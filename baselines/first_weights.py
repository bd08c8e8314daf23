"""First weights under which intervals neither explode nor vanish (Shi et al., NeurIPS 2021)."""

from __future__ import annotations

import math
import operator

import torch
from torch import fx, nn

from corobench.baselines.masks import prunable_weights
from corobench.benchmark.network.compactness import prunable_layers

_SUMS = (operator.add, operator.iadd, torch.add)


@torch.no_grad()
def keep_widths(model: nn.Module) -> None:
    """Draw the weights of a network so that the width of intervals is kept on average.

    Normal numbers of deviation sqrt(2 pi) / fan_in. As in the authors' code, the last layer, which
    bounds of margins take in, stays as it is, and weights behind the ReLU of a residual sum, whose
    intervals are twice as wide, are halved.

    Args:
        model: changed in place; torch's own generator gives the numbers.
    """
    names = list(prunable_weights(model))
    behind_sums = _behind_sums(model)
    for name in names[:-1]:
        weight = model.get_parameter(name)
        nn.init.normal_(weight, std=math.sqrt(2.0 * math.pi) / weight[0].numel())
        if name.removesuffix(".weight") in behind_sums:
            weight.div_(2.0)


def _behind_sums(model: nn.Module) -> set[str]:
    """Names of layers whose input is the ReLU of a sum of two branches."""
    layers, modules = set(prunable_layers(model)), dict(model.named_modules())
    found = set()
    for node in fx.symbolic_trace(model).graph.nodes:
        if node.op != "call_module" or node.target not in layers:
            continue
        relu = node.args[0]
        if relu.op == "call_module" and isinstance(modules[str(relu.target)], nn.ReLU):
            total = relu.args[0]
            if total.op == "call_function" and total.target in _SUMS:
                found.add(str(node.target))
    return found
