"""What the steps of a traced network do value by value: ``scale * source + shift``, or not."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

from corobench.benchmark.certify.checker.reading import LayerTracer
from corobench.benchmark.network.prepare import freeze

Shape = tuple[int, ...]

_KINDS: dict[Any, str] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), "add"),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, torch.subtract, "sub"), "sub"),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, torch.multiply, "mul"), "mul"),
    **dict.fromkeys(
        (operator.truediv, operator.itruediv, torch.div, torch.true_divide, torch.divide, "div"),
        "div",
    ),
    **dict.fromkeys((torch.rsub, "rsub"), "rsub"),
    **dict.fromkeys((operator.neg, torch.neg, torch.negative, "neg"), "neg"),
}
_PRODUCTS = (operator.matmul, torch.matmul, torch.mm, "matmul", "mm")
_NOTHING = nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d
_BATCH_NORM = nn.BatchNorm1d | nn.BatchNorm2d
_TINY = 1e-30


@dataclass(frozen=True)
class Form:
    """One step, or several: ``scale * source + shift``, value by value.

    Attributes:
        source: the node that it is affine in.
        scale: float64, broadcastable to the values of one image.
        shift: float64, likewise.
    """

    source: fx.Node
    scale: Tensor
    shift: Tensor

    def after(self, before: Form) -> Form:
        """This on the values of another one."""
        return Form(
            before.source, self.scale * before.scale, self.scale * before.shift + self.shift
        )

    def is_identity(self) -> bool:
        return bool((self.scale == 1).all()) and bool((self.shift == 0).all())

    def per_channel(self, shape: Shape) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of each channel (or of each value of one axis); None if they vary in it.

        Args:
            shape: of the source for one image.
        """
        found = []
        for one in (self.scale, self.shift):
            full = one.reshape([1] * (len(shape) - one.ndim) + list(one.shape))
            if any(size != 1 for size in full.shape[1:]):
                full = full.expand(full.shape[0], *shape[1:]).flatten(1)
                if bool((full != full[:, :1]).any()):
                    return None
                full = full[:, :1]
            found.append(full.reshape(-1).expand(shape[0]))
        return found[0], found[1]

    def modules(self, shape: Shape) -> list[nn.Module]:
        """Layers that compute it: a batch-norm over channels, else over all values of an image.

        Args:
            shape: of the source for one image.
        """
        pair = self.per_channel(shape)
        if pair is not None and len(shape) in (1, 3):
            kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
            return [_batch_norm(kind, *pair)]
        flat = [one.expand(shape).reshape(-1) for one in (self.scale, self.shift)]
        return [nn.Flatten(1), _batch_norm(nn.BatchNorm1d, *flat), _Shaped(shape)]


class _Shaped(nn.Module):
    """The values of each image in a shape; the library converts no `nn.Unflatten`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


def _batch_norm(
    kind: type[nn.BatchNorm1d] | type[nn.BatchNorm2d], scale: Tensor, shift: Tensor
) -> nn.Module:
    # torch 2.11 refuses an eps of 0; one so small is lost in 1 + eps, in any float.
    layer = kind(len(scale), eps=_TINY).to(scale.device)
    layer.weight.data, layer.bias.data = scale.float().clone(), shift.float().clone()
    return freeze(layer.eval())


@dataclass
class Traced:
    """A network as a graph of calls.

    Attributes:
        module: the graph, and the modules that it calls.
        shapes: of the values of one image, by node that depends on the image.
        constants: node -> value that does not depend on it.
        calls: name of a module -> how often it is called.
    """

    module: fx.GraphModule
    shapes: dict[fx.Node, Shape] = field(default_factory=dict)
    constants: dict[fx.Node, Any] = field(default_factory=dict)

    def module_at(self, node: fx.Node) -> nn.Module | None:
        if node.op != "call_module" or node not in self.shapes:
            return None
        return self.module.get_submodule(str(node.target))

    def activation(self, node: fx.Node) -> fx.Node:
        """The one operand that depends on the image."""
        (found,) = (one for one in node.all_input_nodes if one not in self.constants)
        return found


def traced(model: nn.Module, example: Tensor) -> Traced:
    """The graph of a model, with the shapes that an example of two images gives.

    Raises:
        Exception: the forward pass cannot be traced.
    """
    graph = LayerTracer().trace(model)
    found = Traced(fx.GraphModule(model, graph))
    values = _Values(found.module)
    values.run(example)
    depends: set[fx.Node] = set()
    for node in found.module.graph.nodes:
        if node.op == "placeholder" or any(one in depends for one in node.all_input_nodes):
            depends.add(node)
            value = values.found.get(node)
            if isinstance(value, Tensor) and value.ndim and len(value) == len(example):
                found.shapes[node] = tuple(value.shape[1:])
        elif node.op != "output":
            found.constants[node] = values.found[node]
    return found


class _Values(fx.Interpreter):
    """Keeps the value of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.found[n] = super().run_node(n)
        return self.found[n]


