"""What is checked about bounds before and while they are believed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corobench.benchmark.certify.lirpa.graph import first_line
from corobench.benchmark.certify.margin_spec import margins_of
from corobench.benchmark.errors import NotCertifiable

FORWARD_TOLERANCE = 1e-4
"""Largest difference between a forward pass and its bounds over a box of width 0, per unit of
max(1, largest |logit|); the worst seen in correct graphs is 5e-5."""

POINT_TOLERANCE = 1e-4
"""How far a lower bound may exceed the margin of an image inside its box, per unit of
max(1, largest |logit|), before the graph is refused; rounding alone was seen to reach 8e-6."""

_NUM_POINTS_AT_ONCE = 64


class GraphFault(Exception):  # noqa: N818 - never leaves this package
    """The library failed on a graph for another reason than memory."""

    def __init__(self, method: str, error: BaseException) -> None:
        super().__init__(method, error)
        self.method = method
        self.error = error

    def refusal(self) -> NotCertifiable:
        """The same, for the person who submitted the model."""
        return NotCertifiable(
            "unsupported-operator",
            f"{self.method} does not run on this model ({first_line(self.error)})",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    True
    >>> is_out_of_memory(RuntimeError("shape mismatch"))
    False
    """
    text = str(error).lower()
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in text for word in words)


def disagreement(
    method: str, logits: Tensor, labels: Tensor, forward: Tensor, lower: Tensor, upper: Tensor
) -> NotCertifiable | None:
    """Why a graph is not the model's, judged on boxes of width 0.

    Args:
        method: the certifier, for the message.
        logits: float tensor (B, C), the model's output.
        labels: long tensor (B,).
        forward: float tensor (B, C), the output of the graph that is bounded.
        lower: float tensor (B, C-1), lower bounds of the margins over {image}.
        upper: float tensor (B, C-1), upper bounds of the margins over {image}.

    Returns:
        The refusal; None where all is equal within FORWARD_TOLERANCE.
    """
    tolerance = FORWARD_TOLERANCE * max(1.0, float(logits.abs().max()))
    if not _close(forward, logits, tolerance):
        return NotCertifiable(
            "bounds-disagree-with-forward",
            f"the graph that {method} bounds gives other logits than the model",
        )
    exact = margins_of(logits, labels)
    if not (_close(lower, exact, tolerance) and _close(upper, exact, tolerance)):
        return NotCertifiable(
            "bounds-disagree-with-forward",
            f"the bounds of {method} over a box of width 0 differ from the forward pass by more "
            f"than {tolerance:.1e}",
        )
    return None


def contradiction(
    method: str, model: nn.Module, low: Tensor, high: Tensor, labels: Tensor, bounds: Tensor
) -> NotCertifiable | None:
    """Why bounds are wrong, judged on the two extreme corners and the centre of each box.

    Args:
        method: the certifier, for the message.
        model: the model that was bounded.
        low: float tensor (B, C, H, W), lower corners.
        high: float tensor (B, C, H, W), upper corners.
        labels: long tensor (B,).
        bounds: float tensor (B, C-1), lower bounds of the margins.

    Returns:
        The refusal; None where no image has a margin below its bound by more than POINT_TOLERANCE.
    """
    for points in (low, (low + high) / 2, high):
        for start in range(0, len(points), _NUM_POINTS_AT_ONCE):
            part = slice(start, start + _NUM_POINTS_AT_ONCE)
            logits = model(points[part])
            slack = POINT_TOLERANCE * logits.abs().amax(dim=1, keepdim=True).clamp(min=1.0)
            if bool((bounds[part] > margins_of(logits, labels[part]) + slack).any()):
                return NotCertifiable(
                    "bounds-disagree-with-forward",
                    f"{method} claims a margin that an image inside the box does not have",
                )
    return None


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Equal shapes, all finite, nowhere further apart than the tolerance."""
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return False
    return float((found - expected).abs().max()) <= tolerance
