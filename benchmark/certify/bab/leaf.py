"""Subdomains in which every neuron is fixed: linear programs, solved to the end.

Gradient ascent on the multipliers of such a subdomain converges slowly, and nothing is left to
split. The multipliers of the linear program are the best ones. They are only a proposal: the bound
is computed from them as from any others, and the solver's own value is not believed.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from corobench.benchmark.certify.bab.reduced import ReducedNet

PENALTY = 1e4
"""Cost of violating the fixed signs, in margin units per unit of a neuron's input: the program is
elastic, so that one without a solution has multipliers too, and a bound above any threshold."""


def solve_leaf(net: ReducedNet, margin: int, sign_N: Tensor) -> tuple[Tensor, Tensor] | None:
    """The multipliers of a subdomain without a free neuron, and the image they belong to.

    Args:
        net: the net on the box.
        margin: which row of the specification is bounded.
        sign_N: +1 or -1 for every neuron.

    Returns:
        beta_N at least 0, x_X in the box; None where the solver gives up.
    """
    num_inputs = net.num_inputs
    state = torch.eye(num_inputs, dtype=torch.float64)  # each row: a value, affine in the image
    state = torch.cat([state, torch.zeros(net.num_unstable, num_inputs, dtype=torch.float64)])
    shift = torch.zeros(len(state), dtype=torch.float64)
    z = torch.zeros(net.num_unstable, num_inputs + 1, dtype=torch.float64)
    sign = sign_N.double().cpu()
    for layer, coupling in zip(net.layers, net.couplings, strict=True):
        matrix = coupling.matrix.double().cpu()
        before = slice(0, matrix.shape[1])
        z[layer, :-1] = matrix @ state[before]
        z[layer, -1] = matrix @ shift[before] + net.bias_N[layer].double().cpu()
        active = (sign[layer] > 0).double()
        rows = slice(num_inputs + layer.start, num_inputs + layer.stop)
        state[rows] = active[:, None] * z[layer, :-1]
        shift[rows] = active * z[layer, -1]
    cost = net.spec[margin].double().cpu() @ state
    signed = (sign[:, None] * z).numpy()
    low, high = (net.mid_X - net.rad_X).cpu().numpy(), (net.mid_X + net.rad_X).cpu().numpy()
    answer = linprog(
        np.append(cost.numpy(), PENALTY),
        A_ub=np.hstack([-signed[:, :-1], -np.ones((len(signed), 1))]),
        b_ub=signed[:, -1],
        bounds=np.vstack([np.stack([low, high], axis=1), [0.0, np.inf]]),
        method="highs",
    )
    if answer.status != 0:
        return None
    beta = torch.from_numpy(-answer.ineqlin.marginals).clamp(min=0)
    image = torch.from_numpy(answer.x[:-1])
    return beta.to(net.bias_N), image.to(net.bias_N)
