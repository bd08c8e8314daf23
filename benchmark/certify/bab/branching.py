"""Branch and bound on the signs of unstable neurons: the last certifier, "BaB".

Where a relaxation leaves a margin open, an unstable neuron is fixed to be active in one subdomain
and inactive in the other (Bunel et al., JMLR 2020). Each half is bounded by beta-CROWN (Wang et
al., NeurIPS 2021), and split again until all bounds are above the threshold or the budget is used.
The search takes no random number and no decision by the clock, save for its safety stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.budget import Ascent, BranchBudget
from corobench.benchmark.certify.bab.lagrangian import (
    Relaxation,
    Subdomains,
    joined,
    optimise,
    roots,
)
from corobench.benchmark.certify.bab.leaf import solve_leaf
from corobench.benchmark.certify.bab.reduced import ReducedNet
from corobench.benchmark.certify.bab.split_choice import best_split, candidates, split
from corobench.benchmark.certify.bab.tightening import tightened


@dataclass(frozen=True)
class Search:
    """What branch and bound found about one box.

    Attributes:
        status: "certified", "refuted", "open" or "stopped"; see `BranchResult`.
        bound_S: float32 (S,), lower bounds of all margins.
        num_subdomains: how many were bounded, the roots included.
        candidate_X: float32 (X,), the image that refutes; None otherwise.
        leaves: subdomains whose bound is above the threshold, in which the proof consists.
        slopes: of the better bounds of the neurons, see `tightened`; empty where there are none.
    """

    status: str
    bound_S: Tensor
    num_subdomains: int
    candidate_X: Tensor | None = None
    leaves: Subdomains | None = None
    slopes: list[Tensor | None] = field(default_factory=list)


class BranchAndBound:
    """The search over one box.

    Args:
        net: the net on the box.
        known_S: float32 (S,), lower bounds of the margins from elsewhere.
        enough: a margin above it is closed.
        budget: see `BranchBudget`.
        is_broken: whether an image (X,) is misclassified by the model itself.
    """

    def __init__(
        self,
        net: ReducedNet,
        known_S: Tensor,
        enough: float,
        budget: BranchBudget,
        is_broken: Callable[[Tensor], bool],
    ) -> None:
        self._net, self._relaxation = net, Relaxation(net)
        self._known_S, self._enough, self._budget = known_S, enough, budget
        self._is_broken = is_broken
        self._num_subdomains = 0
        self._is_tight = budget.tighten.num_steps == 0
        self._closed_S = torch.full_like(known_S, torch.inf)
        self._candidate_X: Tensor | None = None
        nothing = torch.empty(0, dtype=torch.long, device=known_S.device)
        self._frontier, self._stuck = roots(net, nothing), roots(net, nothing)
        self._leaves = [roots(net, nothing)]
        self._slopes: list[Tensor | None] = []

    def run(self) -> Search:
        """Bound the open margins, then split the worst subdomains until all is decided.

        Rounds are whole: one that does not fit into the budget does not begin. So a larger budget
        continues the very search of a smaller one.
        """
        deadline_s = time.thread_time() + self._budget.stop_after_s
        margins = (self._known_S <= self._enough).nonzero().flatten()
        if not self._affords(len(margins)):
            return Search("open", self._known_S.clone(), 0)
        subdomains = roots(self._net, margins)
        subdomains.bound_B = self._known_S[margins].clone()
        self._bound(subdomains, self._budget.root)
        while len(self._frontier):
            if time.thread_time() > deadline_s:
                return self._result("stopped")
            if not self._is_tight and self._num_subdomains >= self._budget.tighten_after:
                if not self._affords(len(self._frontier)):
                    break
                self._tighten()
                continue
            batch = min(self._budget.batch_size, len(self._frontier))
            if not self._affords(2 * batch):
                break
            self._split_worst(batch)
            if self._candidate_X is not None:
                return self._result("refuted")
        return self._result("open")

    def _affords(self, num_more: int) -> bool:
        return self._num_subdomains + num_more <= self._budget.max_subdomains

    def _tighten(self) -> None:
        """Better bounds of the neurons, and new ones of all that is open."""
        self._net, self._slopes = tightened(self._net, self._budget.tighten)
        self._relaxation = Relaxation(self._net)
        self._is_tight = True
        subdomains, self._frontier = self._frontier, self._frontier.take(slice(0))
        self._bound(subdomains, self._budget.root)

    def _split_worst(self, batch: int) -> None:
        """Split subdomains and bound both halves of each; nothing where one is refuted."""
        order = self._frontier.bound_B.argsort(stable=True)
        chosen = self._frontier.take(order[:batch])
        found = self._relaxation.backward(chosen)
        self._candidate_X = self._counterexample(found.worst_XB)
        if self._candidate_X is not None:
            return
        self._frontier = self._frontier.take(order[batch:].sort().values)
        fixed = (chosen.sign_NB != 0).all(dim=0)
        if bool(fixed.any()):
            self._finish(chosen.take(fixed))
            chosen = chosen.take(~fixed)
            found = self._relaxation.backward(chosen)
        if len(chosen):
            proposed = candidates(self._relaxation, chosen, found, self._budget.num_candidates)
            neurons = best_split(self._relaxation, chosen, proposed, self._enough)
            self._bound(split(chosen, neurons), self._budget.leaf)

    def _bound(self, subdomains: Subdomains, settings: Ascent) -> None:
        """Optimise bounds; what is above the threshold is closed, the rest joins the frontier."""
        self._num_subdomains += len(subdomains)
        optimise(self._relaxation, subdomains, settings, self._enough)
        self._frontier = joined([self._frontier, self._close(subdomains)])

    def _finish(self, subdomains: Subdomains) -> None:
        """Decide subdomains in which nothing is left to split."""
        for column in range(len(subdomains)):
            sign_N = subdomains.sign_NB[:, column]
            solved = solve_leaf(self._net, int(subdomains.margin_B[column]), sign_N)
            if solved is not None:
                subdomains.beta_NB[:, column] = solved[0]
                if self._candidate_X is None:
                    self._candidate_X = self._counterexample(solved[1][:, None])
        self._num_subdomains += len(subdomains)
        bound_B = self._relaxation.backward(subdomains).bound_B
        subdomains.bound_B = torch.maximum(subdomains.bound_B, bound_B)
        self._stuck = joined([self._stuck, self._close(subdomains)])

    def _close(self, subdomains: Subdomains) -> Subdomains:
        """Note the bounds of those above the threshold; the others are returned."""
        closed = subdomains.bound_B > self._enough
        if bool(closed.any()):
            self._leaves.append(subdomains.take(closed))
            _lower_to(self._closed_S, self._leaves[-1])
        return subdomains.take(~closed)

    def _counterexample(self, x_XB: Tensor) -> Tensor | None:
        """The first image that the reduced net and the model itself get wrong."""
        wrong = (self._net.forward(x_XB) < 0).any(dim=0)
        for column in wrong.nonzero().flatten().tolist():
            if self._is_broken(x_XB[:, column]):
                return x_XB[:, column].clone()
        return None

    def _result(self, status: str) -> Search:
        bound_S = self._closed_S.clone()
        for subdomains in (self._frontier, self._stuck):
            _lower_to(bound_S, subdomains)
        bound_S = torch.where(torch.isinf(bound_S), self._known_S, bound_S)
        if not len(self._frontier) and not len(self._stuck):
            status = "certified"
        best_S = torch.maximum(bound_S, self._known_S)
        return Search(
            status,
            best_S,
            self._num_subdomains,
            self._candidate_X,
            joined(self._leaves),
            self._slopes,
        )


def _lower_to(bound_S: Tensor, subdomains: Subdomains) -> None:
    """The smallest bound per margin, in place."""
    bound_S.scatter_reduce_(0, subdomains.margin_B, subdomains.bound_B, "amin")
