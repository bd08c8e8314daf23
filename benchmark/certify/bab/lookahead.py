"""Where to split, by what both halves of a split gain once they are bounded as they will be.

A bound before any optimisation says little about the bound after it, least of all where neurons are
bounded under the threshold: the better of two neurons by the first is often the worse by the
second, and a tree that is split at such neurons grows without end. So a few neurons per subdomain
are tried in earnest ("strong branching": Achterberg, Koch and Martin, Operations Research Letters
2005), and what they gained is remembered for the rest of the tree: half of the neurons that are
tried are those of whose halves most is expected by what they gained so far ("pseudo-costs", there),
the others are those whose upper relaxation may lose most (BaBSR: Bunel et al., JMLR 2020).
"""

from __future__ import annotations

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.budget import BranchBudget
from corobench.benchmark.certify.bab.clipping import Clipper
from corobench.benchmark.certify.bab.lagrangian import (
    Lines,
    Pass,
    Relaxation,
    Subdomains,
    optimise,
)
from corobench.benchmark.certify.bab.split_choice import candidates, split

LEAST_GAIN = 1e-4
"""What a gain counts at least, as a share of what the subdomain misses: a product of two gains
says nothing about the larger one where the other is 0."""


class Lookahead:
    """Chooses the splits of one tree, and remembers what neurons gained in it.

    Args:
        relaxation: of the net on the box.
        clipper: bounds neurons under the threshold; None where that is not done.
        budget: how many neurons are tried, and how their halves are bounded.
        enough: a bound above it closes a subdomain.
    """

    def __init__(
        self,
        relaxation: Relaxation,
        clipper: Clipper | None,
        budget: BranchBudget,
        enough: float,
    ) -> None:
        self._relaxation, self._clipper = relaxation, clipper
        self._budget, self._enough = budget, enough
        # On the CPU: sums over repeated indices have no fixed order on a GPU.
        num = relaxation.net.num_unstable
        self._gain_2N, self._times_N = torch.zeros(2, num), torch.zeros(num)

    def choose(self, subdomains: Subdomains, found: Pass) -> Tensor:
        """The neuron with the largest product of both halves' gains.

        Args:
            subdomains: B open ones of this tree, each with a free neuron.
            found: their backward pass.

        Returns:
            long (B,), free neurons.
        """
        missing_B = self._enough - subdomains.bound_B
        neurons, columns = self._tried(subdomains, found, missing_B)
        score_NB = torch.full_like(subdomains.low_NB, -1.0)
        if len(neurons):
            gain_2P = self._gains(subdomains.take(columns), neurons)
            self._remember(neurons.cpu(), gain_2P.cpu())
            score_NB[neurons, columns] = _product(gain_2P, missing_B[columns])
        best_B, best = score_NB.max(dim=0)
        if bool((best_B >= 0).all()):
            return best
        return torch.where(best_B >= 0, best, candidates(self._relaxation, subdomains, found, 1)[0])

    def _remember(self, neurons: Tensor, gain_2P: Tensor) -> None:
        self._gain_2N.index_add_(1, neurons, gain_2P)
        self._times_N.index_add_(0, neurons, torch.ones_like(gain_2P[0]))

    def _tried(
        self, subdomains: Subdomains, found: Pass, missing_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Neurons (P,) worth trying and the columns (P,) of the subdomains they are tried in."""
        lines = Lines.of(subdomains)
        free = lines.free_NB > 0
        rank = found.coefficient_NB.clamp(max=0).neg_().mul_(lines.offset_NB).mul_(lines.free_NB)
        num = min(self._budget.num_lookahead, len(rank))
        mean_2N = (self._gain_2N / self._times_N.clamp(min=1)).to(missing_B.device)
        predicted = _product(mean_2N[:, :, None], missing_B)
        known = free & (self._times_N > 0).to(missing_B.device)[:, None]
        best, where = torch.where(known, predicted, -1.0).topk(num // 2, dim=0)
        rank.scatter_(0, where, torch.where(best >= 0, torch.inf, rank.gather(0, where)))
        values, tried = rank.topk(num, dim=0)
        kept, columns = (values > 0).nonzero().T
        return tried[kept, columns], columns

    def _gains(self, subdomains: Subdomains, neurons: Tensor) -> Tensor:
        """What the active and the inactive half of each subdomain gain over it, (2, P)."""
        halves = split(subdomains, neurons)
        optimise(self._relaxation, halves, self._budget.leaf, self._enough)
        is_open = halves.bound_B <= self._enough
        if self._clipper is not None and bool(is_open.any()):
            rest = halves.take(is_open)
            self._clipper.clip(rest, self._relaxation.backward(rest))
            is_empty = (rest.low_NB > rest.high_NB).any(dim=0)
            optimise(self._relaxation, rest, self._budget.clipped, self._enough)
            halves.bound_B[is_open] = torch.where(is_empty, torch.inf, rest.bound_B)
        bound_2P = halves.bound_B.clamp(max=self._enough).view(2, -1)
        return (bound_2P - subdomains.bound_B).clamp(min=0)


def _product(gain_2: Tensor, missing: Tensor) -> Tensor:
    """The product of both gains, each at most what is missing and never nothing."""
    return torch.minimum(gain_2, missing).maximum(LEAST_GAIN * missing).prod(dim=0)
