"""Which graphs the bound library bounds wrongly without an error, or not at all, per certifier.

The library raises nothing for some graphs it gets wrong, so that a graph is trusted only where
every operator on the way of the perturbed image is on a list of those found right. The names of
the operators are those of the library's node classes without their prefix "Bound".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corobench.benchmark.errors import NotCertifiable

CERTIFIERS = ("IBP", "CROWN-IBP", "CROWN")
"""The certifiers that the library is asked for, cheapest first."""

BRANCHING = "BaB"
"""The certifier that splits a box further: `Prover.search`."""

_LINEAR_RELAXATION = ("CROWN-IBP", "CROWN")
_RIGHT = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Concat",
        "Conv",
        "Div",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "Input",
        "Linear",
        "MaxPool",
        "Mul",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Shape",
        "Sigmoid",
        "Sub",
        "Tanh",
    }
)
_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Linear", "MatMul"})
_LEAVES = frozenset({"Buffers", "Constant", "Params", "PrimConstant"})
_REARRANGING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_BILINEAR = frozenset({"Mul", "Div"})


def operator_name(node: Any) -> str:
    """The operator of a node of the library's graph, such as "Conv"."""
    return type(node).__name__.removeprefix("Bound")


def refusals_of(nodes: list[Any]) -> dict[str, NotCertifiable]:
    """Certifiers that must not be asked about this graph.

    Args:
        nodes: all nodes of the converted model, with the image marked as perturbed.

    Returns:
        certifier -> the first reason found; empty where all may be asked.
    """
    refusals: dict[str, NotCertifiable] = {}
    for node in nodes:
        for methods, rule, message in _findings(node):
            for method in methods:
                refusals.setdefault(method, NotCertifiable(rule, message))
    return refusals


def needs_matrix_mode(nodes: list[Any]) -> bool:
    """Whether the library's faster patches mode gets a layer of this graph wrong.

    It does so for grouped and dilated convolutions, and wherever height and width are not treated
    alike: feature maps that are not square, kernels, strides or paddings that differ.
    """
    return any(_is_uneven(node) for node in nodes if node.from_input)


def _is_uneven(node: Any) -> bool:
    shape = tuple(getattr(node, "output_shape", None) or ())
    if len(shape) == 4 and shape[2] != shape[3]:
        return True
    if operator_name(node) == "Conv":
        kernel = tuple(node.inputs[1].output_shape[2:])
        pairs = (kernel, tuple(node.stride), tuple(node.padding))
        return (
            node.groups != 1
            or any(step != 1 for step in node.dilation)
            or any(len(set(pair)) > 1 for pair in pairs)
        )
    if operator_name(node) in ("AveragePool", "MaxPool"):
        return len(set(node.kernel_size)) > 1 or len(set(node.stride)) > 1
    return False


def _findings(node: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(certifiers refused, rule, message) for one node."""
    name = operator_name(node)
    is_masked = _is_computed_from if name == "MatMul" else _is_computed
    if name in _WEIGHTED and any(is_masked(source) for source in node.inputs[1:]):
        yield (
            CERTIFIERS,
            "live-pruning-mask",
            f"the weight of a {name} layer is computed in the forward pass (weight * mask), which "
            "is bounded wrongly; store the masked weight itself",
        )
    if not node.perturbed:
        return
    if name not in _RIGHT:
        yield CERTIFIERS, "unsupported-operator", f"no certifier here is trusted with {name}"
    if name in _BILINEAR and sum(source.perturbed for source in node.inputs) > 1:
        yield (
            CERTIFIERS,
            "product-of-activations",
            f"{name} of two tensors that both depend on the image is not bounded here",
        )
    if name == "Div" and node.inputs[1].perturbed:
        yield CERTIFIERS, "division-by-activation", "the divisor depends on the image"
    if name == "AveragePool":
        yield from _average_pool_findings(node)
    if name == "MaxPool":
        yield from _max_pool_findings(node)


def _is_computed(node: Any) -> bool:
    """Whether a weight is the result of operators, instead of a stored tensor."""
    return operator_name(node) not in _LEAVES


def _is_computed_from(node: Any) -> bool:
    """Whether a factor of a MatMul is computed of stored tensors, and not only put in order.

    A factor that depends on the image makes it a product of activations, which is no mask.
    """
    if node.perturbed:
        return False
    if operator_name(node) in _REARRANGING:
        return any(_is_computed_from(source) for source in node.inputs[:1])
    return _is_computed(node)


def _average_pool_findings(node: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if any(pad != 0 for pad in node.padding):
        yield (
            _LINEAR_RELAXATION,
            "padded-average-pool",
            "average pooling with padding is bounded wrongly by CROWN; only IBP is asked",
        )
    elif list(node.kernel_size) != list(node.stride):
        yield (
            _LINEAR_RELAXATION,
            "overlapping-average-pool",
            "average pooling whose stride differs from its kernel is not bounded by CROWN; "
            "only IBP is asked",
        )


def _max_pool_findings(node: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if any(pad != 0 for pad in node.padding) or list(node.kernel_size) != list(node.stride):
        yield (
            _LINEAR_RELAXATION,
            "overlapping-max-pool",
            "max pooling with padding, or whose stride differs from its kernel, is not bounded by "
            "CROWN; only IBP is asked",
        )
