"""A torch network as the checker sees it; the only file here that knows torch.

The graph is read off a symbolic trace. Weights become float64, which holds every float32 exactly.
What the checker does not know is refused by name. Hooks are refused: they may do anything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from benchmark.certify.checker.activations import Curve, MaxPool, Quantise, Relu
from benchmark.certify.checker.layers import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Interval,
    Linear,
    Mean,
    Pad,
    Pick,
    Reshape,
    Scale,
    UncheckableError,
)
from benchmark.certify.checker.network import Layer, Network, Step, require_flat_logits
from benchmark.certify.checker.rounding import SMALLEST, Array
from benchmark.certify.prepare import bake_weights, copy_detached

_ACTIVATIONS: dict[Any, Callable[[], Layer]] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), Relu),
    **dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), lambda: Curve("sigmoid")),
    **dict.fromkeys((torch.tanh, F.tanh, "tanh"), lambda: Curve("tanh")),
}
_BINARY = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add"), "add"),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), "sub"),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), "mul"),
    **dict.fromkeys((operator.truediv, torch.div, "div"), "div"),
}
_FLATTENING = (torch.flatten, "flatten", "view", "reshape", torch.reshape)
_MEANS = (torch.mean, "mean")
_BATCH_NORMS = nn.BatchNorm1d | nn.BatchNorm2d
_DROPOUTS = nn.Dropout | nn.Dropout1d | nn.Dropout2d
_POOLS = {
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.max_pool2d: nn.MaxPool2d,
}
_KEYWORDS = {"inplace", "start_dim", "end_dim", "dim", "keepdim"}
"""Those that the readers below look at; any other is refused."""

_LAYERS_OF = (
    "onnx2pytorch.",
    "benchmark.submission.graph.",
    "benchmark.submission.architectures.parts",
)
"""Modules whose layers are known by their names."""


def read_network(model: nn.Module, input_shape: Sequence[int]) -> Network:
    """The network of a model, with its pruning masks and reparametrizations baked in.

    Args:
        model: classifier for float32 inputs (B, *input_shape), in eval mode; stays as it is.
        input_shape: (C, H, W).

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
        is_wrapper = type(module).__module__.startswith("onnx2pytorch.")
        if "forward" in vars(module) and not is_wrapper:
            raise UncheckableError(f"a {type(module).__name__} with a forward pass of its own")
    try:
        graph = _Tracer().trace(copied)
    except Exception as error:  # the forward pass is a stranger's
        raise UncheckableError(
            f"a forward pass that cannot be traced ({type(error).__name__})"
        ) from error
    _refuse_overwritten(copied, graph)
    try:
        network = _Reader(copied, tuple(input_shape)).read(graph)
    except UncheckableError:
        raise
    except Exception as error:  # arguments that none of the readers below expects
        raise UncheckableError(f"a use of an operator ({type(error).__name__})") from error
    require_flat_logits(network)
    return network


def _refuse_computed_weights(module: nn.Module) -> None:
    """Weights that every forward pass computes anew are rounded anew; masks are exact."""
    names = {type(hook).__name__ for hook in module._forward_pre_hooks.values()}
    if parametrize.is_parametrized(module) or names & {"WeightNorm", "SpectralNorm"}:
        raise UncheckableError(
            f"a {type(module).__name__} whose weights are computed in the forward pass"
        )


