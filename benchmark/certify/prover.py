"""Who proves an image: certifiers claim, the checker decides.

The bound library claims with IBP, CROWN-IBP and CROWN, gradient ascent with alpha-CROWN, a search
with branch and bound. A claim counts only where `benchmark.certify.checker` confirms it: a bound
above 0 in float64, with rigorous rounding, for every float32 deployment of the submitted network.
Claims may be made on an equivalent network; the checker always works on the submitted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from corobench.benchmark.certify.bab.boxes import search_box
from corobench.benchmark.certify.bab.budget import Ascent, BranchBudget, BranchResult
from corobench.benchmark.certify.batch_sizes import LIBRARY_CROWN_MACS
from corobench.benchmark.certify.checker.activations import MaxPool, Relu
from corobench.benchmark.certify.checker.cost import whole_cost
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.network import NONLINEAR, Network
from corobench.benchmark.certify.checker.passes import Bounds
from corobench.benchmark.certify.checker.proofs import (
    METHODS,
    TooCostlyError,
    margins,
    specification,
)
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.rounding import Array
from corobench.benchmark.certify.checker.trees import margins_by_cases
from corobench.benchmark.certify.kept_bounds import KeptBounds
from corobench.benchmark.certify.lirpa.bounded import BoundedModel
from corobench.benchmark.certify.lirpa.checks import is_out_of_memory
from corobench.benchmark.certify.lirpa.graph_rules import BRANCHING
from corobench.benchmark.certify.margin_spec import check_boxes
from corobench.benchmark.certify.replayed import Replayed, is_rewritten
from corobench.benchmark.certify.search_tree import tree_of
from corobench.benchmark.certify.ways_out import way_out
from corobench.benchmark.certify.witness import Witness, between, downward, float64, labels64
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import prepare

ALPHA = "alpha-CROWN"
CONTRADICTED = "bounds-contradicted"
"""Rule, and flag, of bounds that an image inside the box contradicts."""

ALPHA_STEPS = 20
"""Gradient steps of alpha-CROWN on the slopes of unstable ReLUs."""

AIM = 2.0
"""A search aims at this many times the noise of the root: leaves have more of it than the root."""

AIM_AGAIN = 16.0
"""Likewise, where the checker refused what the first search found."""

AIM_LEAST = 1e-5
"""A search aims at least at this margin, per unit of the largest |logit| at the centre, at least 1:
its own arithmetic is float32. No proof leans on it."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WRAP = ThreadpoolController().wrap(limits=1, user_api="blas")

_LIBRARY_LIMITS = (
    "unsupported-operator",
    "padded-average-pool",
    "overlapping-average-pool",
    "overlapping-max-pool",
    "product-of-activations",
    "division-by-activation",
)
"""Refusals that say what the library cannot do; there the checker is asked alone."""

CROWN = "CROWN"
TOO_COSTLY = "too-costly"
"""Status of a box that was not asked about, because CROWN would take more than it may."""

_LEAN_ON = {"IBP": METHODS, "CROWN-IBP": ("CROWN-IBP",), "CROWN": ("CROWN",)}
"""Certifier of the library -> those that use its bounds, and go with it where they are wrong."""


def _in_one_thread(function: _Function) -> _Function:
    """The checker's matrices are small: a second thread costs more than it gains."""
    wrapped: _Function = _WRAP(function)
    return wrapped


@dataclass
class Proven:
    """What one certifier proved.

    Attributes:
        certified_B: bool (B,) on the CPU, confirmed by the checker.
        margin_B: float32 (B,) on the CPU, smallest lower bound of logit[label] - logit[other]: the
            checker's where it was asked, else what the certifier claims.
    """

    certified_B: Tensor
    margin_B: Tensor


