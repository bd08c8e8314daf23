"""One operator of an ONNX graph as a torch module.

Here are the operators whose module depends on which operands are stored, or on the shapes; the rest
is a table (`table.py`). Nothing that a file says is ever a name in code, and what torch has as a
layer is that layer, so that counting, folding and bounding see plain convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.submission.graph.constants import integers
from corobench.benchmark.submission.graph.joining import Border, concat_of, expand_of, gather_of
from corobench.benchmark.submission.graph.layers import (
    Clip,
    Concat,
    Elementwise,
    Mean,
    Pad,
    Power,
    Reshape,
    Slice,
    Transpose,
    WithConstants,
)
from corobench.benchmark.submission.graph.norms import NORMS, norm_of
from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import GraphFaultError
from corobench.benchmark.submission.graph.table import Shape, module_from_table, with_weights

#: Operators whose further operands are stored weights, and how many of them there may be.
_WEIGHTED = {
    "BatchNormalization": (4, 4),
    "Conv": (1, 2),
    "Gemm": (1, 2),
    "GroupNormalization": (2, 2),
    "InstanceNormalization": (2, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1, 1),
    "RMSNormalization": (1, 1),
}
MAX_EXPONENT = 8
_ELEMENTWISE = ("Add", "Div", "MatMul", "Max", "Min", "Mul", "PRelu", "Sub")
_REDUCTIONS = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum")


def module_of(
    node: Node, stored: Sequence[np.ndarray | None], shapes: Sequence[Shape], opset: int
) -> nn.Module:
    """The module of one operator; it takes the operands that are not stored, in order.

    Args:
        node: the operator.
        stored: its stored operands; None where one comes from the graph or is left out.
        shapes: of the operands that come from the graph, batch first.
        opset: version of the operators.

    Raises:
        GraphFaultError: a use of the operator that is not supported.
    """
    _check_weights(node, stored)
    if node.op in _ELEMENTWISE and not all(node.inputs):  # onnxruntime may crash on these
        raise GraphFaultError("onnx-order", f"{node.label}: expected each operand")
    if node.op not in (*_ELEMENTWISE, "Concat") and stored[0] is not None:
        raise GraphFaultError(
            "onnx-weights", f"{node.label}: expected an activation as the first operand"
        )
    if node.op == "Clip":
        return _clip(node, stored)
    if node.op == "Slice":
        return _slice(node, stored, len(shapes[0]))
    if node.op == "Pad":
        return _pad(node, stored, len(shapes[0]))
    if node.op in _REDUCTIONS:
        return _reduction(node, stored, len(shapes[0]))
    if node.op == "Concat":
        axis = _axis(node, "axis", None, len(shapes[0]))
        if all(array is None for array in stored):
            return Concat(axis)
        return concat_of(node, stored, axis, len(shapes[0]))
    if node.op == "Expand":
        return expand_of(node, stored, shapes[0])
    if node.op == "Gather":
        return gather_of(node, stored, shapes[0])
    if node.op == "Sqrt":
        return Elementwise(torch.sqrt)
    if node.op == "Pow":
        return _power(node, stored, shapes[0])
    if node.op in NORMS:
        return norm_of(node, stored, shapes[0], opset)
    if node.op == "Flatten":
        if _axis(node, "axis", 1, len(shapes[0])) != 1:
            raise GraphFaultError("onnx-batch", f"{node.label}: would mix images of a batch")
        return nn.Flatten(1)
    if node.op in ("Squeeze", "Unsqueeze"):
        return _expanded(node, stored, shapes[0])
    if node.op == "Gemm":
        return _linear(node, stored)
    if node.op == "MatMul":
        return _product(stored, node, shapes[0])
    if node.op == "BatchNormalization" and node.attributes.get("training_mode"):
        raise GraphFaultError("onnx-training", f"{node.label}: is in training mode")
    return _from_table(node, stored, shapes, opset)


def reshape_of(node: Node, target: Sequence[int], shape: Shape, batch: int | None) -> nn.Module:
    """The module of a Reshape that keeps the batch.

    Args:
        node: the operator.
        target: the shape asked for, in which the batch may be spelt as a number.
        shape: of the operand, batch first.
        batch: the one batch size the file is made for, or None.

    Raises:
        GraphFaultError: images of a batch would be mixed, or the sizes do not fit.
    """
    sizes = list(target)
    if not node.attributes.get("allowzero"):
        if any(size == 0 and i >= len(shape) for i, size in enumerate(sizes)):
            raise GraphFaultError("onnx-sizes", f"{node.label}: copies a size that does not exist")
        sizes = [shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    values = int(np.prod(shape[1:], dtype=np.int64))
    rest = sizes[1:]
    if rest.count(-1) == 1 and sizes[0] != -1:
        known = int(np.prod([size for size in rest if size != -1], dtype=np.int64))
        rest = [values // max(1, known) if size == -1 else size for size in rest]
    keeps_batch = bool(sizes) and sizes[0] in (-1, shape[0], batch)
    if not keeps_batch or int(np.prod(rest, dtype=np.int64)) != values or min(rest, default=1) < 1:
        raise GraphFaultError(
            "onnx-batch",
            f"{node.label}: expected a shape that keeps the images of a batch apart, but found "
            f"{list(target)} for {values} values per image; write -1 for the batch, as in "
            "x.flatten(1)",
        )
    return nn.Flatten(1) if len(rest) == 1 else Reshape(rest)


def _check_weights(node: Node, stored: Sequence[np.ndarray | None]) -> None:
    """Weights are stored float32 tensors, and not computed from the image."""
    if node.op in _WEIGHTED:
        least, most = _WEIGHTED[node.op]
        weights = [array for name, array in zip(node.inputs[1:], stored[1:], strict=True) if name]
        if not least <= len(weights) <= most or any(array is None for array in weights):
            raise GraphFaultError(
                "onnx-weights",
                f"{node.label}: expected {least} to {most} stored tensors as weights, but found "
                f"{sum(array is not None for array in weights)} of {len(weights)}",
            )
    if node.op in (*_WEIGHTED, *_ELEMENTWISE) and any(
        array is not None and array.dtype != np.float32 for array in stored
    ):
        raise GraphFaultError(
            "onnx-type",
            f"{node.label}: expected float32 operands; stored float16 needs a Cast to float32, "
            "and integers a DequantizeLinear",
        )


def _only_from_graph(node: Node, stored: Sequence[np.ndarray | None]) -> None:
    if any(array is not None for array in stored):
        raise GraphFaultError(
            "onnx-weights", f"{node.label}: stored tensors are not supported here"
        )


def _axis(node: Node, key: str, default: int | None, rank: int) -> int:
    axis = node.attributes.get(key, default)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise GraphFaultError("onnx-attribute", f"{node.label}: expected `{key}` within its rank")
    return axis % rank


def _clip(node: Node, stored: Sequence[np.ndarray | None]) -> nn.Module:
    ends = [_number(node, stored, position, key) for position, key in ((1, "min"), (2, "max"))]
    if ends == [0.0, None]:
        return nn.ReLU()
    return nn.Identity() if ends == [None, None] else Clip(*ends)


def _number(
    node: Node, stored: Sequence[np.ndarray | None], position: int, key: str
) -> float | None:
    """A number that is an attribute of old versions and a stored operand of new ones."""
    value = node.attributes.get(key)
    if value is None and position < len(node.inputs) and node.inputs[position]:
        array = stored[position]
        if array is None or array.size != 1 or array.dtype != np.float32:
            raise GraphFaultError("onnx-dynamic", f"{node.label}: expected a number as {key}")
        value = float(array.reshape(-1)[0])
    return value if isinstance(value, float) else None


def _slice(node: Node, stored: Sequence[np.ndarray | None], rank: int) -> nn.Module:
    starts = integers(node, stored, 1, "starts")
    ends = integers(node, stored, 2, "ends")
    axes = integers(node, stored, 3, "axes") or list(range(len(starts)))
    steps = integers(node, stored, 4, "steps") or [1] * len(starts)
    if not starts or not len(starts) == len(ends) == len(axes) == len(steps):
        raise GraphFaultError("onnx-sizes", f"{node.label}: expected as many starts as ends")
    if any(not -rank <= axis < rank for axis in axes) or min(steps) < 1:
        raise GraphFaultError("onnx-attribute", f"{node.label}: expected steps above 0")
    return Slice(list(zip([axis % rank for axis in axes], starts, ends, steps, strict=True)))


def _pad(node: Node, stored: Sequence[np.ndarray | None], rank: int) -> nn.Module:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = modes.get(node.attributes.get("mode", "constant"))
    if mode is None:
        raise GraphFaultError(
            "onnx-attribute", f"{node.label}: expected the mode constant, reflect or edge"
        )
    given = integers(node, stored, 1, "pads")
    axes = integers(node, stored, 3, "axes") or list(range(rank))
    if len(given) != 2 * len(axes) or any(not -rank <= axis < rank for axis in axes):
        raise GraphFaultError("onnx-sizes", f"{node.label}: expected two pads per axis")
    pads = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        place = 2 * (rank - 1 - axis % rank)
        pads[place : place + 2] = given[position], given[len(axes) + position]
    if mode != "constant":
        if rank != 4 or any(pads[4:]) or min(pads) < 0:
            raise GraphFaultError(
                "onnx-attribute", f"{node.label}: in mode {mode} height and width alone are padded"
            )
        return Border(pads[:4], mode)
    return Pad(pads, _number(node, stored, 2, "value") or 0.0)


def _reduction(node: Node, stored: Sequence[np.ndarray | None], rank: int) -> nn.Module:
    axes = sorted(axis % rank for axis in integers(node, stored, 1, "axes") if axis >= -rank)
    keep = bool(node.attributes.get("keepdims", 1))
    if not axes or axes[0] == 0 or axes[-1] >= rank:
        raise GraphFaultError(
            "onnx-batch",
            f"{node.label}: expected axes of one image, but found {axes or 'all'}; reduce each "
            "image by itself, such as x.mean((1, 2, 3), keepdim=True), and batch-norms by their "
            "running statistics (model.eval())",
        )
    if node.op == "ReduceMean":
        return Mean(axes, keep)
    functions = {
        "ReduceL2": torch.linalg.vector_norm,
        "ReduceMax": torch.amax,
        "ReduceSum": torch.sum,
    }
    return _Reduced(functions[node.op], axes, keep)


def _power(node: Node, stored: Sequence[np.ndarray | None], shape: Shape) -> nn.Module:
    """Pow with one stored whole number."""
    exponent = stored[1] if len(stored) > 1 else None
    if exponent is None or exponent.size != 1 or exponent.ndim > len(shape):
        raise GraphFaultError(
            "onnx-dynamic",
            f"{node.label}: expected one stored exponent of at most {len(shape)} axes",
        )
    number = float(exponent.reshape(-1)[0])
    if not 1 <= number <= MAX_EXPONENT or not number.is_integer():
        raise GraphFaultError(
            "onnx-attribute",
            f"{node.label}: expected a whole number from 1 to {MAX_EXPONENT} as exponent, but "
            f"found {number:g}; a root is written with Sqrt, a quotient with Div",
        )
    return Power(int(number))


class _Reduced(nn.Module):
    """A reduction over axes."""

    def __init__(self, function: Callable[..., Tensor], axes: list[int], keep: bool) -> None:
        super().__init__()
        self.function, self.axes, self.keep = function, axes, keep

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, dim=self.axes, keepdim=self.keep)


def _expanded(node: Node, stored: Sequence[np.ndarray | None], shape: Shape) -> nn.Module:
    """Squeeze and Unsqueeze as a reshape of each image."""
    axes = integers(node, stored, 1, "axes")
    if not axes:  # at batch size 1 the batch would go, too
        raise GraphFaultError("onnx-batch", f"{node.label}: expected its axes, none of the batch")
    example = np.empty((2, *shape[1:]), dtype=np.bool_)
    try:
        if node.op == "Unsqueeze":
            found = np.expand_dims(example, tuple(axes)).shape
        else:
            found = np.squeeze(example, tuple(axes) or None).shape
    except (ValueError, IndexError, TypeError) as error:
        raise GraphFaultError("onnx-sizes", f"{node.label}: its axes do not match") from error
    if not found or found[0] != 2:
        raise GraphFaultError(
            "onnx-batch",
            f"{node.label}: would move the batch, which stays the first axis; export with images "
            "(batch, channels, height, width) and not with a single one",
        )
    return Reshape(found[1:])


def _linear(node: Node, stored: Sequence[np.ndarray | None]) -> nn.Module:
    """Gemm: the sum times alpha, as runtimes have it, and the bias times beta."""
    weight, bias = stored[1], stored[2] if len(stored) > 2 else None
    assert weight is not None
    if node.attributes.get("transA") or weight.ndim != 2:
        raise GraphFaultError("onnx-attribute", f"{node.label}: expected weights with two axes")
    if not node.attributes.get("transB"):
        weight = weight.T
    alpha, beta = (float(node.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
    if bias is not None and bias.shape not in _bias_shapes(len(weight)):
        raise GraphFaultError(
            "onnx-sizes",
            f"{node.label}: expected one bias per output, the same for every image, but the bias "
            f"has the shape {bias.shape}",
        )
    flat = None if bias is None else np.broadcast_to(bias.reshape(-1), (len(weight),))
    summand = None if flat is None else _times(node, flat, "beta", beta)
    if alpha == 1:
        return _linear_layer(weight, summand)
    _times(node, weight, "alpha", alpha)  # who folds it may do so
    factor = WithConstants(Elementwise(torch.mul), [None, torch.tensor(alpha)])
    layers = [_linear_layer(weight, None), factor]
    if summand is not None:
        shift = torch.from_numpy(summand.copy())
        layers.append(WithConstants(Elementwise(torch.add), [None, shift]))
    return nn.Sequential(*layers)


def _bias_shapes(num_outputs: int) -> list[Shape]:
    """Those that broadcast to each row of a Gemm alike; (num_outputs, 1) is one bias per image.

    >>> (3, 1) in _bias_shapes(3), (1, 3) in _bias_shapes(3)
    (False, True)
    """
    return [(), *((*ones, size) for size in (1, num_outputs) for ones in ((), (1,)))]


def _times(node: Node, array: np.ndarray, key: str, factor: float) -> np.ndarray:
    """Stored numbers times a setting, which a runtime may do before or after it adds them up.

    Raises:
        GraphFaultError: a number or product that float32 does not hold to full precision.
    """
    if factor == 1:
        return array
    smallest = np.finfo(np.float32).tiny
    with np.errstate(over="ignore", under="ignore"):
        found = array * np.float32(factor)
    is_lost = (array != 0) & (np.minimum(np.abs(found), np.abs(array)) < smallest) & (factor != 0)
    if is_lost.any() or 0 < abs(factor) < smallest or not np.isfinite(found).all():
        raise GraphFaultError(
            "onnx-attribute",
            f"{node.label}: stored numbers times {key} = {factor:g} are outside the range of "
            f"float32; store the products and leave {key} out",
        )
    return found


def _product(stored: Sequence[np.ndarray | None], node: Node, shape: Shape) -> nn.Module:
    """MatMul with stored weights on one side, which is a linear layer, or of two activations."""
    left, right = stored[:2]
    if left is None and right is not None and right.ndim == 2:
        return _linear_layer(right.T, None)
    if left is not None and left.ndim == 2 and len(shape) == 3:
        if shape[2] == 1:  # one column for each image
            linear = _linear_layer(left, None)
            return nn.Sequential(nn.Flatten(1), linear, Reshape((len(left), 1)))
        turned = Transpose([0, 2, 1])
        return nn.Sequential(turned, _linear_layer(left, None), Transpose([0, 2, 1]))
    _only_from_graph(node, stored)
    return _Product()


class _Product(nn.Module):
    """The matrix product of two activations."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first @ second


def _linear_layer(weight: np.ndarray, bias: np.ndarray | None) -> nn.Module:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return with_weights(layer, weight, bias)


def _from_table(
    node: Node, stored: Sequence[np.ndarray | None], shapes: Sequence[Shape], opset: int
) -> nn.Module:
    """A row of the table, with the operands that are stored and no weights of a layer."""
    module = module_from_table(node, stored, shapes[0], opset)
    is_layer = node.op in _WEIGHTED and node.op != "PRelu"
    if is_layer or all(array is None for array in stored):
        return module
    tensors = [None if array is None else torch.from_numpy(array.copy()) for array in stored]
    return WithConstants(module, tensors)
