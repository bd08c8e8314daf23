"""The few calls that are made into the bound library, behind names and types of our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from corobench.benchmark.certify.lirpa import compat as lirpa_compat
from corobench.benchmark.certify.lirpa.graph_rules import operator_name
from corobench.benchmark.errors import NotCertifiable

Intermediate = dict[str, tuple[Tensor, Tensor]]
"""Name of a graph node -> lower and upper bounds of its output."""


def converted(model: nn.Module, x_BCHW: Tensor, options: dict[str, Any]) -> Any:
    """The library's graph of a model, its image marked as perturbed.

    Args:
        model: the model, in eval mode; its parameters are shared with the graph.
        x_BCHW: example images, at least 2.
        options: bound options of the library.

    Raises:
        NotCertifiable: "unsupported-operator" where the model cannot be converted.
    """
    package = lirpa_compat.load().package
    needs_gradient = [parameter.requires_grad for parameter in model.parameters()]
    try:
        with torch.no_grad(), lirpa_compat.converting():
            module = package.BoundedModule(model, x_BCHW, bound_opts=options, device=x_BCHW.device)
            module.eval()
            module(_box(x_BCHW, x_BCHW))
    except Exception as error:  # the library raises anything, asserts included
        raise NotCertifiable(
            "unsupported-operator", f"the model cannot be converted ({first_line(error)})"
        ) from error
    finally:
        for parameter, flag in zip(model.parameters(), needs_gradient, strict=True):
            parameter.requires_grad_(flag)
    return module


def bound(
    module: Any,
    method: str,
    low: Tensor,
    high: Tensor,
    spec: Tensor,
    upper: bool = True,
    together: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Bounds of `spec @ logits` over boxes, by IBP, CROWN-IBP or CROWN.

    CROWN is given IBP's bounds of the inner layers and keeps whichever of the two is tighter. Left
    alone, the library bounds anew every neuron that IBP finds unstable for some image of the batch,
    and replaces IBP's bounds by CROWN's, which may be looser: a neuron that IBP proves stable
    becomes unstable again, because of its neighbours in the batch. The first layer is not bounded
    anew: IBP and CROWN agree there, but for rounding.

    Args:
        module: graph from `converted`.
        method: "IBP", "CROWN-IBP" or "CROWN".
        low: float tensor (B, C, H, W), lower corners.
        high: float tensor (B, C, H, W), upper corners.
        spec: float tensor (B, S, num_classes).
        upper: whether the upper bounds are wanted.
        together: boxes that CROWN takes at a time; all by default. IBP takes all of them at once.

    Returns:
        lower and upper bounds (B, S).
    """
    keyword = lirpa_compat.load().bounds_keyword
    with lirpa_compat.computing():
        box = (_box(low, high),)
        if method != "CROWN":
            lower, above = module.compute_bounds(x=box, C=spec, method=method, bound_upper=upper)
            return lower, above if upper else None
        module.compute_bounds(x=box, C=spec, method="IBP", bound_upper=False)
        found = intermediate_bounds(module)
        first_layers = _first_layers(module, found)
        pairs = []
        size = together or max(1, len(low))
        for start in range(0, len(low), size):
            rows = slice(start, start + size)
            known = {name: (below[rows], above[rows]) for name, (below, above) in found.items()}
            pairs.append(
                module.compute_bounds(
                    x=(_box(low[rows], high[rows]),),
                    C=spec[rows],
                    method="CROWN",
                    bound_upper=upper,
                    reference_bounds=known,
                    aux_reference_bounds=known,  # else the library asks IBP again for each layer
                    **{keyword: {name: known[name] for name in first_layers}},
                )
            )
    lower = torch.cat([pair[0] for pair in pairs])
    return lower, torch.cat([pair[1] for pair in pairs]) if upper else None


def intermediate_bounds(module: Any) -> Intermediate:
    """The bounds before each nonlinear operator that the last call on a graph left there."""
    found: Intermediate = {}
    for node in module._modules.values():
        for index in getattr(node, "requires_input_bounds", ()):
            source = node.inputs[index]
            if node.perturbed and getattr(source, "lower", None) is not None:
                found[source.name] = (source.lower.detach(), source.upper.detach())
    return found


def _first_layers(module: Any, found: Intermediate) -> list[str]:
    """Names in `found` of linear layers that read the image itself, normalised or not.

    An affine function of single values maps the box to a box, and IBP is exact on one linear layer.
    """
    first = []
    for node in module._modules.values():
        if node.name in found and operator_name(node) in ("Conv", "Linear"):
            source = node.inputs[0]
            if operator_name(source) == "BatchNormalization":
                source = source.inputs[0]
            if operator_name(source) == "Input":
                first.append(node.name)
    return first


def _box(low: Tensor, high: Tensor) -> Any:
    """The centre of a box, carrying its corners."""
    package = lirpa_compat.load().package
    return package.BoundedTensor((low + high) / 2, package.PerturbationLpNorm(x_L=low, x_U=high))


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
