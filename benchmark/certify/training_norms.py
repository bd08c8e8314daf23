"""Batch-norm under bounds in training: folded into the layer before it, anew at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.network.prepare import batch_norm_pairs, fuse_batch_norm

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class _Pair:
    """A layer and the batch-norm behind it, and what stands for both in the graph."""

    layer: nn.Conv1d | nn.Conv2d | nn.Linear
    norm: nn.BatchNorm1d | nn.BatchNorm2d
    fused: nn.Module


class BatchNormsInTraining:
    """Weights of the graph that are functions of a model's layers and batch-norms.

    With the mean and variance of a batch, a batch-norm is affine. The layer before it takes it in:
    weight * g / sqrt(var + eps) and (bias - mean) * g / sqrt(var + eps) + b (Ioffe and Szegedy
    2015). The box and the batch of its centre see the same statistics, as in the code of Shi et al.
    2021.

    Args:
        model: in training; its parameters are shared.
        structure: a copy that the graph is made of; changed in place.

    Raises:
        NotCertifiable: "batch-norm-in-training" where a batch-norm follows something else.
    """

    def __init__(self, model: nn.Module, structure: nn.Module) -> None:
        self._model = model
        names = batch_norm_pairs(model)
        paired = {norm_name for _, norm_name in names}
        for name, module in model.named_modules():
            if isinstance(module, _NORMS) and name not in paired:
                raise NotCertifiable(
                    "batch-norm-in-training",
                    f"the batch-norm {name!r} does not directly follow a convolution or linear "
                    "layer that nothing else reads; in training only such a one can be bounded",
                )
        self._pairs = [
            _Pair(
                model.get_submodule(layer_name),  # type: ignore[arg-type]
                model.get_submodule(norm_name),  # type: ignore[arg-type]
                fuse_batch_norm(structure, layer_name, norm_name),
            )
            for layer_name, norm_name in names
        ]
        self._nodes: dict[tuple[int, str], nn.Module] = {}

    def take_over(self, node: nn.Module) -> None:
        """Where a parameter of the graph is one of ours, let `refresh` say what it is."""
        for index, pair in enumerate(self._pairs):
            for kind in ("weight", "bias"):
                if node._parameters.get("param") is getattr(pair.fused, kind):
                    node.__dict__["param"] = node._parameters.pop("param")
                    self._nodes[index, kind] = node
                    return

    def refresh(self, centres_BCHW: Tensor) -> None:
        """Compute the weights of this step.

        Args:
            centres_BCHW: images whose batch gives the statistics of norms in training mode.
        """
        statistics = self._statistics(centres_BCHW)
        for index, pair in enumerate(self._pairs):
            mean_C, variance_C = statistics[id(pair.norm)]
            weight, bias_C = _folded(pair, mean_C, variance_C)
            self._nodes[index, "weight"].__dict__["param"] = weight
            self._nodes[index, "bias"].__dict__["param"] = bias_C

    def _statistics(self, centres_BCHW: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Mean and biased variance of what enters each batch-norm, by the norm's identity."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        of_batch = [pair.norm for pair in self._pairs if _reads_the_batch(pair.norm)]

        def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            dims = [dim for dim in range(inputs[0].ndim) if dim != 1]
            found[id(norm)] = (inputs[0].mean(dims), inputs[0].var(dims, unbiased=False))

        if of_batch:
            with ExitStack() as stack:
                for norm in of_batch:
                    stack.callback(norm.register_forward_pre_hook(note).remove)
                    stack.enter_context(_without_tracking(norm))
                self._model(centres_BCHW)
        for pair in self._pairs:
            norm = pair.norm
            if id(norm) not in found:
                assert norm.running_mean is not None and norm.running_var is not None
                found[id(norm)] = (norm.running_mean, norm.running_var)
        return found


def _folded(pair: _Pair, mean_C: Tensor, variance_C: Tensor) -> tuple[Tensor, Tensor]:
    scale_C = torch.rsqrt(variance_C + pair.norm.eps)
    if pair.norm.affine:
        scale_C = scale_C * pair.norm.weight
    weight = pair.layer.weight
    shift_C = mean_C if pair.layer.bias is None else mean_C - pair.layer.bias
    bias_C = -shift_C * scale_C
    if pair.norm.affine:
        bias_C = bias_C + pair.norm.bias
    return weight * scale_C.view(-1, *[1] * (weight.ndim - 1)), bias_C


def _reads_the_batch(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
    return norm.training or norm.running_mean is None


@contextmanager
def _without_tracking(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Iterator[None]:
    """A pass that leaves the running statistics as they are."""
    tracks = norm.track_running_stats
    norm.track_running_stats = False
    try:
        yield
    finally:
        norm.track_running_stats = tracks
