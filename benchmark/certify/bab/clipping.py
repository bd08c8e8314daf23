"""Bounds of inner neurons over the images of a subdomain that can still be broken.

Only an image whose margin is at most the threshold t can refute. Let g(x) = a x + c be the linear
lower bound of the margin in a subdomain: then g(x) <= t for such an image. A neuron with the linear
lower bound r(x) over the box is, for every gamma >= 0, at least

    min over the box of r(x) + gamma (g(x) - t),

which is concave in gamma. The idea of bounding neurons under a constraint on the output is that of
INVPROP (Kotha et al., NeurIPS 2023) and of Clip-and-Verify (Zhou et al., NeurIPS 2025). Bounds got
that way hold for the images of the subdomain with that margin at most t, and for no others: they
never serve another margin, and what follows from them is the smaller of the bound and t.

With x = mid + rad xi, the images of the box are those with every |xi| <= 1, and with rows scaled by
rad the minimum is r(mid) - sum |r + gamma a| + gamma (g(mid) - t). Most rows see a part of the
image only; what lies outside of it costs gamma times a share of sum |a|.

Shape suffixes: R rows, twice as many as neurons: lower bounds of them, then of their negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.coupling import Coupling
from corobench.benchmark.certify.bab.lagrangian import Lines, Pass, Subdomains
from corobench.benchmark.certify.bab.reduced import ReducedNet
from corobench.benchmark.certify.bab.tightening import NeuronLines

EXPONENTS = 255
"""gamma is 0 or 2**((e - ZERO) / STEPS), e from 1 to this: a byte says which."""

ZERO, STEPS = 160, 8

ROUNDS = 7
"""Halvings of the range of exponents."""

BELOW, ABOVE = 48, 80
"""The range around the ratio of a row to the constraint, in exponents."""

VALUES_AT_ONCE = {"cpu": 2**18}
"""Values of pairs of a row and a subdomain worked on at once: what fits into a core's cache."""

VALUES_ELSEWHERE = 2**26

ROUNDING = 1e-6
"""What is taken off a new bound, relative to the terms it is summed from."""


def gamma_of(exponent: Tensor) -> Tensor:
    """The multiplier that a byte stands for.

    >>> gamma_of(torch.tensor([0, 160, 168], dtype=torch.uint8)).tolist()
    [0.0, 1.0, 2.0]
    """
    return torch.exp2((exponent.float() - ZERO) / STEPS) * (exponent > 0)


