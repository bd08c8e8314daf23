"""beta-CROWN on a reduced net: lower bounds of many subdomains of one image at once.

A subdomain fixes the sign of some unstable neurons. Its bound is the linear relaxation of Zhang et
al. (CROWN, NeurIPS 2018) propagated backward, with the slopes alpha of Xu et al. (alpha-CROWN, ICLR
2021) and the multipliers beta of Wang et al. (beta-CROWN, NeurIPS 2021, equation 8): it holds for
every alpha in [0, 1] and every beta >= 0, so that nothing found by optimisation can be unsound.

Shape suffixes: B subdomains, N unstable neurons, X input values, S margins; one column per
subdomain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.budget import Ascent
from corobench.benchmark.certify.bab.reduced import ReducedNet


@dataclass
class Subdomains:
    """B subdomains of one image.

    Attributes:
        margin_B: long, which row of the specification is bounded.
        bound_B: float32, the best lower bound found so far.
        sign_NB: float32, +1 where z >= 0 is fixed, -1 where z <= 0 is fixed, 0 elsewhere.
        alpha_NB: float32 in [0, 1], slopes of the lower relaxation.
        beta_NB: float32 >= 0, multipliers of the fixed signs; unused where none is fixed.
    """

    margin_B: Tensor
    bound_B: Tensor
    sign_NB: Tensor
    alpha_NB: Tensor
    beta_NB: Tensor

    def __len__(self) -> int:
        return len(self.margin_B)

    def take(self, columns: Tensor | slice) -> Subdomains:
        """Those at `columns`: copies, unless it is a slice."""
        if isinstance(columns, slice):
            return Subdomains(*(getattr(self, name)[..., columns] for name in _FIELDS))
        where = columns.nonzero().flatten() if columns.dtype == torch.bool else columns
        return Subdomains(*(getattr(self, name).index_select(-1, where) for name in _FIELDS))

    def keep_better(self, other: Subdomains) -> None:
        """Take over bound, slopes and multipliers where the other's bound is larger, in place."""
        better = (other.bound_B > self.bound_B).to(self.alpha_NB)
        torch.fmax(self.bound_B, other.bound_B, out=self.bound_B)
        for name in ("alpha_NB", "beta_NB"):
            getattr(self, name).lerp_(getattr(other, name), better)

    def put(self, columns: Tensor, other: Subdomains) -> None:
        """Overwrite those at `columns`, in place."""
        for name in _FIELDS:
            getattr(self, name).index_copy_(-1, columns, getattr(other, name))


_FIELDS = ("margin_B", "bound_B", "sign_NB", "alpha_NB", "beta_NB")


def joined(parts: list[Subdomains]) -> Subdomains:
    """All of them, in order; at least one part."""
    return Subdomains(
        *(torch.cat([getattr(part, name) for part in parts], dim=-1) for name in _FIELDS)
    )


def roots(net: ReducedNet, margins: Tensor) -> Subdomains:
    """Subdomains without a fixed sign, with CROWN's slopes and no bound yet.

    Args:
        net: the net on the box.
        margins: long (B,), rows of the specification.
    """
    slope_N1 = (net.upper_N > -net.lower_N).to(net.bias_N)[:, None]
    slope_NB = slope_N1.repeat(1, len(margins))
    unknown_B = net.bias_N.new_full((len(margins),), -torch.inf)
    zeros = torch.zeros_like(slope_NB)
    return Subdomains(margins, unknown_B, zeros, slope_NB, zeros.clone())


BETA_ROUNDING = 2e-6
"""What a multiplier costs per unit of its neuron's input: the error of inputs computed in float32,
which a large multiplier would otherwise turn into a proof. Without multipliers a bound errs like
CROWN's, which the float margin of `certified` covers."""


