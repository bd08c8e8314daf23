"""Operators that cut activations apart, join them with stored values, or repeat them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.submission.graph.constants import integers
from corobench.benchmark.submission.graph.layers import Pad, Reshape, Slice, WithConstants
from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import MAX_ACTIVATION, GraphFaultError
from corobench.benchmark.submission.graph.sizes import BATCH, holds_batch

Shape = tuple[int, ...]


class Beside(nn.Module):
    """Tensors side by side along one axis; those that are stored are the same for every image."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *values: Tensor) -> Tensor:
        num = max(len(value) for value in values)
        return torch.cat([value.expand(num, *value.shape[1:]) for value in values], dim=self.axis)


class Border(nn.Module):
    """A border that repeats values of the map: mirrored, or those of the edge.

    Args:
        pads: left, right, top, bottom.
        mode: of torch, "reflect" or "replicate".
    """

    def __init__(self, pads: Sequence[int], mode: str) -> None:
        super().__init__()
        self.pads, self.mode = list(pads), mode

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, self.pads, mode=self.mode)


class Broadcast(nn.Module):
    """Values of each image repeated along axes of size 1.

    Args:
        shape: of one image afterwards.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, *self.shape)


def split_of(node: Node, stored: Sequence[np.ndarray | None], shape: Shape) -> list[nn.Module]:
    """One slice for each output of a Split.

    Raises:
        GraphFaultError: an axis of the batch, or sizes that do not add up.
    """
    axis = node.attributes.get("axis", 0)
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
        raise GraphFaultError("onnx-batch", f"{node.label}: expected an axis of one image")
    axis %= len(shape)
    sizes = integers(node, stored, 1, "split")
    num = len(node.outputs)
    if not sizes:
        size = -(-shape[axis] // num)
        sizes = [size] * (num - 1) + [shape[axis] - size * (num - 1)]
    if len(sizes) != num or sum(sizes) != shape[axis] or min(sizes) < 1:
        raise GraphFaultError(
            "onnx-sizes",
            f"{node.label}: expected {num} sizes above 0 that add up to {shape[axis]}, but found "
            f"{sizes}",
        )
    ends = np.cumsum(sizes).tolist()
    return [Slice([(axis, end - size, end, 1)]) for end, size in zip(ends, sizes, strict=True)]


def gather_of(node: Node, stored: Sequence[np.ndarray | None], shape: Shape) -> nn.Module:
    """A Gather with one stored number, as a slice and a reshape.

    Raises:
        GraphFaultError: other numbers, or an axis of the batch.
    """
    axis, place = node.attributes.get("axis", 0), stored[1] if len(stored) > 1 else None
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape) or axis % len(shape) == 0:
        raise GraphFaultError("onnx-batch", f"{node.label}: expected an axis of one image")
    axis %= len(shape)
    if place is None or place.size != 1 or place.ndim > 1 or place.dtype.kind != "i":
        raise GraphFaultError(
            "onnx-dynamic",
            f"{node.label}: expected one stored number; use Slice or Split for several",
        )
    number = int(place.reshape(-1)[0])
    if not -shape[axis] <= number < shape[axis]:
        raise GraphFaultError("onnx-sizes", f"{node.label}: expected a number within its axis")
    number %= shape[axis]
    part = Slice([(axis, number, number + 1, 1)])
    rest = (*shape[1:axis], *shape[axis + 1 :])
    return part if place.ndim else nn.Sequential(part, Reshape(rest))


def expand_of(node: Node, stored: Sequence[np.ndarray | None], shape: Shape) -> nn.Module:
    """An Expand of an activation.

    Raises:
        GraphFaultError: a shape that depends on the image, or another batch.
    """
    target = stored[1] if len(stored) > 1 else None
    if target is None or target.ndim != 1 or target.dtype.kind != "i" or target.size > len(shape):
        raise GraphFaultError("onnx-dynamic", f"{node.label}: expected a fixed shape")
    sizes = [1] * (len(shape) - target.size) + [int(size) for size in target]
    if min(sizes, default=1) < 1:  # nothing of a size is left by 0; -1 means what a runtime likes
        raise GraphFaultError("onnx-sizes", f"{node.label}: expected sizes above 0")
    if sizes[0] not in (1, BATCH):
        raise GraphFaultError("onnx-batch", f"{node.label}: would make more images of a batch")
    for have, want in zip(shape[1:], sizes[1:], strict=True):
        if 1 not in (have, want) and have != want:
            raise GraphFaultError("onnx-sizes", f"{node.label}: cannot expand {have} to {want}")
    found = [max(have, want) for have, want in zip(shape[1:], sizes[1:], strict=True)]
    if tuple(found) == tuple(shape[1:]):
        return nn.Identity()
    return Broadcast(found)


def concat_of(node: Node, stored: Sequence[np.ndarray | None], axis: int, rank: int) -> nn.Module:
    """A Concat of activations and stored values; a border where the stored ones are one number.

    Raises:
        GraphFaultError: stored values of another type, rank or number of images.
    """
    if axis == 0:
        raise GraphFaultError("onnx-batch", f"{node.label}: would join images of a batch")
    for array in stored:
        if array is not None and (
            array.dtype != np.float32 or array.ndim != rank or not _is_one(array)
        ):
            raise GraphFaultError(
                "onnx-weights",
                f"{node.label}: expected stored float32 values that are the same for every image",
            )
    tensors = [None if array is None else array[:1] for array in stored]
    numbers = {float(one) for array in tensors if array is not None for one in np.unique(array)[:2]}
    if len(numbers) == 1 and sum(array is None for array in tensors) == 1 and rank == 4:
        (place,) = (number for number, array in enumerate(tensors) if array is None)
        sizes = [0 if array is None else array.shape[axis] for array in tensors]
        pads = [0] * (2 * rank)
        first = 2 * (rank - 1 - axis)
        pads[first : first + 2] = sum(sizes[:place]), sum(sizes[place:])
        return Pad(pads, numbers.pop())
    return WithConstants(
        Beside(axis),
        [None if array is None else torch.from_numpy(array.copy()) for array in tensors],
    )


def _is_one(array: np.ndarray) -> bool:
    return len(array) == 1 or bool((array == array[:1]).all())


def filled(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    """What ConstantOfShape or Expand make of stored values; one row stands for every image.

    Args:
        node: the operator.
        values: its operands.

    Raises:
        GraphFaultError: too many values, sizes that do not fit, or a batch that is not first.
    """
    is_new = node.op == "ConstantOfShape"
    sizes = values[0 if is_new else 1].reshape(-1)
    if holds_batch(sizes[1:]):
        raise GraphFaultError("onnx-batch", f"{node.label}: expected the batch as the first size")
    shape = [1 if size == BATCH else int(size) for size in sizes]
    if len(shape) > 8 or min(shape, default=1) < 1 or np.prod(shape, dtype=float) > MAX_ACTIVATION:
        raise GraphFaultError("onnx-too-large", f"{node.label}: makes too many values")
    if not is_new:
        found = np.broadcast_shapes(values[0].shape, tuple(shape))
        if np.prod(found, dtype=float) > MAX_ACTIVATION:
            raise GraphFaultError("onnx-too-large", f"{node.label}: makes too many values")
        return np.broadcast_to(values[0], found)
    value = node.attributes.get("value", np.zeros(1, np.float32))
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise GraphFaultError("onnx-attribute", f"{node.label}: expected one number as `value`")
    return np.full(shape, value.reshape(-1)[0], dtype=value.dtype)
