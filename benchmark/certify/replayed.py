"""The checker's network as a torch module, for searches.

Clips, leaky ReLUs and maxima are sums of ReLUs there, in the order in which the checker counts its
ReLUs. A search on it claims; no proof leans on it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.certify.checker.activations import Relu
from corobench.benchmark.certify.checker.averages import AveragePool, Mean
from corobench.benchmark.certify.checker.bends import Combination, Every, Shift
from corobench.benchmark.certify.checker.exact import Concat, Pad, Pick, Reshape
from corobench.benchmark.certify.checker.layers import Add, Conv, Linear, Scale
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.rounding import Array

_PLAIN = Linear | Conv | Scale | AveragePool | Mean | Add | Relu | Reshape | Pick | Concat | Pad


def is_rewritten(network: Network) -> bool:
    """Whether ReLUs of the network are not those of the submitted forward pass."""
    return any(not isinstance(step.layer, _PLAIN) for step in network.steps)


class Replayed(nn.Module):
    """Steps of affine layers and ReLUs in float32; a last LogSoftmax is left out.

    Args:
        network: of affine steps and ReLUs.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._steps, self._shapes = network.steps, network.shapes
        self._numbers: list[dict[str, str]] = []
        for position, step in enumerate(network.steps):
            names = {}
            for key, number in _numbers_of(step.layer, self._shapes[step.sources[0]]).items():
                names[key] = f"{key}_{position}"
                self.register_buffer(names[key], number)
            self._numbers.append(names)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        values = [x_BCHW]
        for step, names, shape in zip(self._steps, self._numbers, self._shapes[1:], strict=True):
            numbers = {key: getattr(self, name) for key, name in names.items()}
            operands = [values[source] for source in step.sources]
            values.append(_replay(step.layer, operands, numbers, shape))
        return values[-1]


def _numbers_of(layer: object, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What a step multiplies and adds, in float32."""
    found: dict[str, Array] = {}
    if isinstance(layer, Linear):
        found = {"weight": layer.weight, "bias": layer.bias}
    elif isinstance(layer, Conv):
        found = {"weight": layer.weight, "bias": layer.bias[:, 0, 0]}
    elif isinstance(layer, Scale):
        found = {"weight": layer.scale, "bias": layer.bias}
    elif isinstance(layer, Shift):
        found = {"bias": layer.bias}
    elif isinstance(layer, Combination):
        parts = {f"factor{i}": one for i, one in enumerate(layer.factors) if one is not None}
        found = {"bias": layer.bias, **parts}
    elif isinstance(layer, AveragePool):
        places = layer.kernel[0] * layer.kernel[1]
        found = {"share": layer._share * places}
    return {key: torch.from_numpy(np.asarray(one, np.float32)) for key, one in found.items()}


def _replay(
    layer: object, operands: list[Tensor], numbers: dict[str, Tensor], shape: tuple[int, ...]
) -> Tensor:
    x = operands[0]
    if isinstance(layer, Linear):
        return F.linear(x, numbers["weight"], numbers["bias"])
    if isinstance(layer, Conv):
        top, left, bottom, right = layer.pads
        padded = F.pad(x, (left, right, top, bottom)) if any(layer.pads) else x
        weight, bias = numbers["weight"], numbers["bias"]
        return F.conv2d(padded, weight, bias, layer.stride, 0, layer.dilation, layer.groups)
    if isinstance(layer, Relu):
        return F.relu(x)
    if isinstance(layer, Scale):
        return x * numbers["weight"] + numbers["bias"]
    if isinstance(layer, Shift):
        return x + numbers["bias"]
    if isinstance(layer, Combination):
        found = numbers["bias"].expand(1, *shape)
        for position, one in enumerate(operands):
            if f"factor{position}" in numbers:
                found = found + one * numbers[f"factor{position}"]
        return found
    if isinstance(layer, AveragePool):
        top, left, bottom, right = layer.pads
        means = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), layer.kernel, layer.stride)
        return means * numbers["share"]
    return _moved(layer, operands, shape)


def _moved(layer: object, operands: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Steps without numbers."""
    x = operands[0]
    if isinstance(layer, Add):
        return x + operands[1]
    if isinstance(layer, Mean):
        reduce = x.mean if layer.is_mean else x.sum
        return reduce(layer.axes, keepdim=layer.keep)
    if isinstance(layer, Reshape):
        return x.reshape(len(x), *layer.shape)
    if isinstance(layer, Pick):
        places = torch.from_numpy(layer.places.reshape(-1)).to(x.device)
        return x.flatten(1)[:, places].reshape(len(x), *shape)
    if isinstance(layer, Every):
        rows, columns = (
            slice(first, first + (size - 1) * step + 1, step)
            for first, step, size in zip(layer.place, layer.stride, layer.size, strict=True)
        )
        return x[..., rows, columns]
    if isinstance(layer, Concat):
        return torch.cat(operands, dim=layer.axis)
    if isinstance(layer, Pad):
        top, left, bottom, right = layer.pads
        return F.pad(x, (left, right, top, bottom, *layer.channels), value=layer.value)
    return x  # LogSoftmax