class _Layer:
    """The rows of one layer, in the part of the image that they see."""

    def __init__(self, lines: NeuronLines, layer: slice, rad_X: Tensor) -> None:
        scaled = lines.slope_RX * rad_X
        num = layer.stop - layer.start
        self.layer, self.num = layer, num
        self.centre_R = lines.centre_R
        seen = (scaled[:num] != 0) | (scaled[num:] != 0)
        size = int(seen.sum(dim=1).max()) if num else 0
        self.places: Tensor | None = None
        self.row_RK = scaled
        if 2 * size < scaled.shape[1]:
            order = seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
            self.places = order[:, :size].contiguous()
            self.row_RK = scaled.gather(1, self.places.repeat(2, 1))
        self.size_R = self.row_RK.abs().sum(dim=1)
        self._sign, self._where = Coupling(scaled.sign()), Coupling(scaled.sign().abs())

    def gain(self, slope_XB: Tensor, slack_B: Tensor) -> Tensor:
        """The derivative of the bounds (R, B) by gamma at 0."""
        against = self._where.times(slope_XB.abs()) - self._sign.times(slope_XB)
        return against - slack_B

    def constraint(self, slope_BX: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The part (P, K) of the constraint that pairs of a row and a subdomain share."""
        if self.places is None:
            return slope_BX[columns]
        where = self.places[rows % self.num]
        return slope_BX.view(-1).take(where + (columns * slope_BX.shape[1])[:, None])


class Clipper:
    """Bounds neurons under the constraint that a margin is at most the threshold.

    Args:
        net: the net on the box.
        lines: per layer of it, linear bounds of its neurons over the box.
        enough: the threshold t.
    """

    def __init__(self, net: ReducedNet, lines: list[NeuronLines], enough: float) -> None:
        self._net, self._enough = net, enough
        self._layers = [
            _Layer(one, layer, net.rad_X) for one, layer in zip(lines, net.layers, strict=True)
        ]

    def clip(self, subdomains: Subdomains, found: Pass) -> Tensor:
        """Tighten the bounds of the neurons of open subdomains, in place.

        Args:
            subdomains: B, of bound at most the threshold.
            found: their backward pass.

        Returns:
            uint8 (2 N, B), which multiplier gave each better lower bound, then each better upper
            one; 0 where the bound stays.
        """
        net = self._net
        slope = found.slope_XB * net.rad_X[:, None]
        total = slope.abs().sum(dim=0)
        gap = self._enough - found.centre_B
        slack = (gap + total).clamp(min=0)
        slope_BX = slope.T.contiguous()
        exponent = torch.zeros(
            2 * net.num_unstable, len(subdomains), dtype=torch.uint8, device=slope.device
        )
        # The upper line of a neuron leans on its bounds, the lower one does not.
        free = (Lines.of(subdomains).free_NB > 0) & (found.coefficient_NB < 0)
        for one in self._layers:
            wanted = (one.gain(slope, slack) > 0) & free[one.layer].repeat(2, 1)
            pairs = wanted.nonzero()
            limit = VALUES_AT_ONCE.get(slope.device.type, VALUES_ELSEWHERE)
            for rows, columns in (
                part.T for part in pairs.split(max(1, limit // max(1, one.row_RK.shape[1])))
            ):
                bound, chosen = self._best(one, rows, columns, slope_BX, total, slack, gap)
                self._take(one, rows, columns, bound, chosen, subdomains, exponent)
        return exponent

    def _best(
        self,
        one: _Layer,
        rows: Tensor,
        columns: Tensor,
        slope_BX: Tensor,
        total_B: Tensor,
        slack_B: Tensor,
        gap_B: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The best bound (P,) of each pair, and the exponent of its multiplier."""
        row = one.row_RK[rows]
        mine = one.constraint(slope_BX, rows, columns)
        size, share = one.size_R[rows], mine.abs().sum(dim=1)
        rest = slack_B[columns] - share
        ratio = torch.log2(size.clamp(min=1e-30) / share.clamp(min=1e-30)) * STEPS + ZERO
        low = (ratio.floor() - BELOW).clamp(1, EXPONENTS)
        high = (ratio.floor() + ABOVE).clamp(1, EXPONENTS)
        both = torch.empty_like(row)
        for _ in range(ROUNDS):
            middle = ((low + high + 1) / 2).floor()
            torch.addcmul(row, gamma_of(middle)[:, None], mine, out=both)
            climbs = -(both.sign_().mul_(mine).sum(dim=1)) - rest > 0
            low = torch.where(climbs, middle, low)
            high = torch.where(climbs, high, (middle - 1).clamp(min=1))
            high = torch.maximum(low, high)
        gamma = gamma_of(low)
        torch.addcmul(row, gamma[:, None], mine, out=both)
        centre = one.centre_R[rows]
        bound = centre - both.abs_().sum(dim=1) - gamma * rest
        terms = centre.abs() + size + gamma * (total_B[columns] + gap_B[columns].abs())
        return bound - ROUNDING * terms, low.to(torch.uint8)

    def _take(
        self,
        one: _Layer,
        rows: Tensor,
        columns: Tensor,
        bound: Tensor,
        chosen: Tensor,
        subdomains: Subdomains,
        exponent: Tensor,
    ) -> None:
        """Keep what is better than what was known."""
        start, total = one.layer.start, self._net.num_unstable
        is_low = rows < one.num
        neurons = start + rows % one.num
        known = torch.where(
            is_low, subdomains.low_NB[neurons, columns], -subdomains.high_NB[neurons, columns]
        )
        better = bound > known
        for side, values, sign in (
            (is_low, subdomains.low_NB, 1.0),
            (~is_low, subdomains.high_NB, -1.0),
        ):
            which = better & side
            values[neurons[which], columns[which]] = sign * bound[which]
        offset = torch.where(is_low, 0, total)
        exponent[(neurons + offset)[better], columns[better]] = chosen[better]
