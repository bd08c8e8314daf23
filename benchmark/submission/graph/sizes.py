"""Whole numbers computed with while a file is read: sizes of shapes, axes, places.

Exporters write a shape as a small computation on the sizes of an activation. It is done here as
the runtime does it for every image: exactly, in the type of its operands, and refused where it
overflows. The size of the batch is not known and stands as `BATCH`. It may be moved and chosen, and
be the first size of a shape. Whatever else is done with it would make another network of every
batch size, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from corobench.benchmark.submission.graph.reading import Node
from corobench.benchmark.submission.graph.rules import MAX_INTEGERS, GraphFaultError

#: Stands for the batch in shapes: no size of a file may be as large.
BATCH = 2**17 - 1

_TYPES = {6: np.int32, 7: np.int64}


def are_sizes(values: Sequence[np.ndarray]) -> bool:
    """Whether stored tensors are a few whole numbers each, and not weights."""
    return all(value.dtype.kind in "iu" and value.size <= MAX_INTEGERS for value in values)


def holds_batch(array: np.ndarray | None) -> bool:
    """Whether the size of a batch, or a multiple of it, is among whole numbers.

    >>> holds_batch(np.array([131071, 10])), holds_batch(np.array([0, 10]))
    (True, False)
    """
    if array is None or array.dtype.kind not in "iu":
        return False
    return any(number and number % BATCH == 0 for number in array.reshape(-1).tolist())


def require_known(node: Node, stored: Sequence[np.ndarray | None]) -> None:
    """The batch decides nothing about what an operator does to an activation.

    Args:
        node: the operator.
        stored: its stored operands. The first size of the shape of a Reshape or Expand is that of
            the batch and may be so.

    Raises:
        GraphFaultError: it would, as in a Slice up to the batch's size.
    """
    for position, array in enumerate(stored):
        if array is None or array.dtype.kind not in "iu" or array.size > MAX_INTEGERS:
            continue
        is_shape = position == 1 and node.op in ("Reshape", "Expand")
        if holds_batch(array.reshape(-1)[1:] if is_shape else array):
            raise _of_batch(node)


def require_whole(node: Node, of_batch: Sequence[np.ndarray], rank: int = 0) -> None:
    """Values made for every image of a batch, of which one row is kept, stay beside the images.

    Args:
        node: the operator.
        of_batch: those of its operands that are such values.
        rank: of its activation; 0 where there is none.

    Raises:
        GraphFaultError: their first axis would be moved, or meet another one than that of the
            images.
    """
    if not of_batch:
        return
    is_beside = node.op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Concat")
    if not is_beside or any(array.ndim != rank for array in of_batch):
        raise _of_batch(node)


def computed(node: Node, values: Sequence[np.ndarray]) -> np.ndarray | None:
    """Whole numbers computed from whole numbers; None for an operator that does not compute.

    Args:
        node: the operator.
        values: its operands, see `are_sizes`.

    Returns:
        In the type of the operands.

    Raises:
        GraphFaultError: operands of two types, a result that its type does not hold, or numbers
            that the size of the batch is among.
    """
    first = values[0]
    if node.op in ("Add", "Sub", "Mul", "Div", "ReduceProd"):
        if any(holds_batch(value) for value in values):
            raise _of_batch(node)
        if any(value.dtype != first.dtype for value in values):
            raise _unfit(node, "operands of one type")
        return _exactly(node, values)
    if node.op == "Gather":
        if holds_batch(values[1]):
            raise _of_batch(node)
        axis = int(node.attributes.get("axis", 0))
        return np.asarray(np.take(first, values[1].astype(np.int64), axis=axis))
    if node.op == "Concat":
        if any(value.dtype != first.dtype for value in values):
            raise _unfit(node, "operands of one type")
        return np.concatenate(values, axis=int(node.attributes.get("axis", 0)))
    if node.op == "Cast" and node.attributes.get("to") in _TYPES:
        return _typed(node, first.astype(object), np.dtype(_TYPES[node.attributes["to"]]))
    return None


def _exactly(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    first, *others = (value.astype(object) for value in values)
    found: Any
    if node.op == "ReduceProd":
        axes = [number for value in others for number in value.reshape(-1)]
        axes = axes or node.attributes.get("axes") or []
        if first.ndim != 1 or not all(axis in (0, -1) for axis in axes) or len(axes) > 1:
            raise _unfit(node, "one row of numbers and no other axis")
        found = np.prod(first) if first.size else 1
        found = np.full((1,) if node.attributes.get("keepdims", 1) else (), found, dtype=object)
    elif node.op == "Div":
        # Towards zero, as the runtime divides; Python divides downwards.
        quotient = np.frompyfunc(lambda a, b: abs(a) // abs(b) * (1 if a * b >= 0 else -1), 2, 1)
        found = quotient(first, others[0])
    else:
        found = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[node.op](first, others[0])
    return _typed(node, np.asarray(found, dtype=object), values[0].dtype)


def _typed(node: Node, found: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    limits = np.iinfo(dtype)
    if any(not limits.min <= number <= limits.max for number in found.reshape(-1).tolist()):
        raise _unfit(node, f"a result that {dtype} holds")
    return found.astype(dtype)


def _unfit(node: Node, expected: str) -> GraphFaultError:
    return GraphFaultError("onnx-sizes", f"{node.label}: expected {expected}")


def _of_batch(node: Node) -> GraphFaultError:
    return GraphFaultError(
        "onnx-batch",
        f"{node.label}: computes with the size of the batch, which would make another network of "
        "every batch size; write -1 for the batch, as in x.flatten(1)",
    )
