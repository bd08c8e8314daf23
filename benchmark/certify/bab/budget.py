"""What branch and bound may cost per image, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from corobench.benchmark.certify.bab.proof_log import Proof


@dataclass(frozen=True)
class Ascent:
    """Settings of the optimisation of slopes and multipliers (Adam).

    Attributes:
        num_steps: gradient steps; 0 takes the bounds as they are.
        alpha_rate: step size of slopes.
        beta_rate: step size of multipliers, per unit of a subdomain's largest coefficient.
        decay: factor of both after each step.
    """

    num_steps: int
    alpha_rate: float = 0.1
    beta_rate: float = 0.1
    decay: float = 0.95


@dataclass(frozen=True)
class BranchBudget:
    """What one image may cost, and the settings of the search; all part of a result's identity.

    The defaults were measured on CNN-small at 3x32x32 and 2/255: 7 ms per subdomain on one core
    where neurons are bounded under the threshold, 1 ms before.

    Attributes:
        max_subdomains: bounded subdomains per image, the roots included. It alone decides the
            outcome, so that this does not depend on the speed of a machine. 0: no search.
        stop_after_s: safety stop per image, in seconds of the thread's processor time, so that a
            busy machine stops nothing; an image it ends is "stopped".
        max_unstable: images with more unstable neurons are not searched ("too-wide"): the matrices
            of the reduced net would need gigabytes.
        batch_size: subdomains split at once.
        num_candidates: neurons compared per split, by bounds without optimisation.
        num_lookahead: once the bounds of the neurons are improved: neurons per split whose halves
            are bounded in earnest before one of them is chosen (`lookahead`). These halves do not
            count as subdomains. 0: the first way everywhere.
        lookahead_above: searches of at most so many subdomains choose all splits the first way, and
            refine no images (`refinement`). Up to 500, the protocol's, the look ahead decides
            hardly more and takes half as much time again (docs/decisions/0011-branch-and-bound.md).
        tighten_after: subdomains after which the bounds of the neurons are improved and the search
            begins anew. Most images are decided before, in less time than that takes.
        hopeless_splits: a search of 500 subdomains is given up before that where one of its trees
            needs more splits on every path than this, at what those so far gained. Of 55 searches
            that came so far and were decided, those that ended with a proof needed at most 5.2, one
            that met a counterexample 12.2 (`docs/performance.md`). Twice the subdomains allow one
            more.
        hopeless_dives: likewise while random dives go down a tree whose neurons are bounded better.
        root_clips: how often neurons are bounded under the threshold before the first split.
        clips: likewise in every further subdomain; 0 never does it.
        num_dives: random walks that estimate the size of a tree; 0 for none.
        patience: a search is given up where they expect this many times the subdomains left.
        root: optimisation of the bounds before the first split.
        tighten: optimisation of the bounds of the neurons; with 0 steps they stay as they are.
        leaf: optimisation of every further subdomain.
        clipped: optimisation after neurons were bounded under the threshold.
    """

    max_subdomains: int = 2000
    stop_after_s: float = 300.0
    max_unstable: int = 6000
    batch_size: int = 32
    num_candidates: int = 4
    num_lookahead: int = 4
    lookahead_above: int = 500
    tighten_after: int = 64
    hopeless_splits: float = 14.0
    hopeless_dives: float = 8.0
    root_clips: int = 10
    clips: int = 3
    num_dives: int = 8
    patience: float = 4.0
    root: Ascent = Ascent(num_steps=10)
    tighten: Ascent = Ascent(num_steps=20)
    leaf: Ascent = Ascent(num_steps=5)
    clipped: Ascent = Ascent(num_steps=3)

    def __post_init__(self) -> None:
        smallest = {"batch_size": 1, "num_candidates": 1}
        names = (
            "max_subdomains",
            "stop_after_s",
            "max_unstable",
            "num_lookahead",
            "num_dives",
            "root_clips",
            "clips",
            "patience",
            "tighten_after",
            "hopeless_splits",
            "hopeless_dives",
            "lookahead_above",
        )
        for name in (*names, *smallest):
            value, least = getattr(self, name), smallest.get(name, 0)
            if not value >= least:
                raise ValueError(
                    f"Expected argument `{name}` to be at least {least}, but got {value}"
                )

    @property
    def is_large(self) -> bool:
        """Whether images that the search meets are refined."""
        return self.max_subdomains > self.lookahead_above

    @property
    def looks_ahead(self) -> bool:
        """Whether splits are chosen by what their halves gain once bounded."""
        return self.is_large and self.num_lookahead > 0


@dataclass(frozen=True)
class BranchResult:
    """What "BaB" says about one image.

    Attributes:
        status: "certified": every margin is above the float margin of `certified`.
            "refuted": an image of the box is misclassified; `proposal` is that image, which the
            referee projects into the ball (a box is rounded outward) and re-measures.
            "open": the budget is used up, or what is left lies between 0 and the float margin.
            "stopped": the clock ended the search; reported as such, since another machine may come
            further. "too-wide": not searched, see `BranchBudget`.
        margins: float32 (num_classes - 1,) on the CPU, lower bounds in the order of
            `BoundedModel.margins`; valid whatever the status.
        num_subdomains: how many were bounded.
        num_unstable: neurons that could be split.
        proposal: float32 (C, H, W) on the CPU, or None.
        seconds: wall-clock, informational.
        proof: the trees of the margins that were open; None where they are not all closed.
        slopes: of the better bounds of neurons that a proof leans on, per part of `neurons`.
        neurons: per part: number of the ReLU layer, places of its neurons that could be split.
        expected: subdomains that the search would need, where it was given up for that; else 0.
        splits_left: see `BranchBudget.hopeless_splits`; 0 where nothing was to be tightened.
        dive_splits_left: see `BranchBudget.hopeless_dives`, the largest; 0 where none went so far.
    """

    status: str
    margins: Tensor
    num_subdomains: int = 0
    num_unstable: int = 0
    proposal: Tensor | None = None
    seconds: float = 0.0
    proof: Proof | None = None
    slopes: list[Tensor | None] = field(default_factory=list)
    neurons: tuple[tuple[int, Tensor], ...] = ()
    expected: float = 0.0
    splits_left: float = 0.0
    dive_splits_left: float = 0.0

    @property
    def is_certified(self) -> bool:
        """Proven right."""
        return self.status == "certified"
