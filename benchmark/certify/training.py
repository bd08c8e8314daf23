"""Differentiable margin bounds for certified training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from corobench.benchmark.certify.lirpa.graph import bound, converted
from corobench.benchmark.certify.lirpa.graph_rules import (
    needs_matrix_mode,
    operator_name,
    refusals_of,
)
from corobench.benchmark.certify.margin_spec import check_boxes, margin_spec, other_classes
from corobench.benchmark.certify.training_norms import BatchNormsInTraining
from corobench.benchmark.network.prepare import copy_detached, simplify_layers

Interval = Callable[..., tuple[Tensor, Tensor]]

TRAINING_METHODS = ("IBP", "CROWN-IBP")
"""The certifiers cheap enough for every step of a training."""


class TrainingBounds:
    """IBP and CROWN-IBP over a model in training, whose parameters it shares.

    An optimiser step on the model is seen by the next call; a parameter that was replaced by
    another object (as when a pruning mask is attached) leads to a new graph. The model's training
    flags and its parameters' `requires_grad` stay as they are; frozen parameters get no gradient.
    Dropout does not take part in the bounds. A batch-norm in training mode is bounded with the
    statistics of the batch of the boxes' centres, and the gradient goes through them; in eval mode
    with its running ones. Refused are live pruning masks (keep pruned weights at zero instead) and
    a batch-norm that does not directly follow a convolution or linear layer.

    Args:
        model: classifier for float32 inputs of shape (B, *input_shape).
        input_shape: (C, H, W).
        num_classes: number of logits, at least 2.

    Raises:
        CertifierUnavailable: where the bound library is missing or does not work.
        NotCertifiable: where the model cannot be bounded in training.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int], num_classes: int) -> None:
        self.model = model
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes
        self._relu_share = 1.0
        self._convert()

    def lower_margins(
        self, x_L: Tensor, x_U: Tensor, labels: Tensor, method: str = "IBP"
    ) -> Tensor:
        """Lower bounds of logit[label] - logit[j], differentiable in the parameters.

        The cross-entropy of their negatives, `F.cross_entropy(-lower, labels)`, is an upper bound
        of the cross-entropy of every image in the box (Gowal et al., 2018).

        Args:
            x_L: float tensor (B, *input_shape), lower corners of the boxes.
            x_U: float tensor like `x_L`, upper corners.
            labels: integer tensor (B,) in [0, num_classes).
            method: "IBP" or "CROWN-IBP".

        Returns:
            float tensor (B, num_classes); the label's own column is 0.

        Raises:
            ValueError: where an argument does not fit.
        """
        if method not in TRAINING_METHODS:
            raise ValueError(
                f"Expected argument `method` to be one of {', '.join(TRAINING_METHODS)}, "
                f"but got {method!r}"
            )
        spec = self._begin(x_L, x_U, labels)
        lower, _ = bound(self._module, method, x_L, x_U, spec, upper=False)
        columns = other_classes(labels.long(), self.num_classes)
        return torch.zeros(len(x_L), self.num_classes).to(lower).scatter(1, columns, lower)

    def shrunk_margins(self, x_L: Tensor, x_U: Tensor, labels: Tensor, share: float) -> Tensor:
        """What IBP would give if each ReLU that may be on or off gave less: no bounds.

        The upper end behind a ReLU whose input may have either sign is multiplied by `share`
        (Mueller et al. 2023, on shrinking in small boxes). For a loss, never for a certificate.

        Args:
            x_L, x_U, labels: as for `lower_margins`.
            share: in (0, 1]; 1 gives the bounds of IBP.

        Returns:
            float tensor (B, num_classes) as from `lower_margins`.

        Raises:
            ValueError: where an argument does not fit.
        """
        if not 0.0 < share <= 1.0:
            raise ValueError(f"Expected argument `share` to be in (0, 1], but got {share}")
        self._relu_share = share
        try:
            return self.lower_margins(x_L, x_U, labels, "IBP")
        finally:
            self._relu_share = 1.0

    def upper_losses(self, x_L: Tensor, x_U: Tensor, labels: Tensor) -> Tensor:
        """Upper bounds of each box's cross-entropy by CROWN-IBP with loss fusion.

        The loss is log(1 + sum_j exp(-margin_j)). Over the interval that IBP gives a margin, the
        exponential lies below its chord. The sum of the chords is one linear function of the
        logits, so one backward pass of one row bounds it, instead of one row for each class
        (Xu et al., 2020, on loss fusion).

        Args:
            x_L: float tensor (B, *input_shape), lower corners of the boxes.
            x_U: float tensor like `x_L`, upper corners.
            labels: integer tensor (B,) in [0, num_classes).

        Returns:
            float tensor (B,), differentiable in the parameters; at most the cross-entropy of the
            IBP margins, but for rounding.

        Raises:
            ValueError: where an argument does not fit.
        """
        spec = self._begin(x_L, x_U, labels)
        low, high = bound(self._module, "IBP", x_L, x_U, spec)
        assert high is not None
        slope, offset, shift = _chords(low, high)
        row = (slope[:, :, None] * spec).sum(1, keepdim=True)
        lower, _ = bound(self._module, "CROWN-IBP", x_L, x_U, row, upper=False)
        least = torch.exp(-shift)
        # A sum of exponentials is at least what IBP's upper bounds of the margins say.
        total = torch.maximum(offset - lower[:, 0], torch.exp(-high - shift[:, None]).sum(1))
        return shift + torch.log(least + total)

    def relu_inputs(self) -> list[tuple[Tensor, Tensor]]:
        """Interval bounds before each layer of ReLUs, from the last bounds that were computed.

        Returns:
            lower and upper bounds (B, ...), from the first layer on, differentiable.
        """
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for node in self._module._modules.values():
            if operator_name(node) == "Relu":
                source = node.inputs[0]
                found.setdefault(source.name, (source.lower, source.upper))
        return list(found.values())

    def _begin(self, x_L: Tensor, x_U: Tensor, labels: Tensor) -> Tensor:
        """Bring the graph to the model as it is now; the margins (B, S, num_classes) to bound."""
        check_boxes(x_L, x_U, labels, self.input_shape, self.num_classes)
        if self._parameters != self._current_parameters():
            self._convert()
        self._norms.refresh((x_L + x_U) / 2)
        return margin_spec(labels.long(), self.num_classes).to(x_L)

    def _current_parameters(self) -> list[tuple[str, int]]:
        return [(name, id(parameter)) for name, parameter in self.model.named_parameters()]

    def _convert(self) -> None:
        """Build the graph on a copy of the model's structure that holds the same parameters."""
        shared = list(self.model.parameters())
        structure = simplify_layers(copy_detached(self.model, shared).eval())
        self._norms = BatchNormsInTraining(self.model, structure)
        example = torch.full((2, *self.input_shape), 0.5)
        example = example.to(shared[0]) if shared else example
        options = {"conv_mode": "patches"}
        module = converted(structure, example, options)
        nodes = list(module._modules.values())
        refusals = refusals_of(nodes)
        for method in TRAINING_METHODS:
            if method in refusals:
                raise refusals[method]
        if needs_matrix_mode(nodes):
            module = converted(structure, example, {"conv_mode": "matrix"})
        for node in module._modules.values():
            if operator_name(node) == "Params":
                # the library would set requires_grad by its own mode on every pass
                node.__dict__["forward"] = _parameter_of(node)
                self._norms.take_over(node)
            if operator_name(node) == "Relu":
                node.__dict__["interval_propagate"] = self._shrinking(node.interval_propagate)
        self._module = module
        self._parameters = self._current_parameters()

    def _shrinking(self, propagate: Interval) -> Interval:
        """A ReLU's step of IBP, shrunk while `shrunk_margins` runs."""

        def shrunk(*inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            low, high = propagate(*inputs)
            if self._relu_share == 1.0:
                return low, high
            is_unstable = (inputs[0][0] < 0) & (inputs[0][1] > 0)
            return low, torch.where(is_unstable, self._relu_share * high, high)

        return shrunk


def _chords(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lines above exp(-m - shift) over intervals [low, high] of margins m, (B, S) each.

    Returns:
        slopes (B, S) of -m, at least 0; sum of the offsets (B,); shift (B,), the largest of -low
        and 0, which keeps the exponentials at 1 and below.
    """
    shift = (-low).amax(1).clamp(min=0.0).detach()
    at_low, at_high = torch.exp(-low - shift[:, None]), torch.exp(-high - shift[:, None])
    width = high - low
    # A chord of no width is the tangent.
    slope = torch.where(width > 1e-6, (at_low - at_high) / width.clamp(min=1e-6), at_low)
    return slope, (at_low + slope * low).sum(1), shift


def _parameter_of(node: nn.Module) -> object:
    """A function without arguments that returns the parameter a graph node holds."""
    return lambda: node.param
