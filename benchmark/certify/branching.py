"""Branch and bound on the signs of unstable neurons: the last certifier, "BaB".

Where a relaxation leaves a margin open, an unstable neuron is fixed to be active in one subproblem
and inactive in the other (Bunel et al., JMLR 2020). Each half is bounded by beta-CROWN (Wang et
al., NeurIPS 2021), and split again until all bounds are above the threshold or the budget is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

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
        closed_S: the smallest bound among the finished subproblems of each margin.
    """

    status: str
    bound_S: Tensor
    num_subproblems: int = 0
    candidate_X: Tensor | None = None
    closed_S: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)


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
        self._relaxation = Relaxation(net)
        self._budget, self._enough, self._deadline_s = budget, enough, deadline_s
        self._is_broken = is_broken
        self._known_S = known_S
        self._search = Search("open", known_S.clone(), spent)
        self._search.closed_S = torch.full_like(known_S, torch.inf)
        self._frontier = roots(net, torch.empty(0, dtype=torch.long, device=known_S.device))

    def run(self) -> Search:
        """Bound the roots of all open margins, then split the worst until all is decided."""
        search = self._search
        margins = (self._known_S <= self._enough).nonzero().flatten()
        if not self._affords(len(margins)):
            return search
        problems = roots(self._relaxation.net, margins)
        problems.bound_B = self._known_S[margins]
        self._bound(problems, self._budget.root)
        while len(self._frontier):
            chosen = self._pop()
            free = self._scores_and_attack(chosen)
            if search.candidate_X is not None:
                search.status = "refuted"
                break
            ...
        return search
