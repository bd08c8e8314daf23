"""Branch and bound on the signs of unstable neurons: the last certifier, "BaB".

Where a relaxation leaves a margin open, an unstable neuron is fixed to be active in one subproblem
and inactive in the other (Bunel et al., JMLR 2020). Each half is bounded by beta-CROWN (Wang et
al., NeurIPS 2021), and split again until all bounds are above the threshold or the budget is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.certify.lagrangian import (
    Ascent,
    Pass,
    Relaxation,
    Subproblems,
    joined,
    optimise,
    roots,
)
from benchmark.certify.reduced import ReducedNet
from benchmark.certify.split_choice import (
    best_splits,
    candidates_of,
    intercepts,
    relaxation_loss,
    split,
)

STATUSES = ("certified", "refuted", "open", "stopped", "too-wide")
"""How a search ends; see `Search`."""


@dataclass(frozen=True)
class BranchBudget:
    """What one image may cost, and the settings of the search; all part of a result's identity.

    Attributes:
        max_subproblems: bounded subproblems per image, the roots included; it alone decides the
            outcome, so that this does not depend on the machine. 0 is: do not search.
        stop_after_s: wall-clock safety stop per image; an image stopped by it says so.
        max_unstable: images with more unstable neurons are not searched ("too-wide"): the matrices
            of the reduced net would not fit into memory.
        batch_size: subproblems split at once.
        num_candidates: neurons tried per subproblem before one is chosen.
        root: optimisation of the bounds before the first split.
        tighten: optimisation of the bounds of the neurons themselves; 0 steps leaves them.
        leaf: optimisation of each subproblem.
    """

    max_subproblems: int = 4000
    stop_after_s: float = 120.0
    max_unstable: int = 6000
    batch_size: int = 64
    num_candidates: int = 8
    root: Ascent = Ascent(num_steps=40)
    tighten: Ascent = Ascent(num_steps=20)
    leaf: Ascent = Ascent(num_steps=10)

    def __post_init__(self) -> None:
        for name, smallest in (
            ("max_subproblems", 0),
            ("stop_after_s", 0),
            ("max_unstable", 0),
            ("batch_size", 1),
            ("num_candidates", 1),
        ):
            value = getattr(self, name)
            if not value >= smallest:
                raise ValueError(
                    f"Expected argument `{name}` to be at least {smallest}, but got {value}"
                )


@dataclass
class Search:
    """What branch and bound found about one box.

    Attributes:
        status: "certified"; "refuted" (an image of the box seems to be misclassified, to be checked
            by whoever believes it); "open" (the budget is used, or nothing is left to split);
            "stopped" (by the clock: the outcome depends on the machine and proves nothing).
        bound_S: float32 (S,), lower bounds of all margins.
        num_subproblems: bounded so far, the roots included.
        candidate_X: float32 (X,), the image that refutes; None otherwise.
    """

    status: str
    bound_S: Tensor
    num_subproblems: int = 0
    candidate_X: Tensor | None = None


class BranchAndBound:
    """The search over one box.

    Args:
        net: the net on the box.
        known_S: float32 (S,), lower bounds of the margins from elsewhere.
        enough: a margin above it is closed.
        budget: see `BranchBudget`.
        spent: subproblems used before.
        is_broken: whether an image (X,) is misclassified by the model itself.
        deadline_s: of `time.monotonic`, when the safety stop falls.
    """

    def __init__(
        self,
        net: ReducedNet,
        known_S: Tensor,
        enough: float,
        budget: BranchBudget,
        *,
        spent: int,
        is_broken: Callable[[Tensor], bool],
        deadline_s: float,
    ) -> None:
        self._net = net
        self._relaxation = Relaxation(net)
        self._known_S, self._enough = known_S, enough
        self._budget, self._deadline_s = budget, deadline_s
        self._is_broken = is_broken
        self._num_subproblems = spent
        self._closed_S = torch.full_like(known_S, torch.inf)
        self._candidate_X: Tensor | None = None
        nothing = torch.empty(0, dtype=torch.long, device=known_S.device)
        self._frontier = roots(net, nothing)
        self._stuck = roots(net, nothing)

    def bound_roots(self) -> Search:
        """Bound the open margins without a split."""
        margins = (self._known_S <= self._enough).nonzero().flatten()
        if self._num_subproblems + len(margins) > self._budget.max_subproblems:
            return Search("open", self._known_S, self._num_subproblems)
        problems = roots(self._net, margins)
        problems.bound_B = self._known_S[margins].clone()
        self._bound(problems, self._budget.root)
        return self._result("open")

    def run(self) -> Search:
        """Split the worst subproblems until all are closed or the budget is used."""
        while len(self._frontier):
            batch = min(self._budget.batch_size, len(self._frontier))
            if self._num_subproblems + 2 * batch > self._budget.max_subproblems:
                break
            if time.monotonic() > self._deadline_s:
                return self._result("stopped")
            self._round(batch)
            if self._candidate_X is not None:
                return self._result("refuted")
        return self._result("open")

    def _round(self, batch: int) -> None:
        """Split `batch` subproblems and bound both halves of each."""
        order = self._frontier.bound_B.argsort(stable=True)
        chosen = self._frontier.take(order[:batch])
        self._frontier = self._frontier.take(order[batch:].sort().values)
        found = self._relaxation.backward(chosen)
        self._candidate_X = self._counterexample(found.worst_XB)
        if self._candidate_X is not None:
            self._frontier = joined([self._frontier, chosen])
            return
        fixed = (chosen.sign_NB != 0).all(dim=0)
        self._stuck = joined([self._stuck, chosen.take(fixed)])
        if bool(fixed.any()):
            chosen = chosen.take(~fixed)
            found = self._relaxation.backward(chosen)
        if len(chosen):
            neurons = self._choose(chosen, found)
            self._bound(split(chosen, neurons), self._budget.leaf)

    def _choose(self, chosen: Subproblems, found: Pass) -> Tensor:
        z_NB = self._relaxation.forward(chosen, found)
        loss = relaxation_loss(self._relaxation, chosen, found, z_NB)
        size = intercepts(self._relaxation, chosen, found)
        num = min(self._budget.num_candidates, self._net.num_unstable)
        candidates = candidates_of(loss, size, num)
        return best_splits(self._relaxation, chosen, candidates, self._enough)

    def _bound(self, problems: Subproblems, settings: Ascent) -> None:
        """Optimise bounds, keep what stays open."""
        self._num_subproblems += len(problems)
        optimise(self._relaxation, problems, settings, self._enough)
        closed = problems.bound_B > self._enough
        self._closed_S.scatter_reduce_(
            0, problems.margin_B[closed], problems.bound_B[closed], "amin"
        )
        self._frontier = joined([self._frontier, problems.take(~closed)])

    def _counterexample(self, x_XB: Tensor) -> Tensor | None:
        """The first image that the reduced net and the model itself get wrong."""
        wrong = (self._net.forward(x_XB) < 0).any(dim=0)
        for column in wrong.nonzero().flatten().tolist():
            if self._is_broken(x_XB[:, column]):
                return x_XB[:, column].clone()
        return None

    def _result(self, status: str) -> Search:
        """The state of the search as a record."""
        bound_S = self._closed_S.clone()
        for left in (self._frontier, self._stuck):
            bound_S.scatter_reduce_(0, left.margin_B, left.bound_B, "amin")
        bound_S = torch.where(torch.isinf(bound_S), self._known_S, bound_S)
        if not len(self._frontier) and not len(self._stuck):
            status = "certified"
        return Search(
            status,
            torch.maximum(bound_S, self._known_S),
            self._num_subproblems,
            self._candidate_X,
        )
