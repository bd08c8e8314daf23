"""Better bounds of the unstable neurons themselves, before a box is split.

Every bound of a margin leans on the bounds of the neurons below it. CROWN takes those with fixed
slopes; here each is optimised like a margin (alpha-CROWN for inner layers, Xu et al., ICLR 2021),
layer by layer, so that later layers lean on what was gained before.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmark.certify.lagrangian import Ascent, Relaxation, optimise, roots
from benchmark.certify.reduced import LayerBounds, ReducedNet

COLUMNS_AT_ONCE = 512
"""Neuron bounds optimised at once, which keeps the memory near 20 MB for images of 3x32x32."""


def tightened(net: ReducedNet, bounds: LayerBounds, settings: Ascent) -> LayerBounds:
    """Bounds that are nowhere looser, for all layers after the first one.

    The first unstable layer is affine in the image, so that its bounds are exact already.

    Args:
        net: reduced with `bounds`.
        bounds: of every ReLU layer of the whole net, sound over the box.
        settings: of the optimisation of each neuron's bounds.

    Returns:
        New tensors of the same shapes.
    """
    found = [(low.clone(), high.clone()) for low, high in bounds]
    for number, (index, positions) in enumerate(net.neurons):
        if not number:
            continue
        layer = net.layers[number]
        low, high = _layer_bounds(net, number, settings)
        net.lower_N[layer] = low.clamp(max=0)
        net.upper_N[layer] = high.clamp(min=0)
        found[index][0][positions] = low
        found[index][1][positions] = high
    return found


def _layer_bounds(net: ReducedNet, number: int, settings: Ascent) -> tuple[Tensor, Tensor]:
    """Bounds of the neurons of one layer, from the layers before it."""
    layer, coupling = net.layers[number], net.couplings[number].matrix
    before = slice(0, layer.start)
    bias = net.bias_N[layer]
    part = replace(
        net,
        layers=net.layers[:number],
        neurons=net.neurons[:number],
        couplings=net.couplings[:number],
        bias_N=net.bias_N[before],
        lower_N=net.lower_N[before],
        upper_N=net.upper_N[before],
        spec=torch.cat([coupling, -coupling]),
        spec_bias_S=torch.cat([bias, -bias]),
    )
    relaxation = Relaxation(part)
    columns = torch.arange(2 * len(bias), device=bias.device)
    known = torch.cat([net.lower_N[layer], -net.upper_N[layer]])
    parts = []
    for some in columns.split(COLUMNS_AT_ONCE):
        problems = roots(part, some)
        optimise(relaxation, problems, settings, torch.inf)
        parts.append(problems.bound_B)
    best = torch.maximum(torch.cat(parts), known)
    return best[: len(bias)], -best[len(bias) :]
