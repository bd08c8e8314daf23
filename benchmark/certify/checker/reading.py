"""A torch network as the checker sees it, read off a symbolic trace.

Weights become float64, which holds every float32 exactly. What the checker does not know is refused
by name. Hooks are refused: they may do anything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import fx, nn
from torch.nn.utils import parametrize

from corobench.benchmark.certify.checker import nonlinear, rearranging
from corobench.benchmark.certify.checker.activations import Curve, Relu
from corobench.benchmark.certify.checker.building import Builder, Size, Value, array, require
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.modules import (
    NEGATIVE,
    add_convolution,
    add_linear,
    add_module,
)
from corobench.benchmark.certify.checker.nearly import refuse_nearly_gelu
from corobench.benchmark.certify.checker.network import Layer, Network, require_flat_logits
from corobench.benchmark.certify.checker.roots import Quotient, Root
from corobench.benchmark.certify.checker.rounding import Array
from corobench.benchmark.network.prepare import bake_weights, copy_detached

_ACTIVATIONS: dict[Any, Callable[[], Layer]] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), Relu),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), lambda: Curve("sigmoid")),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), lambda: Curve("tanh")),
    **dict.fromkeys((torch.erf, torch.special.erf, "erf"), lambda: Curve("erf")),
    **dict.fromkeys((torch.sqrt, "sqrt"), Root),
    **dict.fromkeys((torch.reciprocal, "reciprocal"), Quotient),
}
_BINARY = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add"), "add"),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), "sub"),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), "mul"),
    **dict.fromkeys((operator.truediv, torch.div, "div"), "div"),
}
_PRODUCTS = (operator.matmul, torch.matmul, torch.mm, "matmul", "mm")
_LAYERS: dict[Any, tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    **dict.fromkeys(
        (F.conv2d, torch.conv2d),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
}
_SEVERAL = (torch.chunk, torch.split, torch.unbind, "chunk", "split", "unbind")
_FLATTENING = (torch.flatten, "flatten", "view", "reshape", torch.reshape)
_POOLS = {
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}
_KEYWORDS = {"inplace", "start_dim", "end_dim", "dim", "keepdim"}
"""Those that the readers below look at; any other is refused."""

_LAYERS_OF = (
    "corobench.benchmark.submission.graph.",
    "corobench.benchmark.submission.architectures.parts",
)
"""Modules whose classes are layers, beside torch's own."""

_SHAPED = ("expand", "reshape", "view", torch.reshape)
"""Those whose first size may be the number of images."""

_MEANS, _SUMS = (torch.mean, "mean"), (torch.sum, "sum")


def read_network(
    model: nn.Module, input_shape: Sequence[int], max_as_relus: bool = False
) -> Network:
    """The network of a model, with its pruning masks and reparametrizations baked in.

    Args:
        model: classifier for float32 inputs (B, *input_shape), in eval mode; stays as it is.
        input_shape: (C, H, W).
        max_as_relus: whether max pools become trees of ReLUs, where their windows are small.

    Raises:
        UncheckableError: names what the checker does not know.
    """
    for module in model.modules():
        _refuse_computed_weights(module)
    try:
        copied = bake_weights(copy_detached(model).eval()).cpu()
    except Exception as error:  # the model is a stranger's
        raise UncheckableError(f"a model that cannot be copied ({type(error).__name__})") from error
    for module in copied.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise UncheckableError(f"hooks on a {type(module).__name__}")
        if "forward" in vars(module):
            raise UncheckableError(f"a {type(module).__name__} with a forward pass of its own")
    try:
        graph = LayerTracer().trace(copied)
    except Exception as error:  # the forward pass is a stranger's
        raise UncheckableError(
            f"a forward pass that cannot be traced ({type(error).__name__})"
        ) from error
    reader = _Reader(copied, tuple(input_shape), max_as_relus)
    try:
        network = reader.read(graph)
    except UncheckableError:
        raise
    except Exception as error:  # arguments that none of the readers below expects
        raise UncheckableError(f"a use of an operator ({type(error).__name__})") from error
    _refuse_overwritten(copied, graph, reader.values)
    refuse_nearly_gelu(network.steps)
    require_flat_logits(network)
    return network


def _refuse_computed_weights(module: nn.Module) -> None:
    """Weights that every forward pass computes anew are rounded anew; masks are exact."""
    names = {type(hook).__name__ for hook in module._forward_pre_hooks.values()}
    if parametrize.is_parametrized(module) or names & {"WeightNorm", "SpectralNorm"}:
        raise UncheckableError(
            f"a {type(module).__name__} whose weights are computed in the forward pass"
        )


