"""The network that attacks and certifiers search on: the same function, faster to compute.

On images of a few pixels a convolution costs more in calls than in arithmetic. There each becomes
the matrix it is, exactly, and neurons that are dead at their position go as well. Elsewhere dead
channels are removed (`benchmark.network.compaction`), or the submitted network itself is searched
on. Success counts on the submitted network in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.network.compaction import (
    as_chain,
    compacted,
    count_weights,
    if_equal,
    remove_dead,
)

#: A convolution becomes a matrix up to this many entries, 256 KiB in float32.
MAX_MATRIX = 2**16


@dataclass(frozen=True)
class SearchNetwork:
    """A network with the submitted one's outputs, save for rounding.

    Attributes:
        network: frozen, in eval mode.
        kind: "unrolled" (convolutions as matrices, without dead neurons) or "compacted" (without
            dead channels).
    """

    network: nn.Module
    kind: Literal["unrolled", "compacted"]

    def note(self, model: nn.Module) -> str:
        """How it differs from the submitted network, for people."""
        before, after = (
            count_weights(list(network.modules())) for network in (model, self.network)
        )
        if self.kind == "unrolled":
            return f"searching on an equivalent network of matrices, {after:,} weights"
        return f"searching on an equivalent network of {after:,} instead of {before:,} weights"


def equivalent(
    model: nn.Module, input_shape: Sequence[int], x_BCHW: Tensor
) -> SearchNetwork | None:
    """The network to search on, or None to search on the model itself.

    Args:
        model: in eval mode.
        input_shape: channels, height, width.
        x_BCHW: float32 (B, C, H, W), images on which both must agree.
    """
    network = unrolled(model, input_shape, x_BCHW)
    if network is not None:
        return SearchNetwork(network, "unrolled")
    network = compacted(model, input_shape, x_BCHW)
    return None if network is None else SearchNetwork(network, "compacted")


def unrolled(model: nn.Module, input_shape: Sequence[int], x_BCHW: Tensor) -> nn.Module | None:
    """A chain of small convolutions and linear layers as linear layers only.

    Returns:
        None for other networks, and where a matrix would have more than `MAX_MATRIX` entries.
    """
    chain = as_chain(model, input_shape)
    if chain is None or not any(isinstance(layer, nn.Conv2d) for layer in chain):
        return None
    shape = tuple(input_shape)
    matrices: list[nn.Module] = [nn.Flatten()]
    for layer in chain:
        if isinstance(layer, nn.Conv2d):
            found = _as_matrix(layer, shape)
            if found is None:
                return None
            matrix, shape = found
            matrices.append(matrix)
        elif isinstance(layer, nn.Linear | nn.ReLU):
            matrices.append(layer)
        elif not isinstance(layer, nn.Identity) and not _flattens_all(layer):
            return None
    remove_dead(matrices)
    return if_equal(model, matrices, x_BCHW)


def _flattens_all(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)


def _as_matrix(conv: nn.Conv2d, shape: tuple[int, ...]) -> tuple[nn.Linear, tuple[int, ...]] | None:
    """A convolution of images of one shape (C, H, W) as a matrix, and the shape it gives.

    Its columns are what the convolution makes of images with a single 1, which is exact.
    """
    num_inputs = shape[0] * shape[1] * shape[2]
    weight = conv.weight.detach()
    zero = weight.new_zeros(1, *shape)
    with torch.no_grad():
        bias = conv(zero)[0]
        if num_inputs * bias.numel() > MAX_MATRIX:
            return None
        ones = torch.eye(num_inputs).to(weight).view(num_inputs, *shape)
        columns = F.conv2d(ones, weight, None, conv.stride, conv.padding, conv.dilation)
        matrix = nn.Linear(num_inputs, bias.numel(), device=weight.device)
        matrix.weight.copy_(columns.flatten(1).T)
        matrix.bias.copy_(bias.flatten())
    return matrix, tuple(bias.shape)