@dataclass
class Pass:
    """What one backward propagation leaves.

    Attributes:
        bound_B: lower bounds.
        coefficient_NB: what the outputs of the unstable neurons count in the bounded function.
        worst_XB: the image of the box at which the linear lower bound is smallest.
    """

    bound_B: Tensor
    coefficient_NB: Tensor
    worst_XB: Tensor


class Relaxation:
    """The linear relaxation of a reduced net."""

    def __init__(self, net: ReducedNet) -> None:
        self.net = net
        width = (net.upper_N - net.lower_N).clamp(min=torch.finfo(torch.float32).tiny)
        self.chord_N = net.upper_N / width
        self.offset_N = -self.chord_N * net.lower_N
        self._rounding_N = BETA_ROUNDING * torch.maximum(-net.lower_N, net.upper_N)
        self._spec_KS = net.spec.T.contiguous()

    def backward(self, subdomains: Subdomains, is_split: bool = True) -> Pass:
        """Bounds for the present slopes and multipliers.

        Args:
            subdomains: B of them.
            is_split: False says that no sign is fixed in any, which saves half of the work.
        """
        net, num_inputs = self.net, self.net.num_inputs
        state = self._spec_KS.index_select(1, subdomains.margin_B)
        constant = net.spec_bias_S.index_select(0, subdomains.margin_B)
        for layer, coupling in zip(reversed(net.layers), reversed(net.couplings), strict=True):
            a = state[num_inputs + layer.start : num_inputs + layer.stop]
            above = a.clamp(max=0)
            lam = a.clamp(min=0).mul_(subdomains.alpha_NB[layer])
            if is_split:
                sign = subdomains.sign_NB[layer]
                free = _ones_where_zero(sign)
                above.mul_(free)
                lam.mul_(free).addcmul_(a, sign.clamp(min=0))
                lam.addcmul_(subdomains.beta_NB[layer], sign, value=-1)
            lam.addcmul_(above, self.chord_N[layer, None])
            constant += self.offset_N[layer] @ above + net.bias_N[layer] @ lam
            state[: num_inputs + layer.start] += coupling.transposed_times(lam)
        slope = state[:num_inputs]
        if is_split:
            constant -= self._rounding_N @ subdomains.beta_NB
        bound = constant + net.mid_X @ slope - net.rad_X @ slope.abs()
        worst = net.mid_X[:, None] - slope.sign() * net.rad_X[:, None]
        return Pass(bound, state[num_inputs:], worst)

    def forward(self, subdomains: Subdomains, found: Pass, is_split: bool = True) -> Tensor:
        """Inputs of the unstable neurons in the relaxed net at the worst image, (N, B).

        They are the derivatives of the bound: by alpha where the coefficient is positive, times
        that coefficient; by beta, times minus the fixed sign.
        """
        net, num_inputs = self.net, self.net.num_inputs
        state = torch.cat([found.worst_XB, torch.zeros_like(found.coefficient_NB)])
        inputs = torch.empty_like(found.coefficient_NB)
        for layer, coupling in zip(net.layers, net.couplings, strict=True):
            z = coupling.times(state[: num_inputs + layer.start]).add_(net.bias_N[layer, None])
            inputs[layer] = z
            r = state[num_inputs + layer.start : num_inputs + layer.stop]
            torch.mul(z, subdomains.alpha_NB[layer], out=r)
            chord = torch.addcmul(self.offset_N[layer, None], z, self.chord_N[layer, None])
            r.lerp_(chord, _ones_below_zero(found.coefficient_NB[layer]))
            if is_split:
                sign = subdomains.sign_NB[layer]
                r.mul_(_ones_where_zero(sign)).addcmul_(z, sign.clamp(min=0))
        return inputs


def _ones_where_zero(sign: Tensor) -> Tensor:
    """1 where no sign is fixed, 0 where it is +1 or -1."""
    return 1 - sign.abs()


def _ones_below_zero(a: Tensor) -> Tensor:
    """1 where a value is negative, 0 elsewhere.

    Selecting by such weights (`lerp` is exact at 0 and 1) takes a tenth of the time of
    `torch.where`, which mispredicts a branch per value where signs are mixed.
    """
    return a.sign().clamp_(max=0).neg_()


