"""What a few rows of a reduced net see of it: of a convolution, a part of the image.

Shape suffixes: see `reduced`; R rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.coupling import Coupling
from corobench.benchmark.certify.bab.reduced import ReducedNet

WORTH_IT = 0.7
"""Where rows see more than this share of all values, the whole net is used as it is."""


@dataclass(frozen=True)
class Seen:
    """A part of a reduced net.

    Attributes:
        net: inputs and neurons that count for some rows of the specification, and these rows.
        inputs: long, which inputs these are.
        neurons: long, which neurons.
    """

    net: ReducedNet
    inputs: Tensor
    neurons: Tensor


class Sight:
    """Which values of a reduced net depend on which.

    Args:
        net: the net on a box.
    """

    def __init__(self, net: ReducedNet) -> None:
        self._net = net
        self._is_used = [coupling.matrix != 0 for coupling in net.couplings]
        self._is_used_by_spec = net.spec != 0

    def groups(self, num: int, size: int) -> tuple[Tensor, ...]:
        """The first rows of the specification, those together that begin to see at about one place.

        Args:
            num: how many rows.
            size: most of a group.

        Returns:
            long; all numbers below `num` once.
        """
        is_seen = self._is_used_by_spec[:num, : self._net.num_inputs]
        first = is_seen.to(torch.uint8).argmax(dim=1)
        groups: tuple[Tensor, ...] = first.argsort(stable=True).split(size)
        return groups

    def of(self, rows: Tensor) -> Seen:
        """The part that some rows of the specification see.

        Args:
            rows: long (R,).
        """
        net, num_inputs = self._net, self._net.num_inputs
        is_seen = self._is_used_by_spec.index_select(0, rows).any(dim=0)
        for layer, is_used in zip(reversed(net.layers), reversed(self._is_used), strict=True):
            above = is_seen[num_inputs + layer.start : num_inputs + layer.stop].nonzero().flatten()
            is_seen[: num_inputs + layer.start] |= is_used.index_select(0, above).any(dim=0)
        if float(is_seen.float().mean()) > WORTH_IT:
            is_seen.fill_(True)
            part = replace(
                net,
                spec=net.spec.index_select(0, rows),
                spec_bias_S=net.spec_bias_S.index_select(0, rows),
            )
        else:
            part = self._cut(rows, is_seen)
        return Seen(
            part,
            is_seen[:num_inputs].nonzero().flatten(),
            is_seen[num_inputs:].nonzero().flatten(),
        )

    def _cut(self, rows: Tensor, is_seen: Tensor) -> ReducedNet:
        net, num_inputs = self._net, self._net.num_inputs
        inputs = is_seen[:num_inputs].nonzero().flatten()
        layers, parts, couplings, start = [], [], [], 0
        columns = inputs
        for (number, where), layer, coupling in zip(
            net.neurons, net.layers, net.couplings, strict=True
        ):
            kept = is_seen[num_inputs + layer.start : num_inputs + layer.stop].nonzero().flatten()
            layers.append(slice(start, start + len(kept)))
            start += len(kept)
            parts.append((number, where.index_select(0, kept)))
            matrix = coupling.matrix.index_select(0, kept).index_select(1, columns)
            couplings.append(Coupling(matrix))
            columns = torch.cat([columns, num_inputs + layer.start + kept])
        neurons = columns[len(inputs) :] - num_inputs
        return ReducedNet(
            layers=tuple(layers),
            neurons=tuple(parts),
            couplings=tuple(couplings),
            bias_N=net.bias_N.index_select(0, neurons),
            lower_N=net.lower_N.index_select(0, neurons),
            upper_N=net.upper_N.index_select(0, neurons),
            spec=net.spec.index_select(0, rows).index_select(1, columns),
            spec_bias_S=net.spec_bias_S.index_select(0, rows),
            mid_X=net.mid_X.index_select(0, inputs),
            rad_X=net.rad_X.index_select(0, inputs),
        )