class LayerTracer(fx.Tracer):
    """Stops at layers, torch's and those of ONNX files."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m).__name__ == "GraphNetwork":
            return False
        return type(m).__module__.startswith(_LAYERS_OF) or super().is_leaf_module(
            m, module_qualified_name
        )


def _refuse_overwritten(model: nn.Module, graph: fx.Graph, values: dict[fx.Node, Any]) -> None:
    """A value that a layer overwrites in place must have no other reader: a trace shows none."""
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        if not _overwrites(model, node):
            continue
        while isinstance(source, fx.Node):
            if len(source.users) > 1:
                raise UncheckableError("a value that is overwritten in place and read elsewhere")
            shares = _shares_memory(model, source) or _is_its_operand(source, values)
            source = source.args[0] if shares else None


def _overwrites(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    is_in_place = name.endswith("_") and not name.endswith("__")
    return (
        is_in_place
        or node.target in (operator.iadd, operator.isub, operator.imul, operator.itruediv)
        or bool(node.kwargs.get("inplace"))
        or (
            (node.target is F.relu or node.target in nonlinear.CALLED)
            and "pool" not in name
            and any(one is True for one in node.args[1:])
        )
    )


def _is_its_operand(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether a step gives what it gets, such as a dropout that is off; a clone is another one."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or node.target in ("clone", torch.clone):
        return False
    given, found = values.get(first), values.get(node)
    return isinstance(given, Value) and isinstance(found, Value) and given == found


def _shares_memory(model: nn.Module, node: fx.Node) -> bool:
    """Whether what a node gives may lie in the memory of its first operand."""
    if node.op == "call_module":
        layer = model.get_submodule(str(node.target))
        return rearranging.is_layer(layer) or _overwrites(model, node)
    keeps = node.target in (*_FLATTENING, "contiguous", "float") or rearranging.rearranges(
        node.target
    )
    return keeps or _overwrites(model, node)


class _Reader:
    def __init__(self, model: nn.Module, input_shape: tuple[int, ...], max_as_relus: bool) -> None:
        self.model, self.input_shape = model, input_shape
        self.builder = Builder(input_shape, max_as_relus)
        self.values: dict[fx.Node, Any] = {}

    def read(self, graph: fx.Graph) -> Network:
        output: Any = None
        for node in graph.nodes:
            if node.op == "placeholder":
                if self.values:
                    raise UncheckableError("more than one input")
                self.values[node] = Value(0)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "output":
                output = node.args[0]
            else:
                self.values[node] = self._value(node)
        last = self.values.get(output) if isinstance(output, fx.Node) else None
        if not isinstance(last, Value) or last != len(self.builder.steps):
            raise UncheckableError("an output that is not the last step")
        return Network(self.input_shape, self.builder.steps)

    def _attribute(self, node: fx.Node) -> Array:
        found: Any = self.model
        for name in str(node.target).split("."):
            found = getattr(found, name)
        return array(found)

    def _value(self, node: fx.Node) -> Any:
        arguments = [self._argument(one) for one in node.args]
        target = node.target
        _refuse_number_of_images(target, arguments, self._keywords(node))
        if node.kwargs.get("out") is not None:  # overwrites another value
            raise UncheckableError(f"the keyword out of {_name_of(target)}")
        if target in _POOLS:
            layer = _POOLS[target](*arguments[1:], **node.kwargs).eval()
            return add_module(self.builder, layer, arguments[:1])
        spelt = self._spelt(node, arguments)
        if spelt is not None:
            return spelt
        if node.op != "call_module":
            found = nonlinear.call(self.builder, target, arguments, self._keywords(node))
            if found is not None:
                return found
        unknown = sorted(set(node.kwargs) - _KEYWORDS)
        if unknown:
            raise UncheckableError(f"the keyword {unknown[0]} of {_name_of(target)}")
        if node.op == "call_module":
            module = self.model.get_submodule(str(target))
            return add_module(self.builder, module, arguments)
        if target in _ACTIVATIONS:
            return self.builder.add(_ACTIVATIONS[target](), require(arguments[0]))
        if target in (*NEGATIVE, "neg") and len(arguments) == 1:
            return self.builder.negative(require(*arguments))
        if target in (torch.rsub, "rsub") and len(arguments) == 2:
            return self.builder.binary("sub", arguments[1], arguments[0])
        if target in _BINARY and len(arguments) == 2 and not node.kwargs:
            return self.builder.binary(_BINARY[target], *arguments)
        if target in _FLATTENING:
            return self._reshape(node, arguments)
        if target in (torch.rsqrt, "rsqrt") and len(arguments) == 1:
            return self.builder.add(Quotient(), self.builder.add(Root(), require(*arguments)))
        if target in _MEANS or target in _SUMS:
            return self._mean(node, arguments, target in _MEANS)
        if target in (torch.cat, torch.concat) and isinstance(arguments[0], list | tuple):
            axis = arguments[1] if len(arguments) > 1 else node.kwargs.get("dim", 0)
            return self.builder.concat(list(arguments[0]), _whole(axis))
        if target in ("size", getattr) or target is operator.getitem:
            return self._size(node, arguments)
        if target in ("contiguous", "clone", torch.clone, "float") and len(arguments) == 1:
            return arguments[0]
        raise UncheckableError(f"the operator {_name_of(target)}")

    def _keywords(self, node: fx.Node) -> dict[str, Any]:
        return {key: self._argument(value) for key, value in node.kwargs.items()}

    def _spelt(self, node: fx.Node, arguments: list[Any]) -> Any:
        """Values in another order, and layers written as functions; None for anything else."""
        target, first = node.target, arguments[0] if arguments else None
        keywords = {key: self._argument(one) for key, one in node.kwargs.items()}
        stored = rearranging.constant(target, arguments, keywords)
        if stored is not None:
            return stored
        if target in _PRODUCTS and not keywords and len(arguments) == 2:
            weight = arguments[1]
            if isinstance(first, Value) and isinstance(weight, np.ndarray) and weight.ndim == 2:
                return add_linear(self.builder, weight.T, np.zeros(weight.shape[1]), first)
            if isinstance(first, Value) and isinstance(weight, Value):
                return self.builder.matrix_product(first, weight)
        if target in _LAYERS:
            given = dict(zip(_LAYERS[target], arguments, strict=False)) | keywords
            if target is not F.linear:
                return add_convolution(self.builder, given)
            weight, bias = given["weight"], given.get("bias")
            if not isinstance(weight, np.ndarray) or isinstance(bias, Value):
                raise UncheckableError("a linear layer whose weights or bias are computed")
            bias = np.zeros(len(weight)) if bias is None else bias
            return add_linear(self.builder, weight, bias, require(given["input"]))
        if not isinstance(first, Value) or not rearranging.rearranges(target):
            return None
        call = getattr(torch.Tensor, target) if isinstance(target, str) else target
        parts = rearranging.places_of(
            lambda x: call(x, *arguments[1:], **keywords), self.builder.shapes[first]
        )
        values = [self.builder.pick(places, first) for places in parts]
        is_several = target in _SEVERAL
        return tuple(values) if is_several else values[0]

    def _argument(self, one: Any) -> Any:
        if isinstance(one, fx.Node):
            return self.values[one]
        if isinstance(one, list | tuple):
            found = [self._argument(item) for item in one]
            return found if isinstance(one, list) else tuple(found)
        if isinstance(one, slice):
            return slice(*(self._argument(end) for end in (one.start, one.stop, one.step)))
        return one

    def _size(self, node: fx.Node, arguments: list[Any]) -> Any:
        """Shapes; the batch stands for itself as -1."""
        first = arguments[0]
        if node.target is getattr and arguments[1] == "shape" and isinstance(first, Value):
            return (Size(-1), *self.builder.shapes[first])
        if node.target == "size" and isinstance(first, Value):
            shape = (Size(-1), *self.builder.shapes[first])
            axes = [*arguments[1:], *node.kwargs.values()]  # `dim` is the only keyword of size
            return Size(shape[axes[0]]) if axes else shape
        if node.target is operator.getitem and isinstance(first, tuple):
            found = first[arguments[1]]
            if isinstance(found, Value):
                return found
            return Size(found) if isinstance(found, int) else found
        raise UncheckableError(f"the operator {_name_of(node.target)}")

    def _reshape(self, node: fx.Node, arguments: list[Any]) -> Value:
        source = require(arguments[0])
        shape = self.builder.shapes[source]
        if node.target in (torch.flatten, "flatten"):
            start = arguments[1] if len(arguments) > 1 else node.kwargs.get("start_dim", 0)
            end = arguments[2] if len(arguments) > 2 else node.kwargs.get("end_dim", -1)
            return self.builder.flatten(source, _whole(start), _whole(end))
        sizes = arguments[1:]
        if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
            sizes = list(sizes[0])
        if not sizes or sizes[0] != -1:  # a number of rows is the number of images by chance alone
            raise UncheckableError("a reshape that mixes images")
        return self.builder.to_shape(source, [int(size) for size in sizes[1:]], shape)

    def _mean(self, node: fx.Node, arguments: list[Any], is_mean: bool) -> Value:
        source = require(arguments[0])
        axes = arguments[1] if len(arguments) > 1 else node.kwargs.get("dim")
        keep = bool(node.kwargs.get("keepdim", arguments[2] if len(arguments) > 2 else False))
        return self.builder.mean_over(source, axes, keep, is_mean)


def _refuse_number_of_images(target: Any, arguments: list[Any], keywords: dict[str, Any]) -> None:
    """It stands for itself as -1, which counts from the end anywhere but as a first size."""
    rest = arguments[1:]
    if target in _BINARY or (target is operator.getitem and isinstance(arguments[0], tuple)):
        return  # `Builder.with_constant` refuses it
    if target in _SHAPED:
        rest = list(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple) else rest
        rest = rest[1:]
    if _counts_images([*rest, *keywords.values()]):
        raise UncheckableError("the number of images as a number")


def _counts_images(one: Any) -> bool:
    if isinstance(one, slice):
        one = [one.start, one.stop, one.step]
    if isinstance(one, list | tuple):
        return any(map(_counts_images, one))
    return isinstance(one, Size) and one < 0


def _whole(value: Any) -> int:
    return int(value)


def _name_of(target: Any) -> str:
    return str(getattr(target, "__name__", target))
