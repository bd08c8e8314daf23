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

    A neuron whose lower bound is at least 0 has the sign +1, one whose upper bound is at most 0 the
    sign -1, whether it was split or became stable; all others have none.

    Attributes:
        margin_B: long, which row of the specification is bounded.
        node_B: long, number of the subdomain in its tree.
        bound_B: float32, the best lower bound found so far; infinite where there is no image.
        low_NB: float32, lower bounds of the inputs of the neurons, for images of the subdomain
            whose margin is at most the threshold.
        high_NB: float32, upper bounds likewise.
        alpha_NB: float32 in [0, 1], slopes of the lower relaxation.
        beta_NB: float32 >= 0, multipliers of the signs; unused where there is none.
    """

    margin_B: Tensor
    node_B: Tensor
    bound_B: Tensor
    low_NB: Tensor
    high_NB: Tensor
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
        """Overwrite what an ascent changes of those at `columns`, in place."""
        for name in ("bound_B", "alpha_NB", "beta_NB"):
            getattr(self, name).index_copy_(-1, columns, getattr(other, name))


_FIELDS = ("margin_B", "node_B", "bound_B", "low_NB", "high_NB", "alpha_NB", "beta_NB")


def joined(parts: list[Subdomains]) -> Subdomains:
    """All of them, in order; at least one part."""
    return Subdomains(
        *(torch.cat([getattr(part, name) for part in parts], dim=-1) for name in _FIELDS)
    )


def roots(net: ReducedNet, margins: Tensor) -> Subdomains:
    """Subdomains that are the whole box, with CROWN's slopes and no bound yet.

    Args:
        net: the net on the box.
        margins: long (B,), rows of the specification.
    """

    def columns(value_N: Tensor) -> Tensor:
        return value_N[:, None].repeat(1, len(margins))

    slope_NB = columns((net.upper_N > -net.lower_N).to(net.bias_N))
    unknown_B = net.bias_N.new_full((len(margins),), -torch.inf)
    return Subdomains(
        margins,
        torch.full_like(margins, -1),
        unknown_B,
        columns(net.lower_N),
        columns(net.upper_N),
        slope_NB,
        torch.zeros_like(slope_NB),
    )


@dataclass
class Lines:
    """What subdomains make of their neurons, each (N, B).

    Attributes:
        sign_NB: +1, -1, or 0 where the sign is open.
        free_NB: 1 where it is open, 0 elsewhere.
        chord_NB: slope of the upper line where it is open.
        offset_NB: its value at 0.
    """

    sign_NB: Tensor
    free_NB: Tensor
    chord_NB: Tensor
    offset_NB: Tensor

    @classmethod
    def of(cls, subdomains: Subdomains) -> Lines:
        """The lines that bounds give."""
        low, high = subdomains.low_NB, subdomains.high_NB
        is_on = (low >= 0).to(low)
        sign = is_on - (high <= 0).to(low) * (1 - is_on)
        free = 1 - sign.abs()
        chord = high.clamp(min=0) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)
        return cls(sign, free, chord, -chord * low.clamp(max=0))

    def take(self, columns: Tensor) -> Lines:
        """Those at `columns`, long."""
        return Lines(*(part.index_select(1, columns) for part in vars(self).values()))


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
        slope_XB: of the linear function of the image that bounds the margin from below.
        centre_B: its value at the centre of the box.
    """

    bound_B: Tensor
    coefficient_NB: Tensor
    slope_XB: Tensor
    centre_B: Tensor