class Prover:
    """A submitted network with all certifiers that may be asked about it.

    Args:
        model: the submitted network, in eval mode, for float32 inputs (B, *input_shape) in [0, 1].
        input_shape: (C, H, W).
        num_classes: number of logits, at least 2.
        device: where claims are computed; the checker works on the CPU.
        searched_on: a network with the same outputs that claims are made on; the model by default.

    Attributes:
        refusals: certifier -> why it cannot be asked.
        crown_macs: multiply-adds of CROWN where all neurons of an image are open.

    Raises:
        CertifierUnavailable: where the bound library is missing or does not work.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        num_classes: int,
        device: str | torch.device = "cpu",
        searched_on: nn.Module | None = None,
    ) -> None:
        self.input_shape, self.num_classes = tuple(input_shape), num_classes
        self.device = torch.device(device)
        self.model = model
        self.refusals: dict[str, NotCertifiable] = {}
        self._bounded = BoundedModel(searched_on or model, input_shape, num_classes, device)
        self._alone: set[str] = set()
        self._searchable: nn.Module | None = None
        self.crown_macs = 0
        try:
            self._network: Network = read_network(model, input_shape)
        except UncheckableError as error:
            refusal = NotCertifiable(
                "no-checker", f"the checker does not know {error}; {way_out(str(error))}"
            )
            self.refusals = dict.fromkeys((*METHODS, ALPHA, BRANCHING), refusal)
            return
        self._witness = Witness(model, self._network, self.device)
        self.crown_macs = whole_cost(self._network)
        if self.crown_macs > LIBRARY_CROWN_MACS:
            self._alone.add(CROWN)
        for method in METHODS:
            refused = self._bounded.refusals.get(method)
            if refused is not None and refused.rule not in _LIBRARY_LIMITS:
                self.refusals[method] = refused
            elif refused is not None:
                self._alone.add(method)
        self._prepare_search()

    def _prepare_search(self) -> None:
        self._relu_network = self._network
        refusal = None
        if any(isinstance(step.layer, MaxPool) for step in self._network.steps):
            self._relu_network = read_network(self.model, self.input_shape, max_as_relus=True)
        others = [
            type(step.layer).__name__
            for step in self._relu_network.steps
            if isinstance(step.layer, NONLINEAR) and not isinstance(step.layer, Relu)
        ]
        if others:
            refusal = NotCertifiable(
                "not-a-relu-net",
                f"only the signs of ReLUs are split, and {others[0]} is neither a ReLU nor affine",
            )
        elif "CROWN" in self.refusals:
            refusal = self.refusals["CROWN"]
        elif is_rewritten(self._relu_network):
            self._searchable = Replayed(self._relu_network).to(self.device)
        else:
            try:
                self._searchable = prepare(self.model, self.input_shape).to(self.device)
            except NotCertifiable as found:
                refusal = found
        if refusal is not None:
            self.refusals[ALPHA] = self.refusals[BRANCHING] = refusal
        both = (self._network, self._relu_network)
        self._kept = {id(network): KeptBounds(network) for network in both}

    # --- one relaxation ---

    @_in_one_thread
    def prove(self, method: str, x_L: Tensor, x_U: Tensor, labels: Tensor) -> Proven:
        """Ask one certifier of METHODS about boxes, and the checker about what it claims.

        Args:
            method: "IBP", "CROWN-IBP" or "CROWN".
            x_L: float32 (B, *input_shape), lower corners.
            x_U: float32 like `x_L`, upper corners.
            labels: int64 (B,).

        Raises:
            NotCertifiable: the certifier is refused for this network, or an image inside a box
                contradicts its bounds.
            MemoryError: not even one image fits into memory.
        """
        self._require(method)
        check_boxes(x_L, x_U, labels, self.input_shape, self.num_classes)
        margin_B = self._claims(method, x_L, x_U, labels)
        asked = np.flatnonzero((margin_B > 0).numpy())
        certified_B = torch.zeros(len(margin_B), dtype=torch.bool)
        if len(asked):
            rows = torch.from_numpy(asked)
            low, high = float64(x_L)[asked], float64(x_U)[asked]
            asked_boxes = x_L[rows.to(x_L.device)], x_U[rows.to(x_U.device)]
            self._heed(self._witness.against_intervals(*asked_boxes))
            found = margins(self._network, low, high, labels64(labels)[asked], method)
            chosen = labels[rows.to(labels.device)]
            self._heed(self._witness.against_bounds(*asked_boxes, chosen, found))
            margin_B[rows] = downward(found.min(axis=1))
            certified_B[rows] = torch.from_numpy(found.min(axis=1) > 0)
        return Proven(certified_B, margin_B)

    def _claims(self, method: str, x_L: Tensor, x_U: Tensor, labels: Tensor) -> Tensor:
        """The smallest margin of each image that the certifier claims."""
        if method not in self._alone:
            try:
                claimed = self._bounded.margins(method, x_L, x_U, labels)
                return torch.nan_to_num(claimed.amin(dim=1), nan=-torch.inf)
            except NotCertifiable as refusal:
                if refusal.rule not in _LIBRARY_LIMITS:
                    self.refusals.update(dict.fromkeys(_LEAN_ON[method], refusal))
                    raise
                self._alone.add(method)
        return torch.full((len(labels),), torch.inf)

    # --- searches ---

    @_in_one_thread
    def search(
        self,
        certifier: str,
        x_L: Tensor,
        x_U: Tensor,
        labels: Tensor,
        budget: BranchBudget,
        max_macs: float = math.inf,
    ) -> list[BranchResult]:
        """Ask alpha-CROWN or branch and bound about boxes, one by one, and check what they find.

        Args:
            certifier: "alpha-CROWN" or "BaB"; "CROWN" for the bounds that both begin with.
            x_L: float32 (B, *input_shape), lower corners.
            x_U: float32 like `x_L`, upper corners.
            labels: int64 (B,).
            budget: what one image may cost; alpha-CROWN never splits.
            max_macs: multiply-adds that CROWN may take for one image.

        Returns:
            One answer per image; "certified" only where the checker confirms it, and margins are
            the checker's. Above `max_macs` it is `TOO_COSTLY`.

        Raises:
            NotCertifiable: it is refused for this network, or an image inside a box contradicts
                its bounds.
        """
        self._require(certifier)
        check_boxes(x_L, x_U, labels, self.input_shape, self.num_classes)
        if certifier == ALPHA:
            budget = replace(
                budget,
                max_subdomains=min(budget.max_subdomains, self.num_classes - 1),
                root=replace(budget.root, num_steps=ALPHA_STEPS),
                tighten=Ascent(num_steps=0),
            )
        with torch.inference_mode(False), torch.no_grad():
            self._heed(self._witness.against_intervals(x_L, x_U))
            return [
                self._search_one(
                    certifier, x_L[i : i + 1], x_U[i : i + 1], labels[i : i + 1], budget, max_macs
                )
                for i in range(len(x_L))
            ]

    def _search_one(
        self,
        certifier: str,
        x_L: Tensor,
        x_U: Tensor,
        label: Tensor,
        budget: BranchBudget,
        max_macs: float,
    ) -> BranchResult:
        started = time.perf_counter()
        low, high, label_number = float64(x_L), float64(x_U), int(label)
        network = self._network if certifier == CROWN else self._relu_network
        last, kept = len(network.steps), self._kept[id(network)]
        try:
            tight = kept.bounds(low, high, max_macs)
        except TooCostlyError:
            return BranchResult(TOO_COSTLY, torch.full((self.num_classes - 1,), -torch.inf))
        rows = specification(labels64(label), self.num_classes)
        root = network.lower(tight, last, rows)
        known, noise = root.bound_BR[0], root.noise_BR[0]
        self._heed(self._witness.against_bounds(x_L, x_U, label, known[None]))
        is_open = ~(known > 0)
        if not is_open.any():
            kept.forget(low, high)
            return BranchResult("certified", downward(known))
        if certifier == CROWN:
            return BranchResult("open", downward(known))
        least = max(1.0, self._scale(x_L, x_U))
        result = BranchResult("open", downward(known))
        for aim in (AIM, AIM_AGAIN):
            enough = aim * float(noise[is_open].max()) + AIM_LEAST * least
            if not np.isfinite(enough):
                break
            found = self._searched(x_L, x_U, label, tight, known, enough, budget)
            best = known
            if found.proof is not None:
                tree = tree_of(found, 0.5 * AIM_LEAST * least)
                by_cases = margins_by_cases(network, tight, label_number, tree)
                best = np.maximum(known, by_cases)
                self._heed(self._witness.against_bounds(x_L, x_U, label, best[None]))
            is_proven = bool((best > 0).all())
            status = "certified" if is_proven else found.status
            result = replace(
                found,
                status="open" if status == "certified" and not is_proven else status,
                margins=downward(best),
                proof=found.proof if is_proven else None,
            )
            if is_proven or found.status != "certified":
                break
        if result.is_certified:
            kept.forget(low, high)
        return replace(result, seconds=time.perf_counter() - started)

    def _searched(
        self,
        x_L: Tensor,
        x_U: Tensor,
        label: Tensor,
        tight: Bounds,
        known: Array,
        enough: float,
        budget: BranchBudget,
    ) -> BranchResult:
        """Search one box, with fewer subdomains at once while memory runs out."""
        assert self._searchable is not None
        layers = []
        for relu in self._relu_network.relus:
            given = tight.values[self._relu_network.steps[relu - 1].sources[0]]
            sides = (given.low[0].reshape(-1), given.high[0].reshape(-1))
            layers.append(tuple(torch.from_numpy(one).float().to(self.device) for one in sides))
        low, high = (x.detach().clone().to(self.device, torch.float32) for x in (x_L, x_U))
        open_only = torch.from_numpy(np.where(known > 0, np.inf, known)).float().to(self.device)
        label = label.detach().clone().to(self.device, torch.long)
        while True:
            try:
                return search_box(
                    self._searchable,
                    low,
                    high,
                    label,
                    layers,  # type: ignore[arg-type]
                    open_only,
                    enough,
                    budget,
                )
            except NotCertifiable as refusal:
                self._contradict(str(refusal))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if budget.batch_size == 1:
                    return BranchResult("too-wide", open_only.cpu())
                budget = replace(budget, batch_size=budget.batch_size // 2)

    # --- what is looked at all the same ---

    def _require(self, certifier: str) -> None:
        if certifier in self.refusals:
            raise self.refusals[certifier]

    def _scale(self, x_L: Tensor, x_U: Tensor) -> float:
        with torch.no_grad():
            return float(self.model(between(x_L, x_U).to(self.device)).abs().max())

    def _heed(self, contradiction: str) -> None:
        if contradiction:
            self._contradict(contradiction)

    def _contradict(self, reason: str) -> NoReturn:
        """Take every certifier away: the checker itself, or what it is told, is wrong."""
        refusal = NotCertifiable(CONTRADICTED, reason)
        self.refusals = dict.fromkeys((*METHODS, ALPHA, BRANCHING), refusal)
        raise refusal