# ------------------------------------------------------------------------------ layers


def layer_of(graph: Traced, node: fx.Node) -> nn.Module | None:
    """A product with stored weights, or a layer written as a function, as torch's module."""
    if node not in graph.shapes or node.op not in ("call_function", "call_method"):
        return None
    values: list[Any] = [
        graph.constants.get(one, one) if isinstance(one, fx.Node) else one for one in node.args
    ]
    named: dict[str, Any] = {
        key: graph.constants.get(one, one) if isinstance(one, fx.Node) else one
        for key, one in node.kwargs.items()
    }
    if node.target in _PRODUCTS and len(values) == 2 and not named:
        weight = values[1]
        is_stored = isinstance(weight, Tensor) and weight.ndim == 2 and _is_stored(node.args[1])
        if is_stored and _is_flat(graph, node.args[0]):
            return _linear(weight.T, None)
    if not all(_is_stored(one) for one in node.all_input_nodes if one in graph.constants):
        return None
    if node.target is F.linear:
        given = dict(zip(("input", "weight", "bias"), values, strict=False)) | named
        weight, bias = given.get("weight"), given.get("bias")
        if isinstance(weight, Tensor) and not isinstance(bias, fx.Node):
            return _linear(weight, bias) if _is_flat(graph, node.all_input_nodes[0]) else None
    if node.target is torch.addmm and len(values) == 3 and not named:
        bias, _, weight = values
        if isinstance(weight, Tensor) and isinstance(bias, Tensor) and bias.ndim == 1:
            return _linear(weight.T, bias)
    if node.target is F.conv2d or node.target is torch.conv2d:
        keys = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        return _convolution(dict(zip(keys, values, strict=False)) | named)
    return None


def _is_stored(node: Any) -> bool:
    """Whether a weight lies in the network, transposed or not: no mask is still multiplied."""
    while isinstance(node, fx.Node) and node.op == "call_method":
        if node.target not in ("t", "transpose", "permute", "view", "reshape", "contiguous"):
            return False
        node = node.args[0]
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _is_flat(graph: Traced, node: Any) -> bool:
    return isinstance(node, fx.Node) and len(graph.shapes.get(node, ())) == 1


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    zeros = weight.new_zeros(len(weight))
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    layer.bias = nn.Parameter(zeros if bias is None else bias.detach(), requires_grad=False)
    return layer.eval()


