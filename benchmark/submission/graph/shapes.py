"""The shape of what a step gives, found without computing it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import MAX_ACTIVATION, GraphFaultError
from corobench.benchmark.submission.graph.sizes import BATCH
from corobench.benchmark.submission.graph.table import Shape


def shape_of(node: Node, module: nn.Module, shapes: list[Shape]) -> Shape:
    """The shape of a step's output, batch first.

    Args:
        node: the operator.
        module: its step.
        shapes: of its operands.

    Raises:
        GraphFaultError: the operands do not fit together, or the batch is not kept apart.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    examples = tuple(torch.empty(shape, device="meta") for shape in shapes)
    try:
        with torch.no_grad():
            output = functional_call(module, state, examples)
    except Exception as error:  # torch raises anything where sizes do not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: its operands do not fit together ({reason})"
        ) from error
    if not isinstance(output, Tensor) or output.dtype != torch.float32:
        raise GraphFaultError("onnx-type", f"{node.label}: expected a float32 result")
    shape = tuple(output.shape)
    if not shape or shape[0] != BATCH or 0 in shape:
        raise GraphFaultError(
            "onnx-batch", f"{node.label}: expected one result per image, with the batch first"
        )
    if math.prod(shape[1:]) > MAX_ACTIVATION or BATCH in shape[1:]:
        raise GraphFaultError(
            "onnx-too-large",
            f"{node.label}: expected at most {MAX_ACTIVATION} values per image, but found "
            f"{math.prod(shape[1:])}",
        )
    return shape
