"""Comparisons, and the one choice between two values that is read: a Softplus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from corobench.benchmark.submission.graph.reading import Node

#: Operators that compare; their result chooses between values.
COMPARISONS = ("Greater",)


@dataclass(frozen=True)
class Condition:
    """A comparison whose result only a Where may use.

    Attributes:
        node: the operator.
        operands: the two that are compared: activations or stored tensors.
    """

    node: Node
    operands: tuple[Any, Any]


def softplus_threshold(
    condition: Condition, chosen: Sequence[Any], made_by: tuple[nn.Module, int] | None
) -> float | None:
    """From where on a Softplus is the identity, as torch's exporter writes it with a Where.

    Args:
        condition: of the Where.
        chosen: its two other operands.
        made_by: the step that makes the second of them, and the number of what it reads.

    Returns:
        The threshold; None where the operators are another function.
    """
    value, limit = condition.operands
    if (
        made_by is None
        or type(made_by[0]) is not nn.Softplus
        or condition.node.op != "Greater"
        or value is not chosen[0]
        or getattr(value, "number", None) != made_by[1]
        or not isinstance(limit, np.ndarray)
        or limit.size != 1
        or limit.ndim > len(getattr(value, "shape", ()))  # the runtime's result has more axes
    ):
        return None
    return float(limit.reshape(-1)[0])