def _convolution(given: dict[str, Any]) -> nn.Module | None:
    weight, bias = given.pop("weight", None), given.pop("bias", None)
    given.pop("input", None)
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node) or weight.ndim != 4:
        return None
    groups = int(given.get("groups", 1))
    window = (weight.shape[2], weight.shape[3])
    sizes = (weight.shape[1] * groups, len(weight), window)
    with torch.device("meta"):
        layer = nn.Conv2d(*sizes, **given, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer.eval()


# ------------------------------------------------------------------------------ forms


def forms_of(graph: Traced) -> dict[fx.Node, Form]:
    """Nodes that are affine value by value, each in the nearest node before it that is not."""
    forms: dict[fx.Node, Form] = {}
    for node in graph.module.graph.nodes:
        form = _form(graph, node) if node in graph.shapes else None
        if form is not None:
            before = forms.get(form.source)
            forms[node] = form if before is None else form.after(before)
    return forms


def is_plain(graph: Traced, node: fx.Node) -> bool:
    """Whether a node is a batch-norm or nothing as it stands: the library takes both."""
    module = graph.module_at(node)
    return isinstance(module, _NOTHING | _BATCH_NORM)


def _form(graph: Traced, node: fx.Node) -> Form | None:
    """What one node does to the one operand that depends on the image; None for anything else."""
    operands: Sequence[Any]
    if node.op == "call_module":
        module = graph.module_at(node)
        if isinstance(module, _NOTHING):
            return _of_numbers(node, 1.0, 0.0)
        if isinstance(module, _BATCH_NORM):
            return _of_batch_norm(node, module, len(graph.shapes[node]))
        function, operands = _operands(module, node.args)
    elif node.op in ("call_function", "call_method") and not node.kwargs:
        function, operands = node.target, node.args
    else:
        return None
    kind = _KINDS.get(function)
    if kind is None or len(operands) != (1 if kind == "neg" else 2):
        return None
    given: list[Any] = [
        graph.constants.get(one, one) if isinstance(one, fx.Node) else one for one in operands
    ]
    places = [place for place, one in enumerate(given) if isinstance(one, fx.Node)]
    if len(places) != 1 or graph.shapes.get(given[places[0]]) != graph.shapes[node]:
        return None
    source = given[places[0]]
    if kind == "neg":
        return Form(source, _number(-1.0), _number(0.0))
    constant = _constant(given[1 - places[0]], graph.shapes[node])
    return None if constant is None else _combined(kind, source, constant, places[0] == 0)


def _operands(module: nn.Module | None, args: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """The function of an element-wise layer of an ONNX file, and its operands in order."""
    if type(module).__name__ == "WithConstants":
        rest = iter(args)
        stored: Any = module
        operands = [
            stored.get_buffer(f"constant{place}") if is_stored else next(rest)
            for place, is_stored in enumerate(stored.is_stored)
        ]
        module, args = stored.operator, operands
    if type(module).__name__ == "Elementwise":
        return getattr(module, "function", None), args
    return None, args


def _combined(kind: str, source: fx.Node, constant: Tensor, is_left: bool) -> Form | None:
    """A sum, difference, product or quotient with a constant.

    Args:
        kind: of _KINDS.
        source: the operand that depends on the image.
        constant: float64.
        is_left: whether the source is the left operand.
    """
    one, zero = torch.ones_like(constant), torch.zeros_like(constant)
    if kind == "rsub":
        kind, is_left = "sub", not is_left
    pairs: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "add": lambda: (one, constant),
        "sub": lambda: (one, -constant) if is_left else (-one, constant),
        "mul": lambda: (constant, zero),
        "div": lambda: (1.0 / constant, zero),
    }
    if kind == "div" and (not is_left or bool((constant == 0).any())):
        return None
    return Form(source, *pairs[kind]())


def _constant(value: Any, shape: Shape) -> Tensor | None:
    """A number or stored tensor that is broadcast to the values of each image; float64."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        return None
    tensor = _number(value) if not isinstance(value, Tensor) else value.detach()
    if tensor.ndim == len(shape) + 1 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim > len(shape) or not tensor.is_floating_point():
        return None
    if torch.broadcast_shapes(tensor.shape, shape) != torch.Size(shape):
        return None
    return tensor.double()


def _number(value: float) -> Tensor:
    return torch.tensor(float(value), dtype=torch.float64)


def _of_numbers(node: fx.Node, scale: float, shift: float) -> Form:
    return Form(node.all_input_nodes[0], _number(scale), _number(shift))


def _of_batch_norm(node: fx.Node, norm: _BATCH_NORM, rank: int) -> Form | None:
    if norm.running_mean is None or norm.running_var is None:
        return None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    shape = (-1, *[1] * (rank - 1))
    return Form(node.all_input_nodes[0], scale.reshape(shape), shift.reshape(shape))
