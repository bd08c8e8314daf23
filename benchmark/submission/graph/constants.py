"""Operators on stored tensors and on shapes, done once while the file is read.

Stored numbers may be put in another order or shape, and shapes may be computed with; stored
numbers that are *computed* from others are refused, so that what is counted is what is used. One
computation is exact and is done: a mask of zeros and ones times stored numbers, as a network has it
that was exported before its pruning was made permanent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import MAX_INTEGERS, GraphFaultError
from corobench.benchmark.submission.graph.sizes import are_sizes, computed, holds_batch

_REARRANGING = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def integers(node: Node, values: Sequence[np.ndarray | None], position: int, key: str) -> list[int]:
    """Whole numbers that are an attribute of old versions and an operand of new ones.

    Args:
        node: the operator.
        values: stored operands; None where one is computed or left out.
        position: of the operand.
        key: of the attribute.

    Returns:
        The numbers; none where both are left out.

    Raises:
        GraphFaultError: computed from the image, or too many.
    """
    found = node.attributes.get(key)
    if found is None and position < len(node.inputs) and node.inputs[position]:
        array = values[position]
        if array is None or array.dtype.kind != "i":
            raise GraphFaultError(
                "onnx-dynamic", f"{node.label}: expected fixed integers as `{key}`"
            )
        found = [int(number) for number in array.reshape(-1)[: MAX_INTEGERS + 1]]
    numbers = found if isinstance(found, list) else []
    if len(numbers) > MAX_INTEGERS:
        raise GraphFaultError("onnx-sizes", f"{node.label}: too many numbers in `{key}`")
    return [int(number) for number in numbers]


def constant_of(node: Node) -> np.ndarray:
    """The value of a Constant.

    Raises:
        GraphFaultError: none of the kinds that are supported.
    """
    if len(node.attributes) != 1:
        raise GraphFaultError("onnx-attribute", f"{node.label}: expected one value")
    ((key, value),) = node.attributes.items()
    dtype = (
        None
        if isinstance(value, np.ndarray)
        else (np.float32 if key.startswith("value_float") else np.int64)
    )
    return np.asarray(value, dtype=dtype)


def fold(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    """The result of an operator all of whose operands are stored.

    Raises:
        GraphFaultError: it computes new numbers, or its operands do not fit.
    """
    try:
        if are_sizes(values):
            found = _sizes(node, values)
            if found is not None and found.size <= MAX_INTEGERS:
                return np.asarray(found)
        if node.op in _REARRANGING:
            return _rearranged(node, values)
        if node.op == "Cast" and node.attributes.get("to") == 1 and _is_castable(values[0]):
            return values[0].astype(np.float32)
        if node.op == "Mul" and len(values) == 2:
            masked = _masked(*values)
            if masked is not None:
                return masked
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise GraphFaultError(
            "onnx-sizes", f"{node.label}: its operands do not fit together ({str(error)[:80]})"
        ) from error
    raise GraphFaultError(
        "onnx-computed-constant",
        f"{node.label}: computes constants from other constants; store the result instead: "
        "torch.nn.utils.prune.remove(layer, 'weight') for pruning, "
        "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') for norms of weights, "
        "before the export",
    )


def _is_castable(array: np.ndarray) -> bool:
    """Floating-point numbers, or a mask: of bytes, or of whole numbers that are no shape."""
    is_whole = array.dtype.itemsize == 1 or array.ndim > 1
    return array.dtype.kind == "f" or (is_whole and _is_mask(array))


def _is_mask(array: np.ndarray) -> bool:
    """Whether stored numbers are all 0 or 1."""
    return bool(((array == 0) | (array == 1)).all())


def _masked(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Stored numbers with those set to 0 where a mask is; None where neither is a mask of them."""
    for mask, array in ((second, first), (first, second)):
        sizes = (1,) * (array.ndim - mask.ndim) + mask.shape
        fits = len(sizes) == array.ndim and all(
            size in (1, full) for size, full in zip(sizes, array.shape, strict=True)
        )
        if array.ndim == 1:  # a bias, one by one
            fits = mask.shape == array.shape and array.size > 1
        if fits and array.ndim > 0 and array.dtype == mask.dtype == np.float32 and _is_mask(mask):
            return np.where(mask != 0, array, np.float32(0))
    return None


def _rearranged(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    array = values[0]
    if node.op == "Transpose":
        order = node.attributes.get("perm")
        return array.transpose(order if isinstance(order, list) else None)
    if node.op == "Reshape":
        shape = integers(node, values, 1, "shape")
        if not node.attributes.get("allowzero"):
            shape = [array.shape[i] if size == 0 else size for i, size in enumerate(shape)]
        return array.reshape(shape)
    if node.op == "Flatten":
        axis = int(node.attributes.get("axis", 1))
        rows = int(np.prod(array.shape[:axis], dtype=np.int64))
        return array.reshape(rows, -1) if array.size else array
    if node.op in ("Squeeze", "Unsqueeze"):
        axes = tuple(integers(node, values, 1, "axes"))
        if node.op == "Unsqueeze":
            return np.expand_dims(array, axes)
        return np.squeeze(array, axes or None)
    return array


def _sizes(node: Node, values: Sequence[np.ndarray]) -> np.ndarray | None:
    """Whole numbers made of a few whole numbers, as shapes are; None for another operator."""
    found = computed(node, values)
    if found is not None:
        return found
    if node.op not in (*_REARRANGING, "Slice"):
        return None
    if any(holds_batch(value) for value in values[1:]):
        raise GraphFaultError(
            "onnx-batch", f"{node.label}: expected fixed numbers, not the number of images"
        )
    if node.op == "Slice":
        first = values[0]
        starts, ends = (integers(node, values, i, key) for i, key in ((1, "starts"), (2, "ends")))
        axes = integers(node, values, 3, "axes") or list(range(len(starts)))
        steps = integers(node, values, 4, "steps") or [1] * len(starts)
        index = [slice(None)] * first.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            size = first.shape[axis]
            if step < 0:  # back from the first value at least, and as far as there are values
                start = max(start, -size)
                if end >= size:  # for onnxruntime the largest number is the beginning
                    raise ValueError("a slice backwards that ends behind the last value")
            index[axis] = slice(start, None if step < 0 and end < -size else end, step)
        return first[tuple(index)]
    return _rearranged(node, values)
