"""Graphs that onnxruntime computes otherwise than they are written, refused by name.

Its optimisations, which are on by default, recognise groups of operators and put one in their
place. Some do not look closely enough (found by running graphs with and without them, versions
1.19 to 1.32). A certificate is about the network that is written, so such a graph is refused
wherever it stands, with the way to write it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from corobench.benchmark.submission.graph.layers import (
    Elementwise,
    Flattened,
    Mean,
    Pad,
    Power,
    Quantise,
    Reshape,
    WithConstants,
)
from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import GraphFaultError

#: Number of a step -> the step and the numbers of what it reads; None for the image.
Lookup = Callable[[int], tuple[nn.Module, tuple[int, ...]] | None]

_SHAPING = (Reshape, nn.Flatten, nn.Identity)


def require_as_written(
    node: Node, module: nn.Module, sources: Sequence[int], made_by: Lookup
) -> None:
    """Refuse a step that onnxruntime would compute with others, and otherwise.

    Args:
        node: the operator.
        module: its step.
        sources: numbers of the steps that the step reads.
        made_by: those steps.

    Raises:
        GraphFaultError: mean - x, a deviation x - mean to another power than 2 or below a fraction
            line, the root of a mean of another power, or of a mean plus several numbers (its norms
            look at none of them); two different roundings one behind the other (it keeps one of
            them); a softmax between roundings (its table of whole numbers may be a step off);
            maxima over a border of zeros (up to 1.25 it makes the border one that is never the
            largest).
    """
    if isinstance(module, Quantise):
        _require_one_rounding(node, module, sources[0], made_by)
    elif isinstance(module, Power):
        if module.exponent != 2 and _is_deviation(sources[0], made_by):
            raise _norm(node, "to the power of 2, as in a variance")
    elif node.op == "MaxPool":
        _require_no_border_of_zeros(node, sources[0], made_by)
    elif isinstance(module, Elementwise) and module.function is torch.sqrt:
        _require_variance(node, sources[0], made_by)
    elif isinstance(module, Elementwise) and len(sources) == 2:
        first, second = sources
        if module.function is torch.sub and _is_mean_of(first, second, made_by):
            raise _norm(node, "x - mean")
        if module.function is torch.div and _is_deviation(second, made_by):
            raise _norm(node, "above a fraction line")


def _require_variance(node: Node, source: int, made_by: Lookup) -> None:
    """Under a root, a mean plus a number is one of squares, and the number is one."""
    found = made_by(source)
    if found is None or not isinstance(found[0], WithConstants):
        return
    added, sources = found
    is_sum = isinstance(added.operator, Elementwise) and added.operator.function is torch.add
    mean = made_by(sources[0])
    if not is_sum or mean is None or not isinstance(mean[0], Mean):
        return
    if any(constant.numel() > 1 for constant in added.buffers()):
        raise _norm(node, "and one number under a root")
    powers = made_by(mean[1][0])
    if powers is not None and isinstance(powers[0], Power) and powers[0].exponent != 2:
        raise _norm(node, "to the power of 2, as in a variance")


def _require_no_border_of_zeros(node: Node, source: int, made_by: Lookup) -> None:
    found = made_by(source)
    if found is None or not isinstance(found[0], Pad) or found[0].value != 0:
        return
    inner = made_by(found[1][0])
    if inner is not None and isinstance(inner[0], nn.ReLU | nn.ReLU6):
        return  # nothing is below the border
    raise GraphFaultError(
        "onnx-operator",
        f"{node.label}: maxima over a border of zeros, which onnxruntime (1.20 to 1.25) takes for "
        "one that is never the largest; put the Relu before the border, or the border into `pads` "
        "of MaxPool",
    )


def _norm(node: Node, expected: str) -> GraphFaultError:
    return GraphFaultError(
        "onnx-operator",
        f"{node.label}: expected a deviation from a mean {expected}; onnxruntime fuses what is "
        "around it to a LayerNormalization without looking",
    )


def _require_one_rounding(node: Node, module: Quantise, source: int, made_by: Lookup) -> None:
    before = made_by(source)
    if before is None:
        return
    step, sources = before
    if isinstance(step, Quantise) and not _is_same(step, module):
        raise GraphFaultError(
            "onnx-quantised",
            f"{node.label}: rounds again what was just rounded to other steps, of which "
            "onnxruntime keeps one; leave one pair of QuantizeLinear and DequantizeLinear out",
        )
    inner = step.layer if isinstance(step, Flattened) else step
    if isinstance(inner, nn.Softmax | nn.LogSoftmax):
        rounded = made_by(sources[0])
        if rounded is not None and isinstance(rounded[0], Quantise):
            raise GraphFaultError(
                "onnx-quantised",
                f"{node.label}: a softmax between roundings, which onnxruntime computes in whole "
                "numbers and up to a step otherwise; leave the softmax in float32, as its "
                "quantiser does with op_types_to_quantize",
            )


def _is_same(first: Quantise, second: Quantise) -> bool:
    settings = (first.low, first.high) == (second.low, second.high)
    return (
        settings and torch.equal(first.scale, second.scale) and torch.equal(first.zero, second.zero)
    )


def _is_deviation(number: int, made_by: Lookup) -> bool:
    """Whether a step subtracts a mean of what it subtracts it from."""
    found = made_by(number)
    if found is None:
        return False
    step, sources = found
    is_difference = isinstance(step, Elementwise) and step.function is torch.sub
    return is_difference and len(sources) == 2 and _is_mean_of(sources[1], sources[0], made_by)


def _is_mean_of(number: int, whole: int, made_by: Lookup) -> bool:
    """Whether a step is a mean of another one's values, reshaped or not."""
    found = made_by(number)
    while found is not None and isinstance(found[0], _SHAPING):
        found = made_by(found[1][0])
    return found is not None and isinstance(found[0], Mean) and found[1][0] == whole