def optimise(
    relaxation: Relaxation, subdomains: Subdomains, settings: Ascent, enough: float
) -> None:
    """Raise the bounds of subdomains by gradient ascent, in place.

    Every subdomain keeps its best bound with the slopes and multipliers that gave it; one that
    is above `enough` is left alone from then on.

    Args:
        relaxation: of the net on the box.
        subdomains: with the slopes and multipliers to start from.
        settings: of the ascent.
        enough: the bound above which a subdomain needs nothing more.
    """
    todo = torch.arange(len(subdomains), device=subdomains.margin_B.device)
    now, best = subdomains.take(todo), subdomains.take(todo)
    is_split = bool(subdomains.sign_NB.any())
    adam = _Adam(now, settings)
    num_steps = settings.num_steps if relaxation.net.num_unstable else 0
    for step in range(num_steps + 1):
        found = relaxation.backward(now, is_split)
        now.bound_B = found.bound_B
        best.keep_better(now)
        left = best.bound_B <= enough
        num_left = int(left.sum())
        if step == num_steps or not num_left:
            break
        z = relaxation.forward(now, found, is_split)
        adam.step(now, found.coefficient_NB, z, is_split)
        if 4 * num_left < 3 * len(todo):
            subdomains.put(todo, best)
            todo, now, best = todo[left], now.take(left), best.take(left)
            adam.take(left)
    subdomains.put(todo, best)


class _Adam:
    """Adam (Kingma and Ba, 2015) on the slopes and multipliers of subdomains."""

    def __init__(self, subdomains: Subdomains, settings: Ascent) -> None:
        self._settings = settings
        self._num_steps = 0
        self._moments = [torch.zeros_like(subdomains.alpha_NB) for _ in range(4)]

    def step(
        self, subdomains: Subdomains, coefficient_NB: Tensor, z_NB: Tensor, is_split: bool
    ) -> None:
        """One step uphill, in place; slopes stay in [0, 1], multipliers at least 0."""
        settings = self._settings
        shrink = settings.decay**self._num_steps
        self._num_steps += 1
        alpha_slope = coefficient_NB.clamp(min=0).mul_(z_NB)
        if is_split:
            alpha_slope.mul_(_ones_where_zero(subdomains.sign_NB))
            scale_B = coefficient_NB.abs().amax(dim=0)
            beta_slope = (-subdomains.sign_NB).mul_(z_NB)
            self._move(subdomains.beta_NB, beta_slope, 1, shrink * settings.beta_rate * scale_B)
            subdomains.beta_NB.clamp_(min=0)
        self._move(subdomains.alpha_NB, alpha_slope, 0, shrink * settings.alpha_rate)
        subdomains.alpha_NB.clamp_(0, 1)

    def take(self, columns: Tensor) -> None:
        """Forget the subdomains not at `columns`, bool (B,)."""
        where = columns.nonzero().flatten()
        self._moments = [moment.index_select(1, where) for moment in self._moments]

    def _move(self, value: Tensor, gradient: Tensor, index: int, rate: float | Tensor) -> None:
        mean, square = self._moments[2 * index : 2 * index + 2]
        mean.lerp_(gradient, 1 - _DECAY_MEAN)
        square.mul_(_DECAY_SQUARE).addcmul_(gradient, gradient, value=1 - _DECAY_SQUARE)
        first = 1 - _DECAY_MEAN**self._num_steps
        second = 1 - _DECAY_SQUARE**self._num_steps
        root = (square / second).add_(_TINY_SQUARE).sqrt_()
        value += torch.div(mean, root, out=root).mul_(rate / first)


_DECAY_MEAN, _DECAY_SQUARE = 0.9, 0.999

_TINY_SQUARE = 1e-16
"""Added below the root, not to it: roots of exact zeros, which most gradients are, are slow."""
