"""Branch and bound on the signs of unstable neurons: the last certifier, "BaB".

Where a relaxation leaves a margin open, an unstable neuron is fixed to be active in one subdomain
and inactive in the other (Bunel et al., JMLR 2020). Each half is bounded by beta-CROWN (Wang et
al., NeurIPS 2021), and split again until all bounds are above the threshold or the budget is used.
Most images need few splits. For the others the bounds of the neurons are improved, once over the
box and then in every subdomain over the images that can still refute (`clipping`), and splits are
chosen by what their halves will gain where the budget is large (`lookahead`).

The search takes no decision by the clock, save for its safety stop; the random numbers of its dives
are those of a fixed seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from corobench.benchmark.certify.bab.budget import Ascent, BranchBudget
from corobench.benchmark.certify.bab.clipping import Clipper
from corobench.benchmark.certify.bab.dives import Dives, splits_left
from corobench.benchmark.certify.bab.lagrangian import (
    Pass,
    Relaxation,
    Subdomains,
    joined,
    optimise,
    roots,
)
from corobench.benchmark.certify.bab.leaf import solve_leaf
from corobench.benchmark.certify.bab.lookahead import Lookahead
from corobench.benchmark.certify.bab.proof_log import Proof, ProofLog
from corobench.benchmark.certify.bab.reduced import ReducedNet
from corobench.benchmark.certify.bab.split_choice import best_split, candidates, split
from corobench.benchmark.certify.bab.tightening import tightened

DIVE_WIDTH = 12
"""Open subdomains of a tree from which on dives may end for what its splits gained."""


NUM_REFINED = 64
"""Images that a search with a large budget refines once its first subdomains are spent."""


@dataclass(frozen=True)
class Search:
    """What branch and bound found about one box.

    Attributes:
        status: "certified", "refuted", "open" or "stopped"; see `BranchResult`.
        bound_S: float32 (S,), lower bounds of all margins, at most the threshold where neurons were
            bounded under it.
        num_subdomains: how many were bounded, the roots included.
        candidate_X: float32 (X,), the image that refutes; None otherwise.
        proof: the trees of the margins that were open, where all are closed; None otherwise.
        slopes: of the better bounds of the neurons, see `tightened`; empty where there are none.
        expected: how many subdomains the tree is expected to have, where it was given up for that.
        splits_left: see `BranchBudget.hopeless_splits`; 0 where nothing was to be tightened.
        dive_splits_left: see `BranchBudget.hopeless_dives`, the largest; 0 where none went so far.
    """

    status: str
    bound_S: Tensor
    num_subdomains: int
    candidate_X: Tensor | None = None
    proof: Proof | None = None
    slopes: list[Tensor | None] = field(default_factory=list)
    expected: float = 0.0
    splits_left: float = 0.0
    dive_splits_left: float = 0.0


class _EndedError(Exception):
    """The search is over before all is closed."""

    def __init__(self, status: str, expected: float = 0.0) -> None:
        super().__init__(status)
        self.status, self.expected = status, expected


class BranchAndBound:
    """The search over one box.

    Args:
        net: the net on the box.
        known_S: float32 (S,), lower bounds of the margins from elsewhere.
        enough: a margin above it is closed.
        budget: see `BranchBudget`.
        is_broken: whether an image (X,) is misclassified by the model itself.
        nearby: for images (X, B) others, at which the model's margins are smaller; None for none.
    """

    def __init__(
        self,
        net: ReducedNet,
        known_S: Tensor,
        enough: float,
        budget: BranchBudget,
        is_broken: Callable[[Tensor], bool],
        nearby: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._net, self._relaxation = net, Relaxation(net)
        self._known_S, self._enough, self._budget = known_S, enough, budget
        self._is_broken, self._nearby = is_broken, nearby
        self._seen: list[Tensor] | None = None if nearby is None or not budget.is_large else []
        self._num_subdomains = 0
        self._clipper: Clipper | None = None
        self._lookahead: Lookahead | None = None
        self._candidate_X: Tensor | None = None
        nothing = torch.empty(0, dtype=torch.long, device=known_S.device)
        self._frontier, self._stuck = roots(net, nothing), roots(net, nothing)
        self._log = ProofLog(net.num_unstable)
        self._closed_S = torch.full_like(known_S, torch.inf)
        self._root_S, self._splits_left, self._dive_splits_left = known_S.clone(), 0.0, 0.0
        self._slopes: list[Tensor | None] = []
        self._deadline_s = torch.inf

    def run(self) -> Search:
        """Bound the open margins, then split subdomains until all is decided.

        Rounds are whole: one that does not fit into the budget does not begin.
        """
        self._deadline_s = time.thread_time() + self._budget.stop_after_s
        margins = (self._known_S <= self._enough).nonzero().flatten()
        try:
            self._pay(len(margins))
            self._plant(margins)
            self._split_all(self._budget.tighten_after)
            if len(self._frontier):
                self._refine()
                self._splits_left = self._most_splits_left()
                self._require_hope(self._splits_left, self._budget.hopeless_splits)
                self._tighten()
                self._finish_margins()
        except _EndedError as ended:
            return self._result(ended.status, ended.expected)
        return self._result("open" if len(self._stuck) else "certified")

    # --- stages ---

    def _plant(self, margins: Tensor) -> None:
        """Bound the whole box for some margins."""
        subdomains = roots(self._net, margins)
        subdomains.bound_B = self._known_S[margins].clone()
        self._log.plant(subdomains)
        self._bound(subdomains, self._budget.root, self._budget.root_clips)
        self._root_S[self._frontier.margin_B] = self._frontier.bound_B

    def _most_splits_left(self) -> float:
        """What a path of the tree of a margin needs, at what its splits gained; the largest."""
        frontier, most = self._frontier, 0.0
        depth_B = torch.tensor(
            [self._log.depth(node) for node in frontier.node_B.tolist()],
            dtype=torch.float32,
            device=frontier.bound_B.device,
        )
        gain_B = frontier.bound_B - self._root_S[frontier.margin_B]
        for margin in frontier.margin_B.unique().tolist():
            mine = frontier.margin_B == margin
            missing_B = self._enough - frontier.bound_B[mine]
            most = max(most, splits_left(depth_B[mine], gain_B[mine], missing_B))
        return most

    def _require_hope(self, splits: float, limit: float) -> None:
        """Give up where splits gain so little that a path needs more than the limit."""
        more = math.log2(max(1.0, self._budget.max_subdomains / 500))
        if splits > limit + more:
            raise _EndedError("open", 2.0 ** min(splits, 1000.0))

    def _tighten(self) -> None:
        """Better bounds of the neurons; the trees of the open margins are begun anew."""
        margins = joined([self._frontier, self._stuck]).margin_B.unique()
        self._pay(len(margins))
        better = tightened(self._net, self._budget.tighten)
        self._net, self._slopes = better.net, better.slopes
        self._relaxation = Relaxation(self._net)
        if self._budget.clips:
            self._clipper = Clipper(self._net, better.lines, self._enough)
        self._frontier, self._stuck = self._frontier.take(slice(0)), self._stuck.take(slice(0))
        self._closed_S[margins] = torch.inf
        self._log.forget(set(margins.tolist()))
        self._plant(margins)

    def _refine(self) -> None:
        """Look at images near those with the smallest margins that were met so far."""
        seen, self._seen = self._seen, None
        if self._nearby is None or not seen:
            return
        seen_XB = torch.cat(seen, dim=1)
        order = self._net.forward(seen_XB).amin(dim=0).argsort(stable=True)
        self._look_at(self._nearby(seen_XB.index_select(1, order[:NUM_REFINED])))

    def _finish_margins(self) -> None:
        """Close one margin after the other, the worst one first."""
        while len(self._frontier):
            everything = self._frontier
            margin = int(everything.margin_B[everything.bound_B.argmin()])
            mine = everything.margin_B == margin
            self._frontier, waiting = everything.take(mine), everything.take(~mine)
            if self._budget.looks_ahead:
                self._lookahead = Lookahead(
                    self._relaxation, self._clipper, self._budget, self._enough
                )
            try:
                self._dive()
                self._split_all(self._budget.max_subdomains)
                if len(self._stuck) or len(self._frontier):
                    raise _EndedError("open")
            finally:
                self._frontier = joined([self._frontier, waiting])

    def _dive(self) -> None:
        """Give up where random dives expect far more subdomains than the budget has left.

        They need not come to their end for that: where `DIVE_WIDTH` subdomains are open, what a
        split gains under the better bounds of neurons is known well enough.
        """
        if not self._budget.num_dives:
            return
        dives = Dives(self._log, self._frontier.node_B.tolist(), self._budget.num_dives)
        while True:
            if len(self._frontier) >= DIVE_WIDTH:
                splits = self._most_splits_left()
                self._dive_splits_left = max(self._dive_splits_left, splits)
                self._require_hope(splits, self._budget.hopeless_dives)
            left = self._budget.max_subdomains - self._num_subdomains
            expected = dives.expected()
            if expected > self._budget.patience * left:
                raise _EndedError("open", expected)
            waiting = dives.waiting()
            if not waiting:
                return
            node_B = self._frontier.node_B
            columns = [at for at, node in enumerate(node_B.tolist()) if node in waiting]
            if not columns:
                raise _EndedError("open")
            self._split(torch.tensor(columns, device=node_B.device))

    def _split_all(self, limit: int) -> None:
        """Split the worst subdomains until all are closed, or so many subdomains were bounded."""
        while len(self._frontier) and self._num_subdomains < limit:
            batch = min(self._budget.batch_size, len(self._frontier))
            self._split(self._frontier.bound_B.argsort(stable=True)[:batch])

    # --- steps ---

    def _pay(self, num_more: int) -> None:
        if self._num_subdomains + num_more > self._budget.max_subdomains:
            raise _EndedError("open")
        if time.thread_time() > self._deadline_s:
            raise _EndedError("stopped")
        self._num_subdomains += num_more

    def _split(self, columns: Tensor) -> None:
        """Split subdomains of the frontier and bound both halves of each."""
        self._pay(2 * len(columns))
        is_chosen = torch.zeros(len(self._frontier), dtype=torch.bool, device=columns.device)
        is_chosen[columns] = True
        chosen = self._frontier.take(columns)
        found = self._relaxation.backward(chosen)
        worst_XB = self._relaxation.worst(found)
        self._look_at(worst_XB)
        if self._seen is not None:
            self._seen.append(worst_XB)
        self._frontier = self._frontier.take(~is_chosen)
        fixed = ~((chosen.low_NB < 0) & (chosen.high_NB > 0)).any(dim=0)
        if bool(fixed.any()):
            self._solve(chosen.take(fixed))
            chosen = chosen.take(~fixed)
            found = self._relaxation.backward(chosen)
        if len(chosen):
            neurons = self._where_to_split(chosen, found)
            halves = split(chosen, neurons)
            self._log.split(halves, neurons)
            self._bound(halves, self._budget.leaf, self._budget.clips)

    def _where_to_split(self, chosen: Subdomains, found: Pass) -> Tensor:
        """A neuron per subdomain: in trees that take many splits by what its halves will gain."""
        if self._lookahead is not None:
            return self._lookahead.choose(chosen, found)
        proposed = candidates(self._relaxation, chosen, found, self._budget.num_candidates)
        return best_split(self._relaxation, chosen, proposed, self._enough)

    def _bound(self, subdomains: Subdomains, settings: Ascent, num_clips: int) -> None:
        """Optimise bounds; what is above the threshold is closed, the rest joins the frontier."""
        optimise(self._relaxation, subdomains, settings, self._enough)
        subdomains = self._close(subdomains)
        for _ in range(num_clips if self._clipper is not None else 0):
            if not len(subdomains):
                break
            subdomains = self._clip(subdomains)
        self._frontier = joined([self._frontier, subdomains])

    def _clip(self, subdomains: Subdomains) -> Subdomains:
        """Bound neurons under the threshold, then the margin again; what is open is returned."""
        assert self._clipper is not None
        exponent = self._clipper.clip(subdomains, self._relaxation.backward(subdomains))
        self._log.step(subdomains, exponent)
        is_empty = (subdomains.low_NB > subdomains.high_NB).any(dim=0)
        if bool(is_empty.any()):
            empty = subdomains.take(is_empty)
            empty.bound_B.fill_(self._enough)
            self._note_closed(empty)
            subdomains = subdomains.take(~is_empty)
        optimise(self._relaxation, subdomains, self._budget.clipped, self._enough)
        return self._close(subdomains)

    def _solve(self, subdomains: Subdomains) -> None:
        """Decide subdomains in which nothing is left to split."""
        for column in range(len(subdomains)):
            one = subdomains.take(slice(column, column + 1))
            sign_N = torch.where(one.low_NB[:, 0] >= 0, 1.0, -1.0).to(one.low_NB)
            solved = solve_leaf(self._net, int(one.margin_B), sign_N)
            if solved is not None:
                self._look_at(solved[1][:, None])
                before = one.beta_NB[:, 0].clone()
                one.beta_NB[:, 0] = solved[0]
                bound_B = self._relaxation.backward(one).bound_B
                if bool(bound_B > one.bound_B):
                    one.bound_B.copy_(bound_B)
                else:
                    one.beta_NB[:, 0] = before
        self._stuck = joined([self._stuck, self._close(subdomains)])

    def _close(self, subdomains: Subdomains) -> Subdomains:
        """Note those above the threshold; the others are returned."""
        is_closed = subdomains.bound_B > self._enough
        if bool(is_closed.any()):
            closed = subdomains.take(is_closed)
            self._log.step(closed, None)
            self._note_closed(closed)
        return subdomains.take(~is_closed)

    def _note_closed(self, closed: Subdomains) -> None:
        self._log.close(closed)
        _lower_to(self._closed_S, closed)

    def _look_at(self, x_XB: Tensor) -> None:
        """End the search with the first image that the reduced net and the model get wrong."""
        wrong = (self._net.forward(x_XB) < 0).any(dim=0)
        for column in wrong.nonzero().flatten().tolist():
            if self._is_broken(x_XB[:, column]):
                self._candidate_X = x_XB[:, column].clone()
                raise _EndedError("refuted")

    def _result(self, status: str, expected: float = 0.0) -> Search:
        bound_S = self._closed_S.clone()
        for subdomains in (self._frontier, self._stuck):
            _lower_to(bound_S, subdomains)
        bound_S = torch.where(torch.isinf(bound_S), self._known_S, bound_S)
        proof = None
        if status == "certified":
            margins = (self._known_S <= self._enough).nonzero().flatten().tolist()
            proof = self._log.proof(set(margins), self._enough)
        return Search(
            status,
            torch.maximum(bound_S, self._known_S),
            self._num_subdomains,
            self._candidate_X,
            proof,
            self._slopes,
            expected,
            self._splits_left,
            self._dive_splits_left,
        )


def _lower_to(bound_S: Tensor, subdomains: Subdomains) -> None:
    """The smallest bound per margin, in place."""
    bound_S.scatter_reduce_(0, subdomains.margin_B, subdomains.bound_B, "amin")
