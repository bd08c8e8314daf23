"""Comparisons, and the choice between two values that each decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.submission.graph.reading import Node

#: Operator -> what it compares with.
COMPARISONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
}


@dataclass(frozen=True)
class Condition:
    """A comparison whose result only a Where may use.

    Attributes:
        node: the operator.
        operands: the two that are compared: activations or stored tensors.
    """

    node: Node
    operands: tuple[Any, Any]


class Choice(nn.Module):
    """``x`` where a comparison holds, else ``y``, value by value.

    Args:
        comparison: of COMPARISONS.
    """

    def __init__(self, comparison: str) -> None:
        super().__init__()
        self.comparison = comparison

    def forward(self, a: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(COMPARISONS[self.comparison](a, b), x, y)


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
    ):
        return None
    return float(limit.reshape(-1)[0])