class Relaxation:
    """The linear relaxation of a reduced net."""

    def __init__(self, net: ReducedNet) -> None:
        self.net = net
        self._rounding_N = BETA_ROUNDING * torch.maximum(-net.lower_N, net.upper_N)
        self._spec_KS = net.spec.T.contiguous()

    def backward(self, subdomains: Subdomains, lines: Lines | None = None) -> Pass:
        """Bounds for the present slopes and multipliers.

        Args:
            subdomains: B of them.
            lines: of them; computed where they are not given.
        """
        net, num_inputs = self.net, self.net.num_inputs
        lines = Lines.of(subdomains) if lines is None else lines
        state = self._spec_KS.index_select(1, subdomains.margin_B)
        constant = net.spec_bias_S.index_select(0, subdomains.margin_B)
        for layer, coupling in zip(reversed(net.layers), reversed(net.couplings), strict=True):
            a = state[num_inputs + layer.start : num_inputs + layer.stop]
            sign, free = lines.sign_NB[layer], lines.free_NB[layer]
            above = a.clamp(max=0).mul_(free)
            lam = a.clamp(min=0).mul_(subdomains.alpha_NB[layer]).mul_(free)
            lam.addcmul_(a, sign.clamp(min=0))
            lam.addcmul_(subdomains.beta_NB[layer], sign, value=-1)
            lam.addcmul_(above, lines.chord_NB[layer])
            constant += (lines.offset_NB[layer] * above).sum(dim=0) + net.bias_N[layer] @ lam
            state[: num_inputs + layer.start] += coupling.transposed_times(lam)
        slope = state[:num_inputs]
        constant -= self._rounding_N @ (subdomains.beta_NB * lines.sign_NB.abs())
        centre = constant + net.mid_X @ slope
        return Pass(centre - net.rad_X @ slope.abs(), state[num_inputs:], slope, centre)

    def worst(self, found: Pass) -> Tensor:
        """The images (X, B) of the box at which the linear lower bounds are smallest."""
        net = self.net
        return net.mid_X[:, None] - found.slope_XB.sign() * net.rad_X[:, None]

    def forward(
        self, subdomains: Subdomains, found: Pass, lines: Lines, worst_XB: Tensor
    ) -> Tensor:
        """Inputs of the unstable neurons in the relaxed net at the worst image, (N, B).

        They are the derivatives of the bound: by alpha where the coefficient is positive, times
        that coefficient; by beta, times minus the sign.
        """
        net, num_inputs = self.net, self.net.num_inputs
        state = torch.cat([worst_XB, torch.zeros_like(found.coefficient_NB)])
        inputs = torch.empty_like(found.coefficient_NB)
        for layer, coupling in zip(net.layers, net.couplings, strict=True):
            z = coupling.times(state[: num_inputs + layer.start]).add_(net.bias_N[layer, None])
            inputs[layer] = z
            r = state[num_inputs + layer.start : num_inputs + layer.stop]
            torch.mul(z, subdomains.alpha_NB[layer], out=r)
            chord = torch.addcmul(lines.offset_NB[layer], z, lines.chord_NB[layer])
            r.lerp_(chord, _ones_below_zero(found.coefficient_NB[layer]))
            r.mul_(lines.free_NB[layer]).addcmul_(z, lines.sign_NB[layer].clamp(min=0))
        return inputs


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
    lines = Lines.of(now)
    adam = _Adam(now, settings)
    num_steps = settings.num_steps if relaxation.net.num_unstable else 0
    for step in range(num_steps + 1):
        found = relaxation.backward(now, lines)
        now.bound_B = found.bound_B
        best.keep_better(now)
        left = best.bound_B <= enough
        num_left = int(left.sum())
        if step == num_steps or not num_left:
            break
        z = relaxation.forward(now, found, lines, relaxation.worst(found))
        adam.step(now, found.coefficient_NB, z, lines)
        if 4 * num_left < 3 * len(todo):
            subdomains.put(todo, best)
            where = left.nonzero().flatten()
            todo, now, best = todo[where], now.take(where), best.take(where)
            lines = lines.take(where)
            adam.take(where)
    subdomains.put(todo, best)


class _Adam:
    """Adam (Kingma and Ba, 2015) on the slopes and multipliers of subdomains."""

    def __init__(self, subdomains: Subdomains, settings: Ascent) -> None:
        self._settings = settings
        self._num_steps = 0
        self._moments = [torch.zeros_like(subdomains.alpha_NB) for _ in range(4)]

    def step(
        self, subdomains: Subdomains, coefficient_NB: Tensor, z_NB: Tensor, lines: Lines
    ) -> None:
        """One step uphill, in place; slopes stay in [0, 1], multipliers at least 0."""
        settings = self._settings
        shrink = settings.decay**self._num_steps
        self._num_steps += 1
        alpha_slope = coefficient_NB.clamp(min=0).mul_(z_NB).mul_(lines.free_NB)
        scale_B = coefficient_NB.abs().amax(dim=0)
        beta_slope = (-lines.sign_NB).mul_(z_NB)
        self._move(subdomains.beta_NB, beta_slope, 1, shrink * settings.beta_rate * scale_B)
        subdomains.beta_NB.clamp_(min=0)
        self._move(subdomains.alpha_NB, alpha_slope, 0, shrink * settings.alpha_rate)
        subdomains.alpha_NB.clamp_(0, 1)

    def take(self, columns: Tensor) -> None:
        """Forget the subdomains not at `columns`, long."""
        self._moments = [moment.index_select(1, columns) for moment in self._moments]

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
