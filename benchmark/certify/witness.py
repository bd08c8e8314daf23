"""What is looked at although it is proven: images of a box against the bounds over it.

No proof leans on this. It finds a checker that reads a network wrongly, or bounds it wrongly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.rounding import Array
from corobench.benchmark.certify.margin_spec import margins_of

_NUM_LOOKED_AT = 16
"""Images per call whose logits are compared with the checker's intervals at width 0."""

_NUM_AT_ONCE = 64


class Witness:
    """A model that gives evidence against bounds.

    Args:
        model: the submitted network, in eval mode.
        network: how the checker reads it.
        device: where the model computes.
    """

    def __init__(self, model: nn.Module, network: Network, device: torch.device) -> None:
        self._model, self._network, self._device = model, network, device

    def against_intervals(self, x_L: Tensor, x_U: Tensor) -> str:
        """Why deployed logits contradict the checker's intervals over boxes of width 0, if so."""
        points = between(x_L[:_NUM_LOOKED_AT], x_U[:_NUM_LOOKED_AT])
        with torch.no_grad():
            logits = float64(self._model(points.to(self._device)))
        exact = float64(points)
        if not len(exact):
            return ""
        with np.errstate(all="ignore"):
            seen = self._network.bounds(exact, exact).values[-1]
        is_inside = (seen.low <= logits) & (logits <= seen.high)
        is_known = np.isfinite(seen.low) & np.isfinite(seen.high)
        if bool((is_known & ~is_inside).any()):
            return "the network gives logits outside the checker's intervals"
        return ""

    def against_bounds(self, x_L: Tensor, x_U: Tensor, labels: Tensor, found: Array) -> str:
        """Why three images of each box contradict the bounds of their margins, if so.

        Args:
            x_L: float32 (B, C, H, W), lower corners.
            x_U: float32 like `x_L`.
            labels: int64 (B,).
            found: float64 (B, classes - 1), lower bounds.
        """
        for points in (x_L, between(x_L, x_U), x_U):
            for start in range(0, len(points), _NUM_AT_ONCE):
                part = slice(start, start + _NUM_AT_ONCE)
                with torch.no_grad():
                    logits = self._model(points[part].to(self._device))
                seen = float64(margins_of(logits, labels[part].to(self._device)))
                # The difference of two logits is itself rounded here, by less than this.
                slack = 2.0**-22 * np.abs(float64(logits)).max(axis=1, keepdims=True)
                is_above = ~(found[part] <= seen + slack) & np.isfinite(found[part])
                if bool(is_above.any()):
                    return "an image inside the box has a smaller margin than its bound"
        return ""


def between(low: Tensor, high: Tensor) -> Tensor:
    """The centre of each box, in float32 and inside it."""
    return torch.minimum(torch.maximum((low + high) / 2, low), high)


def float64(x: Tensor) -> Array:
    return x.detach().cpu().numpy().astype(np.float64)


def labels64(labels: Tensor) -> np.ndarray:
    return labels.detach().cpu().numpy().astype(np.int64)


def downward(margins: Array) -> Tensor:
    """float32, nowhere above the float64 value, and above 0 only where that is."""
    found = margins.astype(np.float32)
    down = np.nextafter(found, np.float32(-np.inf))
    kept = np.where(found.astype(np.float64) > margins, down, found)
    return torch.from_numpy(kept)
