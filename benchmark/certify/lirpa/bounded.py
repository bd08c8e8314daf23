"""Certified lower bounds on the margins of a model over boxes of images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.certify import batch_sizes
from corobench.benchmark.certify.folding import fold_affine
from corobench.benchmark.certify.hidden_units import num_hidden_units
from corobench.benchmark.certify.lirpa import compat as lirpa_compat
from corobench.benchmark.certify.lirpa.checks import (
    GraphFault,
    contradiction,
    disagreement,
    is_out_of_memory,
)
from corobench.benchmark.certify.lirpa.graph import bound, converted
from corobench.benchmark.certify.lirpa.graph_rules import CERTIFIERS, needs_matrix_mode, refusals_of
from corobench.benchmark.certify.margin_spec import check_boxes, margin_spec
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import prepare


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
        refusals: certifier -> why it cannot be asked about this model. All
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
            self.refusals = dict.fromkeys(CERTIFIERS, refusal)

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
            ascending order. They hold up to rounding, so that they are claims: see `prover`.

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

    # --- building and checking ---

    def _prepare(self, model: nn.Module) -> None:
        plain = prepare(model, self.input_shape).cpu()
        self._model = fold_affine(plain, self.input_shape).to(self.device)
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
        mode = "matrix" if method in self._matrix_mode else "patches"
        options: dict[str, Any] = {"conv_mode": mode}
        if method == "CROWN" and math.isfinite(self._group_size):
            options["crown_batch_size"] = int(self._group_size)
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
        if method in self._matrix_mode:
            return False
        self._matrix_mode.add(method)
        self._modules.pop(method, None)
        self._checked.discard(method)
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
            module = self._module(method)
            with lirpa_compat.computing():
                forward = module(points)
            spec = margin_spec(labels, self.num_classes)
            pairs = [
                bound(module, method, point, point, rows)
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
        together = batch_sizes.crown_together(self._num_hidden)
        return bound(self._module(method), method, low, high, spec, False, together)[0]

    def _shrink(self, method: str, error: BaseException) -> None:
        """Halve what is bounded at once; at one image, the neurons per group of CROWN."""
        self._modules.pop(method, None)
        if self._batch_sizes[method] > 1:
            self._batch_sizes[method] //= 2
        elif method == "CROWN" and self._group_size > 4:
            self._group_size = min(self._group_size // 2, batch_sizes.WIDE_GROUP_SIZE)
            self._modules.pop("CROWN", None)
        else:
            raise MemoryError(f"{method} does not fit into memory, even for one image") from error
        if self.device.type == "cuda":
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
