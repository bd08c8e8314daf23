"""Better bounds of the unstable neurons themselves, for boxes that take many splits.

Every bound of a margin leans on the bounds of the neurons below it. CROWN takes those with fixed
slopes; here each is optimised like a margin (alpha-CROWN for inner layers, Xu et al., ICLR 2021),
layer by layer, so that later layers lean on what was gained before. The linear functions of the
image that prove these bounds are kept: `clipping` bounds them again in every subdomain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.budget import Ascent
from corobench.benchmark.certify.bab.lagrangian import Relaxation, optimise, roots
from corobench.benchmark.certify.bab.reduced import ReducedNet
from corobench.benchmark.certify.bab.seen import Sight

COLUMNS_AT_ONCE = 128
"""Neuron bounds optimised at once, half of them lower ones and half upper ones: what they need then
stays in the cache of a core."""


@dataclass
class NeuronLines:
    """Linear lower bounds, over the box, of the n neurons of a layer and of their negatives.

    Attributes:
        slope_RX: (2 n, X), of the neurons and then of their negatives.
        centre_R: (2 n,), values at the centre of the box.
    """

    slope_RX: Tensor
    centre_R: Tensor


@dataclass
class Tightened:
    """A net whose neuron bounds are nowhere looser.

    Attributes:
        net: with the better bounds.
        slopes: per layer None where nothing was optimised, or slopes of all neurons before it,
            (neurons before, 2 * its neurons): those of its lower bounds, then those of its upper
            ones.
        lines: per layer.
    """

    net: ReducedNet
    slopes: list[Tensor | None]
    lines: list[NeuronLines]


def tightened(net: ReducedNet, settings: Ascent) -> Tightened:
    """The same net with better bounds of its neurons, the slopes that prove them, and the lines.

    The first unstable layer is affine in the image, so that its bounds are exact already. A neuron
    that turns out to be stable stays, with a bound of 0 on one side: its relaxation is exact then.

    Args:
        net: the net on the box.
        settings: of the optimisation of each neuron's bounds.
    """
    slopes: list[Tensor | None] = [None] * len(net.layers)
    lines = []
    net = replace(net, lower_N=net.lower_N.clone(), upper_N=net.upper_N.clone())
    for number, layer in enumerate(net.layers):
        if number:
            low, high, slopes[number], line = _layer_bounds(net, number, settings)
            net.lower_N[layer] = low.clamp(max=0)
            net.upper_N[layer] = high.clamp(min=0)
        else:
            matrix = net.couplings[0].matrix
            centre = matrix @ net.mid_X + net.bias_N[layer]
            line = NeuronLines(torch.cat([matrix, -matrix]), torch.cat([centre, -centre]))
        lines.append(line)
    return Tightened(net, slopes, lines)


def _layer_bounds(
    net: ReducedNet, number: int, settings: Ascent
) -> tuple[Tensor, Tensor, Tensor, NeuronLines]:
    """Bounds of the neurons of one layer from the layers before it, slopes and lines.

    Neurons of one place are bounded together, on the part of the net that they see.
    """
    layer, coupling = net.layers[number], net.couplings[number].matrix
    bias = net.bias_N[layer]
    below = replace(
        net,
        layers=net.layers[:number],
        neurons=net.neurons[:number],
        couplings=net.couplings[:number],
        bias_N=net.bias_N[: layer.start],
        lower_N=net.lower_N[: layer.start],
        upper_N=net.upper_N[: layer.start],
        spec=torch.cat([coupling, -coupling]),
        spec_bias_S=torch.cat([bias, -bias]),
    )
    num, best = len(bias), torch.cat([net.lower_N[layer], -net.upper_N[layer]])
    everything = roots(below, torch.arange(2 * num, device=bias.device))
    slopes, sight = everything.alpha_NB, Sight(below)
    rows, centres = bias.new_zeros(2 * num, net.num_inputs), torch.zeros_like(best)
    for some in sight.groups(num, COLUMNS_AT_ONCE // 2):
        both = torch.cat([some, num + some])
        seen = sight.of(both)
        relaxation = Relaxation(seen.net)
        subdomains = roots(seen.net, torch.arange(len(both), device=both.device))
        optimise(relaxation, subdomains, settings, torch.inf)
        found = relaxation.backward(subdomains)
        best[both] = torch.maximum(best[both], found.bound_B)
        slopes[seen.neurons[:, None], both] = subdomains.alpha_NB
        rows[both[:, None], seen.inputs] = found.slope_XB.T
        centres[both] = found.centre_B
    return best[:num], -best[num:], slopes, NeuronLines(rows, centres)
