"""Certified lower bounds on the margins of a model over boxes of images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.certify import batch_sizes, lirpa_compat
from benchmark.certify.branch_boxes import search_box
from benchmark.certify.budget import BranchBudget, BranchResult
from benchmark.certify.graph_rules import BRANCHING, CERTIFIERS, needs_matrix_mode, refusals_of
from benchmark.certify.hidden_units import num_hidden_units
from benchmark.certify.lirpa_checks import (
    GraphFault,
    contradiction,
    disagreement,
    is_out_of_memory,
)
from benchmark.certify.lirpa_graph import (
    bound,
    converted,
    intermediate_bounds,
    optimised,
    relu_bounds,
)
from benchmark.certify.margin_spec import check_boxes, check_known, margin_spec
from benchmark.certify.prepare import prepare
from benchmark.certify.reduced import LayerBounds
from benchmark.certify.refusals import NotCertifiable
from benchmark.certify.threshold import certified, float_margin

ALPHA_ITERATIONS = 20
"""Gradient steps of alpha-CROWN on the slopes of unstable ReLUs."""


class BoundedModel:
    """A model together with the certifiers that may be asked about it.

    Building converts a prepared copy (see `prepare`), so later changes of the model are not seen.
    A certifier is checked when it is first used: its graph must give the model's logits, and its
    bounds over boxes of width 0 must equal them. On every call the bounds are also compared with
    the logits at the centre and two corners of each box. Each certifier works on a graph of its
    own, so that the order of calls changes no number.

    Args:
        model: classifier for float32 inputs of shape (B, *input_shape) in [0, 1].
        input_shape: (C, H, W).
        num_classes: number of logits, at least 2.
        device: where bounds are computed.

    Attributes:
        refusals: certifier -> why it cannot be asked about this model; "BaB" is one of them. All
            where the model cannot be copied or converted. Grows where a check fails on first use.

    Raises:
        CertifierUnavailable: where the bound library is missing or does not work.
        ValueError: where `num_classes` is below 2.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        num_classes: int,
        device: str | torch.device = "cpu",
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"Expected argument `num_classes` to be at least 2, but got {num_classes}"
            )
        lirpa_compat.load()
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.device = torch.device(device)
        self.refusals: dict[str, NotCertifiable] = {}
        self._batch_sizes, self._num_hidden = batch_sizes.batch_sizes(0), 0
        self._modules: dict[str, Any] = {}
        self._checked: set[str] = set()
        self._matrix_mode: set[str] = set()
        self._group_size = math.inf
        try:
            self._prepare(model)
        except NotCertifiable as refusal:
            self.refusals = dict.fromkeys((*CERTIFIERS, BRANCHING), refusal)

    @property
    def methods(self) -> tuple[str, ...]:
        """The certifiers not refused so far, cheapest first."""
        return tuple(method for method in CERTIFIERS if method not in self.refusals)

    def margins(self, method: str, x_L: Tensor, x_U: Tensor, labels: Tensor) -> Tensor:
        """Lower bounds of logit[label] - logit[other] over each box, exact in the specification.

        Args:
            method: one of CERTIFIERS.
            x_L: float tensor (B, *input_shape), lower corners of the boxes.
            x_U: float tensor like `x_L`, upper corners, nowhere below the lower ones.
            labels: integer tensor (B,) in [0, num_classes).

        Returns:
            float32 tensor (B, num_classes - 1) on the CPU, without gradient; the other classes in
            ascending order. Sound up to rounding: see `certified`.

        Raises:
            NotCertifiable: where `method` is refused for this model, or fails its checks now.
            ValueError: where an argument does not fit.
            MemoryError: where not even one image fits into memory.
        """
        if method not in CERTIFIERS:
            raise ValueError(
                f"Expected argument `method` to be one of {', '.join(CERTIFIERS)}, "
                f"but got {method!r}"
            )
        check_boxes(x_L, x_U, labels, self.input_shape, self.num_classes)
        # clones: a tensor made under inference mode could not take part in alpha's gradient
        with torch.inference_mode(False), torch.no_grad():
            low = x_L.detach().clone().to(self.device, torch.float32)
            high = x_U.detach().clone().to(self.device, torch.float32)
            labels = labels.detach().clone().to(self.device, torch.long)
            self._require(method, (low[:1] + high[:1]) / 2)
            try:
                bounds = self._in_chunks(method, low, high, labels)
            except GraphFault as fault:
                if not self._switch_to_matrix_mode(method):
                    self.refusals[method] = fault.refusal()
                    raise self.refusals[method] from fault
                return self.margins(method, x_L, x_U, labels)
            refusal = contradiction(method, self._model, low, high, labels, bounds)
            if refusal is not None:
                self.refusals[method] = refusal
                raise refusal
        return bounds.cpu()

    def branch_and_bound(
        self,
        x_L: Tensor,
        x_U: Tensor,
        labels: Tensor,
        logits: Tensor,
        known: Tensor | None = None,
        budget: BranchBudget | None = None,
    ) -> list[BranchResult]:
        """Split each box until every margin is decided, or the budget is used ("BaB").

        Meant for the images that neither a cheaper certifier nor an attack has decided: on an
        image that an attack breaks, the whole budget is spent in vain. Images are searched one by
        one, so that an answer depends on no other image.

        Args:
            x_L: float tensor (B, *input_shape), lower corners of the boxes.
            x_U: float tensor like `x_L`, upper corners.
            labels: integer tensor (B,) in [0, num_classes).
            logits: float tensor (B, num_classes), the model's output at the centres, which sets
                the float margin; see `certified`.
            known: float tensor (B, num_classes - 1), bounds from `margins`; only those not above
                the float margin are open. CROWN's are computed in any case.
            budget: what one image may cost.

        Returns:
            One answer per image. With `max_subdomains` 0 its margins are the best of the known
            ones and CROWN's.

        Raises:
            NotCertifiable: where "BaB" is refused for this model, or fails its checks now.
            ValueError: where an argument does not fit.
            MemoryError: where not even one image fits into memory.
        """
        if BRANCHING in self.refusals:
            raise self.refusals[BRANCHING]
        check_boxes(x_L, x_U, labels, self.input_shape, self.num_classes)
        check_known(logits, known, len(x_L), self.num_classes)
        budget = BranchBudget() if budget is None else budget
        try:
            with torch.inference_mode(False), torch.no_grad():
                return [
                    self._branch(
                        x_L[i : i + 1],
                        x_U[i : i + 1],
                        labels[i : i + 1],
                        logits[i : i + 1],
                        known if known is None else known[i : i + 1],
                        budget,
                    )
                    for i in range(len(x_L))
                ]
        except NotCertifiable as refusal:
            self.refusals[BRANCHING] = refusal
            raise

    def _branch(
        self,
        x_L: Tensor,
        x_U: Tensor,
        label: Tensor,
        logits: Tensor,
        known: Tensor | None,
        budget: BranchBudget,
    ) -> BranchResult:
        """One image."""
        best = known
        if best is None or not bool(certified(best.cpu(), logits.cpu())):
            crown = self.margins("CROWN", x_L, x_U, label)
            best = crown if best is None else torch.maximum(best.detach().float().cpu(), crown)
        if bool(certified(best.cpu(), logits.cpu())):
            return BranchResult("certified", best[0].detach().float().cpu())
        if budget.max_subdomains == 0:
            return BranchResult("open", best[0])
        bounds = relu_bounds(self._module("CROWN"))
        low, high = (x.detach().clone().to(self.device, torch.float32) for x in (x_L, x_U))
        label = label.detach().clone().to(self.device, torch.long)
        best = best.to(self.device)
        enough = float(float_margin(logits.detach().float())[0])
        found = self._search(low, high, label, bounds, best[0], enough, budget)
        bounded = found.margins[None].to(self.device)
        refusal = contradiction(BRANCHING, self._model, low, high, label, bounded)
        if refusal is not None:
            raise refusal
        return found

    def _search(
        self,
        low: Tensor,
        high: Tensor,
        label: Tensor,
        bounds: LayerBounds,
        known: Tensor,
        enough: float,
        budget: BranchBudget,
    ) -> BranchResult:
        """Search one box, with fewer subdomains at once while memory runs out."""
        while True:
            try:
                return search_box(self._model, low, high, label, bounds, known, enough, budget)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if budget.batch_size == 1:
                    return BranchResult("too-wide", known.cpu())
                budget = replace(budget, batch_size=budget.batch_size // 2)

    # --- building and checking ---

    def _prepare(self, model: nn.Module) -> None:
        self._model = prepare(model, self.input_shape).to(self.device)
        with torch.no_grad():
            logits = self._model(self._example(2))
        if not isinstance(logits, Tensor) or logits.shape != (2, self.num_classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise NotCertifiable(
                "wrong-output",
                f"expected logits of shape (2, {self.num_classes}) for 2 images, found {found}",
            )
        self._num_hidden = num_hidden_units(self._model, self.input_shape)
        self._batch_sizes = batch_sizes.batch_sizes(self._num_hidden)
        if self._num_hidden >= batch_sizes.WIDE_HIDDEN_UNITS:
            self._group_size = batch_sizes.WIDE_GROUP_SIZE
        module = converted(self._model, self._example(2), {"conv_mode": "matrix"})
        nodes = list(module._modules.values())
        self.refusals = refusals_of(nodes)
        if needs_matrix_mode(nodes):
            self._matrix_mode = set(CERTIFIERS)

    def _example(self, num_images: int) -> Tensor:
        """Random images in [0, 1], always the same."""
        generator = torch.Generator().manual_seed(1)
        return torch.rand(num_images, *self.input_shape, generator=generator).to(self.device)

    def _module(self, method: str) -> Any:
        """The graph that belongs to a certifier, converted on first use."""
        if method not in self._modules:
            self._modules[method] = self._new_module(method)
        return self._modules[method]

    def _new_module(self, method: str) -> Any:
        mode = "matrix" if _graph_of(method) in self._matrix_mode else "patches"
        options: dict[str, Any] = {"conv_mode": mode}
        if method == "CROWN" and math.isfinite(self._group_size):
            options["crown_batch_size"] = int(self._group_size)
        if method == "alpha-CROWN":
            options["optimize_bound_args"] = {"iteration": ALPHA_ITERATIONS, "init_alpha": False}
        return converted(self._model, self._example(2), options)

    def _require(self, method: str, x_BCHW: Tensor) -> None:
        """Check a certifier on its first use; a graph that fails in one mode gets the other."""
        if method in self.refusals:
            raise self.refusals[method]
        if method in self._checked:
            return
        points = torch.cat([x_BCHW, self._example(2)])
        refusal = self._first_fault(method, points)
        if refusal is not None and self._switch_to_matrix_mode(method):
            refusal = self._first_fault(method, points)
        if refusal is not None:
            self.refusals[method] = refusal
            raise refusal
        self._checked.add(method)

    def _switch_to_matrix_mode(self, method: str) -> bool:
        """Give a certifier the slower, more general kind of graph; False where it has it."""
        graph = _graph_of(method)
        if graph in self._matrix_mode:
            return False
        self._matrix_mode.add(graph)
        self._modules.pop(graph, None)
        self._checked = {other for other in self._checked if _graph_of(other) != graph}
        return True

    def _first_fault(self, method: str, points: Tensor) -> NotCertifiable | None:
        """`_fault`, repeated with less at once while memory runs out."""
        while True:
            try:
                return self._fault(method, points)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(method, error)

    def _fault(self, method: str, points: Tensor) -> NotCertifiable | None:
        """What is wrong with a certifier on these images, if anything."""
        logits = self._model(points)
        labels = logits.argmax(dim=1)
        try:
            module = self._module(_graph_of(method))
            with lirpa_compat.computing():
                forward = module(points)
            spec = margin_spec(labels, self.num_classes)
            pairs = [
                bound(module, _graph_of(method), point, point, rows)
                for point, rows in zip(points.split(1), spec.split(1), strict=True)
            ]
        except NotCertifiable as refusal:
            return refusal
        except Exception as error:  # the library raises anything, asserts included
            if is_out_of_memory(error):
                raise
            return GraphFault(method, error).refusal()
        lower, upper = (torch.cat(part) for part in zip(*pairs, strict=True))
        return disagreement(method, logits, labels, forward, lower, upper)

    # --- bounding ---

    def _in_chunks(self, method: str, low: Tensor, high: Tensor, labels: Tensor) -> Tensor:
        """All images, as many at once as the certifier and the memory allow."""
        parts = [torch.empty(0, self.num_classes - 1, device=self.device)]
        start = 0
        while start < len(low):
            part = slice(start, start + self._batch_sizes[method])
            try:
                parts.append(self._chunk(method, low[part], high[part], labels[part]))
            except NotCertifiable:
                raise
            except Exception as error:  # the library raises anything, asserts included
                if not is_out_of_memory(error):
                    raise GraphFault(method, error) from error
                self._shrink(method, error)
                continue
            start = part.stop
        return torch.cat(parts)

    def _chunk(self, method: str, low: Tensor, high: Tensor, labels: Tensor) -> Tensor:
        spec = margin_spec(labels, self.num_classes)
        if method != "alpha-CROWN":
            together = batch_sizes.crown_together(self._num_hidden)
            return bound(self._module(method), method, low, high, spec, False, together)[0]
        crown = self._module("CROWN")
        lower, _ = bound(crown, "CROWN", low, high, spec, upper=False)
        fixed = intermediate_bounds(crown)
        if not any(bool(((a < 0) & (b > 0)).any()) for a, b in fixed.values()):
            return lower  # nothing to optimise: every ReLU is stable, CROWN is exact
        better = optimised(self._new_module("alpha-CROWN"), low, high, spec, fixed)
        return torch.maximum(lower, better)

    def _shrink(self, method: str, error: BaseException) -> None:
        """Halve what is bounded at once; at one image, the neurons per group of CROWN."""
        self._modules.pop(_graph_of(method), None)
        if self._batch_sizes[method] > 1:
            self._batch_sizes[method] //= 2
        elif method in ("CROWN", "alpha-CROWN") and self._group_size > 4:
            self._group_size = min(self._group_size // 2, batch_sizes.WIDE_GROUP_SIZE)
            self._modules.pop("CROWN", None)
        else:
            raise MemoryError(f"{method} does not fit into memory, even for one image") from error
        if self.device.type == "cuda":
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()


def _graph_of(method: str) -> str:
    """The certifier whose graph and checks a certifier uses.

    alpha-CROWN starts from CROWN's bounds and adds what it can optimise: nothing at width 0.
    """
    return "CROWN" if method == "alpha-CROWN" else method
