"""Differentiable margin bounds for certified training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from corobench.benchmark.certify.lirpa.graph import bound, converted
from corobench.benchmark.certify.lirpa.graph_rules import (
    needs_matrix_mode,
    operator_name,
    refusals_of,
)
from corobench.benchmark.certify.margin_spec import check_boxes, margin_spec, other_classes
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import copy_detached, simplify_layers

TRAINING_METHODS = ("IBP", "CROWN-IBP")
"""The certifiers cheap enough for every step of a training."""


class TrainingBounds:
    """IBP and CROWN-IBP over a model in training, whose parameters it shares.

    An optimiser step on the model is seen by the next call; a parameter that was replaced by
    another object (as when a pruning mask is attached) leads to a new graph. The model's training
    flags and its parameters' `requires_grad` stay as they are; frozen parameters get no gradient.
    Dropout does not take part in the bounds. Refused are live pruning masks (keep pruned weights at
    zero instead) and batch-norm, whose statistics in training belong to a batch and not to a box.

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
        self._convert()

    def lower_margins(
        self, x_L: Tensor, x_U: Tensor, labels: Tensor, method: str = "IBP"
    ) -> Tensor:
        """Lower bounds of logit[label] - logit[j], differentiable in the parameters.

        The cross-entropy of their negatives, `F.cross_entropy(-lower, labels)`, is an upper bound
        of the cross-entropy of every image in the box (Gowal et al., 2018, section 3.2).

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
        check_boxes(x_L, x_U, labels, self.input_shape, self.num_classes)
        if self._parameters != self._current_parameters():
            self._convert()
        labels = labels.long()
        spec = margin_spec(labels, self.num_classes).to(x_L)
        lower, _ = bound(self._module, method, x_L, x_U, spec, upper=False)
        columns = other_classes(labels, self.num_classes)
        return torch.zeros(len(x_L), self.num_classes).to(lower).scatter(1, columns, lower)

    def _current_parameters(self) -> list[tuple[str, int]]:
        return [(name, id(parameter)) for name, parameter in self.model.named_parameters()]

    def _convert(self) -> None:
        """Build the graph on a copy of the model's structure that holds the same parameters."""
        shared = list(self.model.parameters())
        structure = simplify_layers(copy_detached(self.model, shared).eval())
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
        if any(isinstance(module, norms) for module in self.model.modules()):
            raise NotCertifiable(
                "batch-norm-in-training",
                "the statistics of a batch-norm in training belong to a batch, not to a box; "
                "train a net without batch-norm for certification",
            )
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
        self._module = module
        self._parameters = self._current_parameters()


def _parameter_of(node: nn.Module) -> object:
    """A function without arguments that returns the parameter a graph node holds."""
    return lambda: node.param
