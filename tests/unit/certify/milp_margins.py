"""Exact worst-case margins of small fully connected ReLU nets, independent of the package."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn


def exact_margin(model: nn.Sequential, low, high, label: int, other: int) -> float:
    """min logit[label] - logit[other] over a box, by a mixed-integer program (Tjeng, 2019)."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().double().numpy() for layer in layers]
    biases = [layer.bias.detach().double().numpy() for layer in layers]
    low = low.flatten().double().numpy()
    high = high.flatten().double().numpy()
    num_hidden = sum(len(bias) for bias in biases[:-1])
    num = len(low) + 2 * num_hidden  # inputs, then per layer outputs, then one switch per neuron
    lower, upper = np.full(num, 0.0), np.full(num, np.inf)
    lower[: len(low)], upper[: len(low)] = low, high
    switches = len(low) + num_hidden
    upper[switches:] = 1.0
    rows, bottoms, tops = [], [], []
    start, out, switch = 0, len(low), switches
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        mid, rad = (low + high) / 2, (high - low) / 2
        centre, radius = weight @ mid + bias, np.abs(weight) @ rad
        for i in range(len(bias)):
            below, above = min(centre[i] - radius[i], 0.0), max(centre[i] + radius[i], 0.0)
            # out >= z;  out <= z - below * (1 - switch);  out <= above * switch
            base = np.zeros(num)
            base[start : start + len(mid)], base[out + i] = -weight[i], 1.0
            rows.append(base.copy())
            bottoms.append(bias[i])
            tops.append(np.inf)
            base[switch] = -below
            rows.append(base)
            bottoms.append(-np.inf)
            tops.append(bias[i] - below)
            gate = np.zeros(num)
            gate[out + i], gate[switch] = 1.0, -above
            rows.append(gate)
            bottoms.append(-np.inf)
            tops.append(0.0)
            switch += 1
        low, high = np.maximum(centre - radius, 0), np.maximum(centre + radius, 0)
        start, out = out, out + len(bias)
    cost = np.zeros(num)
    cost[start : start + weights[-1].shape[1]] = weights[-1][label] - weights[-1][other]
    integral = np.zeros(num)
    integral[switches:] = 1
    constraints = LinearConstraint(np.array(rows), bottoms, tops)
    answer = milp(cost, integrality=integral, bounds=Bounds(lower, upper), constraints=constraints)
    assert answer.status == 0
    return answer.fun + biases[-1][label] - biases[-1][other]


def exact_margins(model: nn.Sequential, low, high, labels) -> torch.Tensor:
    return torch.tensor(
        [
            [exact_margin(model, a, b, y, j) for j in range(3) if j != y]
            for a, b, y in zip(low, high, labels.tolist(), strict=True)
        ]
    ).float()