class _Tracer(fx.Tracer):
    """Stops at layers, torch's and those of ONNX files."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m).__name__ == "GraphNetwork":
            return False
        is_ours = type(m).__module__.startswith(_LAYERS_OF)
        return is_ours or super().is_leaf_module(m, module_qualified_name)


def _refuse_overwritten(model: nn.Module, graph: fx.Graph) -> None:
    """A value that a layer overwrites in place must have no other reader: a trace shows none."""
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        if not _overwrites(model, node):
            continue
        while isinstance(source, fx.Node):
            if len(source.users) > 1:
                raise UncheckableError("a value that is overwritten in place and read elsewhere")
            source = source.args[0] if _shares_memory(model, source) else None


def _overwrites(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    is_in_place = name.endswith("_") and not name.endswith("__")
    return (
        is_in_place
        or bool(node.kwargs.get("inplace"))
        or (node.target is F.relu and len(node.args) > 1 and bool(node.args[1]))
    )


def _shares_memory(model: nn.Module, node: fx.Node) -> bool:
    """Whether what a node gives may lie in the memory of its first operand."""
    if node.op == "call_module":
        layer = model.get_submodule(str(node.target))
        return isinstance(layer, nn.Identity | nn.Flatten | _DROPOUTS) or _overwrites(model, node)
    return node.target in (*_FLATTENING, "contiguous") or _overwrites(model, node)


def _array(tensor: Tensor) -> Array:
    if tensor.dtype != torch.float32:
        raise UncheckableError(f"weights of type {tensor.dtype}")
    found = tensor.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(found).all():
        raise UncheckableError("weights that are not finite")
    return found


class _Reader:
    def __init__(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.model, self.input_shape = model, input_shape
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [input_shape]
        self.values: dict[fx.Node, Any] = {}

    def read(self, graph: fx.Graph) -> Network:
        output: Any = None
        for node in graph.nodes:
            if node.op == "placeholder":
                if self.values:
                    raise UncheckableError("more than one input")
                self.values[node] = _Value(0)
            elif node.op == "get_attr":
                self.values[node] = self._attribute(node)
            elif node.op == "output":
                output = node.args[0]
            else:
                self.values[node] = self._value(node)
        last = self.values.get(output) if isinstance(output, fx.Node) else None
        if not isinstance(last, _Value) or last != len(self.steps):
            raise UncheckableError("an output that is not the last step")
        return Network(self.input_shape, self.steps)

    def _attribute(self, node: fx.Node) -> Array:
        found: Any = self.model
        for name in str(node.target).split("."):
            found = getattr(found, name)
        return _array(found)

    def _add(self, layer: Layer, *sources: int) -> _Value:
        """A step, and the shape that it gives."""
        self.steps.append(Step(layer, sources))
        self.shapes.append(_shape_of(layer, [self.shapes[source] for source in sources]))
        return _Value(len(self.steps))

    def _value(self, node: fx.Node) -> Any:
        arguments = [self._argument(one) for one in node.args]
        target = node.target
        if target in _POOLS:
            layer = _POOLS[target](*arguments[1:], **node.kwargs).eval()
            return self._module(layer, arguments[:1])
        unknown = sorted(set(node.kwargs) - _KEYWORDS)
        if unknown:
            raise UncheckableError(f"the keyword {unknown[0]} of {_name_of(target)}")
        if node.op == "call_module":
            return self._module(self.model.get_submodule(str(target)), arguments)
        if target in _ACTIVATIONS:
            return self._add(_ACTIVATIONS[target](), _require(arguments[0]))
        if target in _BINARY and len(arguments) == 2 and not node.kwargs:
            return self._binary(_BINARY[target], *arguments)
        if target in _FLATTENING:
            return self._reshape(node, arguments)
        if target in _MEANS:
            return self._mean(node, arguments)
        if target in (torch.cat, torch.concat) and isinstance(arguments[0], list | tuple):
            axis: Any = arguments[1] if len(arguments) > 1 else node.kwargs.get("dim", 0)
            return self._concat(list(arguments[0]), int(axis))
        if target in ("size", getattr) or target is operator.getitem:
            return self._size(node, arguments)
        if target in ("contiguous",):
            return arguments[0]
        raise UncheckableError(f"the operator {_name_of(target)}")

    def _argument(self, one: Any) -> Any:
        if isinstance(one, fx.Node):
            return self.values[one]
        if isinstance(one, list | tuple):
            return [self._argument(item) for item in one]
        return one

    def _size(self, node: fx.Node, arguments: list[Any]) -> Any:
        """Shapes; the batch stands for itself as -1."""
        first = arguments[0]
        if node.target is getattr and arguments[1] == "shape" and isinstance(first, _Value):
            return (-1, *self.shapes[first])
        if node.target == "size" and isinstance(first, _Value):
            shape = (-1, *self.shapes[first])
            return shape if len(arguments) == 1 else _Size(shape[arguments[1]])
        if node.target is operator.getitem and isinstance(first, tuple):
            found = first[arguments[1]]
            return _Size(found) if isinstance(found, int) else found
        raise UncheckableError(f"the operator {_name_of(node.target)}")

    def _reshape(self, node: fx.Node, arguments: list[Any]) -> _Value:
        source = _require(arguments[0])
        shape = self.shapes[source]
        if node.target in (torch.flatten, "flatten"):
            start: Any = arguments[1] if len(arguments) > 1 else node.kwargs.get("start_dim", 0)
            end: Any = arguments[2] if len(arguments) > 2 else node.kwargs.get("end_dim", -1)
            return self._flatten(source, int(start), int(end))
        sizes = arguments[1:]
        if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
            sizes = list(sizes[0])
        return self._to_shape(source, [int(size) for size in sizes[1:]], shape)

    def _to_shape(self, source: int, sizes: list[int], shape: tuple[int, ...]) -> _Value:
        num = int(np.prod(shape))
        if sizes.count(-1) == 1:
            known = int(np.prod([size for size in sizes if size != -1]))
            sizes = [num // max(1, known) if size == -1 else size for size in sizes]
        if int(np.prod(sizes)) != num or min(sizes, default=0) < 1:
            raise UncheckableError("a reshape that mixes images")
        return self._add(Reshape(tuple(sizes)), source)

    def _flatten(self, source: int, start: int, end: int) -> _Value:
        shape = self.shapes[source]
        rank = len(shape) + 1
        start, end = start % rank, end % rank
        if start < 1:
            raise UncheckableError("a reshape that mixes images")
        joined = int(np.prod(shape[start - 1 : end]))
        return self._add(Reshape((*shape[: start - 1], joined, *shape[end:])), source)

    def _mean(self, node: fx.Node, arguments: list[Any]) -> _Value:
        source = _require(arguments[0])
        axes = arguments[1] if len(arguments) > 1 else node.kwargs.get("dim")
        keep = bool(node.kwargs.get("keepdim", arguments[2] if len(arguments) > 2 else False))
        return self._mean_over(source, axes, keep)

    def _mean_over(self, source: int, axes: Any, keep: bool) -> _Value:
        shape = self.shapes[source]
        given = [axes] if isinstance(axes, int) else list(axes or ())
        over = tuple(sorted(axis % (len(shape) + 1) for axis in given))
        if not over or over[0] == 0:
            raise UncheckableError("a mean over the batch")
        return self._add(Mean(over, keep, shape), source)

    def _concat(self, operands: list[Any], axis: int) -> _Value:
        sources = [_require(one) for one in operands]
        shapes = [self.shapes[source] for source in sources]
        axis %= len(shapes[0]) + 1
        if axis == 0:
            raise UncheckableError("a concatenation of images")
        return self._add(Concat(axis, shapes), *sources)

    def _binary(self, kind: str, first: Any, second: Any) -> _Value:
        if isinstance(first, _Value) and isinstance(second, _Value):
            if kind == "add" and self.shapes[first] == self.shapes[second]:
                return self._add(Add(), first, second)
            if kind == "sub" and self.shapes[first] == self.shapes[second]:
                minus = self._add(Scale(np.full((), -1.0), np.zeros(())), second)
                return self._add(Add(), first, minus)
            raise UncheckableError(f"the operator {kind} of two activations")
        if isinstance(first, _Value):
            return self._with_constant(kind, first, second)
        if kind in ("add", "mul"):
            return self._with_constant(kind, _require(second), first)
        if kind == "sub":  # c - x
            minus = self._add(Scale(np.full((), -1.0), np.zeros(())), _require(second))
            return self._with_constant("add", minus, first)
        raise UncheckableError("a division by an activation")

    def _with_constant(self, kind: str, source: int, constant: Any) -> _Value:
        shape = self.shapes[source]
        if isinstance(constant, Tensor):
            constant = _array(constant)
        value = np.asarray(constant, dtype=np.float64)
        if isinstance(constant, float | int):
            value = np.asarray(float(np.float32(constant)), dtype=np.float64)
        if value.ndim > len(shape):
            if value.shape[: value.ndim - len(shape)] != (1,) * (value.ndim - len(shape)):
                raise UncheckableError("a constant per image of the batch")
            value = value.reshape(value.shape[value.ndim - len(shape) :])
        try:
            if np.broadcast_shapes(value.shape, shape) != shape:
                raise ValueError
        except ValueError as error:
            raise UncheckableError("a constant that changes the shape") from error
        one, zero = np.ones(()), np.zeros(())
        if kind == "add":
            return self._add(Scale(one, value), source)
        if kind == "sub":
            return self._add(Scale(one, -value), source)
        if kind == "mul":
            return self._add(Scale(value, zero), source)
        _require_normal("a division by a number", value)
        return self._add(Scale(1.0 / value, zero), source)

    # --- modules ---

    def _module(self, module: Any, arguments: list[Any]) -> Any:
        name = type(module).__name__
        origin = type(module).__module__
        if origin.startswith("torch.") and not origin.startswith("torch.nn.modules."):
            raise UncheckableError(f"the layer {origin}.{name}")
        if module.training and not isinstance(module, nn.Identity):
            raise UncheckableError(f"a {name} in training mode")
        if name == "WithConstants":
            return self._with_stored(module, arguments)
        kind = name.lower() if name in ("Add", "Div") else _BINARY.get(vars(module).get("forward"))
        if kind is not None:
            return self._binary(kind, *arguments)
        if name == "Concat":
            return self._concat(arguments, int(module.axis))
        source = _require(arguments[0])
        shape = self.shapes[source]
        if isinstance(module, nn.Identity | _DROPOUTS):
            return _Value(source)
        if type(module) is nn.Sequential:
            for part in module:
                source = _require(self._module(part, [_Value(source)]))
            return _Value(source)
        if isinstance(module, nn.Conv2d):
            return self._add(_conv(module), source)
        if isinstance(module, nn.Linear):
            return self._linear(module, source)
        if isinstance(module, _BATCH_NORMS):
            return self._add(_batch_norm(module, len(shape)), source)
        if name == "Normalize":
            mean, std = _array(module.mean)[:, None, None], _array(module.std)[:, None, None]
            _require_normal("a standard deviation", std)
            return self._add(Scale(1 / std, -mean / std, np.abs(mean / std), before=mean), source)
        if isinstance(module, nn.ReLU):
            return self._add(Relu(), source)
        if isinstance(module, nn.Sigmoid | nn.Tanh):
            return self._add(Curve(name.lower()), source)
        if isinstance(module, nn.Flatten):
            return self._flatten(source, module.start_dim, module.end_dim)
        if name == "Reshape" and hasattr(module, "shape"):
            return self._to_shape(source, list(module.shape), shape)
        if isinstance(module, nn.AvgPool2d):
            return self._average(module, source)
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return self._adaptive(module, source)
        if name == "GlobalAveragePool":
            return self._mean_over(source, tuple(range(2, len(shape) + 1)), True)
        if name == "Mean" and hasattr(module, "axes"):
            return self._mean_over(source, tuple(module.axes), module.keep)
        if isinstance(module, nn.MaxPool2d):
            return self._max(module, source)
        if name == "Slice" and hasattr(module, "parts"):
            index = [slice(None)] * (len(shape) + 1)
            for axis, start, end, step in module.parts:
                index[axis] = slice(start, end, step)
            return self._add(Pick(_numbers(shape)[tuple(index[1:])]), source)
        if name == "Pad" and hasattr(module, "pads"):
            return self._pad(list(module.pads), float(module.value), source)
        if isinstance(module, nn.ZeroPad2d | nn.ConstantPad2d):
            pads = list(module.padding)
            return self._pad(pads, float(getattr(module, "value", 0.0)), source)
        if name == "Quantise":
            scale, zero = (
                _drop_batch(_array(one), len(shape)) for one in (module.scale, module.zero)
            )
            if not (scale > 0).all():
                raise UncheckableError("steps of a size that is not positive")
            _require_normal("a size of steps", scale)
            return self._add(Quantise(scale, zero, int(module.low), int(module.high)), source)
        inner = list(module.children())
        if name in ("AveragePool", "MaxPool") and len(inner) == 1:
            return self._module(inner[0], [_Value(source)])
        raise UncheckableError(f"the layer {name}")

    def _with_stored(self, module: Any, arguments: list[Any]) -> Any:
        rest = iter(arguments)
        operands = [
            getattr(module, f"constant{position}") if stored else next(rest)
            for position, stored in enumerate(module.is_stored)
        ]
        return self._module(module.operator, operands)

    def _linear(self, module: nn.Linear, source: int) -> _Value:
        if len(self.shapes[source]) != 1:
            raise UncheckableError("a linear layer on more than one axis")
        weight = _array(module.weight)
        bias = np.zeros(len(weight)) if module.bias is None else _array(module.bias)
        return self._add(Linear(weight, bias), source)

    def _average(self, module: nn.AvgPool2d, source: int) -> _Value:
        if module.ceil_mode or module.divisor_override:
            raise UncheckableError("average pooling with ceil_mode or a divisor of its own")
        kernel = _pair(module.kernel_size)
        stride = _pair(module.stride if module.stride is not None else module.kernel_size)
        down, across = _pair(module.padding)
        pads = (down, across, down, across)
        layer = AveragePool(kernel, stride, pads, module.count_include_pad, self.shapes[source])
        return self._add(layer, source)

    def _adaptive(self, module: nn.AdaptiveAvgPool2d, source: int) -> _Value:
        shape = self.shapes[source]
        wanted = module.output_size
        wanted = wanted if isinstance(wanted, tuple | list) else (wanted, wanted)
        sizes = [
            have if want is None else int(want)
            for want, have in zip(wanted, shape[-2:], strict=True)
        ]
        if any(have % want for want, have in zip(sizes, shape[-2:], strict=True)):
            raise UncheckableError("adaptive pooling to sizes that do not divide the map")
        kernel = (shape[-2] // sizes[0], shape[-1] // sizes[1])
        return self._add(AveragePool(kernel, kernel, (0, 0, 0, 0), True, shape), source)

    def _max(self, module: nn.MaxPool2d, source: int) -> _Value:
        if module.ceil_mode or _pair(module.dilation) != (1, 1) or module.return_indices:
            raise UncheckableError("max pooling with ceil_mode, dilation or indices")
        down, across = _pair(module.padding)
        stride = _pair(module.stride if module.stride is not None else module.kernel_size)
        return self._add(
            MaxPool(_pair(module.kernel_size), stride, (down, across, down, across)), source
        )

    def _pad(self, pads: list[int], value: float, source: int) -> _Value:
        """Pads as torch has them: left, right, top, bottom, then those of further axes."""
        if len(self.shapes[source]) != 3 or any(pads[4:]) or min(pads[:4]) < 0 or len(pads) < 4:
            raise UncheckableError("padding of other axes than height and width")
        left, right, top, bottom = pads[:4]
        return self._add(Pad((top, left, bottom, right), value), source)


class _Value(int):
    """The number of a value, told from a plain number."""


class _Size(int):
    """A size, told from a value."""


def _name_of(target: Any) -> str:
    return str(getattr(target, "__name__", target))


def _require(one: Any) -> int:
    if not isinstance(one, _Value):
        raise UncheckableError("an operator on constants")
    return int(one)


def _require_normal(what: str, value: Array) -> None:
    """Divisors that a deployment does not flush to zero."""
    if not (np.abs(value) >= SMALLEST).all():
        raise UncheckableError(f"{what} below {SMALLEST:.2e}")


def _pair(value: Any) -> tuple[int, int]:
    found = (value, value) if isinstance(value, int) else tuple(value)
    return int(found[0]), int(found[-1])


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape)


def _drop_batch(value: Array, rank: int) -> Array:
    """A stored tensor that broadcasts over a batch, for one image."""
    if value.ndim > rank and value.shape[0] == 1:
        return value[0]
    return value


def _conv(module: nn.Conv2d) -> Conv:
    if module.padding_mode != "zeros":
        raise UncheckableError(f"a convolution with padding_mode {module.padding_mode!r}")
    kernel, dilation = _pair(module.kernel_size), _pair(module.dilation)
    if module.padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        top, left = (total // 2 for total in totals)
        pads = (top, left, totals[0] - top, totals[1] - left)
    elif module.padding == "valid":
        pads = (0, 0, 0, 0)
    else:
        down, across = _pair(module.padding)
        pads = (down, across, down, across)
    weight = _array(module.weight)
    bias = np.zeros(len(weight)) if module.bias is None else _array(module.bias)
    return Conv(weight, bias, _pair(module.stride), pads, dilation, module.groups)


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, rank: int) -> Scale:
    if module.running_mean is None or module.running_var is None:
        raise UncheckableError("a batch-norm without running statistics")
    mean, variance = _array(module.running_mean), _array(module.running_var)
    weight = np.ones_like(mean) if module.weight is None else _array(module.weight)
    bias = np.zeros_like(mean) if module.bias is None else _array(module.bias)
    spread = variance + float(np.float32(module.eps))
    if not (spread >= SMALLEST).all():
        raise UncheckableError(f"a batch-norm with a variance below {SMALLEST:.2e}")
    inverse = 1.0 / np.sqrt(spread)
    scale = weight * inverse
    shape = (-1, *[1] * (rank - 1))
    parts = np.abs(mean * scale) + np.abs(bias)
    return Scale(
        scale.reshape(shape),
        (bias - mean * scale).reshape(shape),
        parts.reshape(shape),
        inside=np.maximum(np.abs(weight), inverse).reshape(shape),
        before=mean.reshape(shape),
    )


def _shape_of(layer: Layer, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape a layer gives, found by asking it for the interval of zeros."""
    zeros = [Interval(zero, zero) for zero in (np.zeros((1, *shape)) for shape in shapes)]
    try:
        with np.errstate(all="ignore"):
            return layer.bounds(zeros).low.shape[1:]
    except (ValueError, IndexError) as error:
        raise UncheckableError("operands that do not fit") from error
