"""Networks that are right in real numbers and wrong deployed, and what the checker says of them.

A gate on eight pixels less eight others keeps centre and corners of the ball silent.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.proofs import METHODS, margins
from corobench.benchmark.certify.checker.reading import read_network

SHAPE = (1, 8, 8)
RADIUS = 1 / 16


def linear(num_inputs: int, rows: list[dict[int, float]], bias: list[float]) -> nn.Linear:
    """A layer by its few weights that are not zero."""
    layer = nn.Linear(num_inputs, len(rows))
    with torch.no_grad():
        layer.weight.zero_()
        for place, row in enumerate(rows):
            for source, weight in row.items():
                layer.weight[place, source] = weight
        layer.bias.copy_(torch.tensor(bias))
    return layer


def difference(gain: float) -> dict[int, float]:
    """Gain times the mean of pixels 0 to 7 less that of pixels 8 to 15."""
    signs = {place: 1.0 if place < 8 else -1.0 for place in range(16)}
    return {place: sign * gain / 8 for place, sign in signs.items()}


class Gated(nn.Module):
    """ReLU(z - t + d) takes the label's margin away; t in real numbers is 1, deployed 0.

    Args:
        lost: 64 pixels -> (B, 1), minus t.
    """

    def __init__(self, lost: nn.Module) -> None:
        super().__init__()
        self.lost = lost
        self.difference = linear(64, [difference(8.0)], [-0.125])
        self.last = linear(1, [{0: -100.0}, {}], [1.0, -0.5])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        return self.last(torch.relu(self.lost(x) + self.difference(x)))


def broken(model: nn.Module, flush: bool = False) -> bool:
    """Whether the image with the first eight pixels up is not in class 0."""
    image = torch.zeros(1, *SHAPE)
    with torch.no_grad():
        assert float(margin(model(image))) > 0
        image.view(-1)[:8] = RADIUS
        torch.set_flush_denormal(flush)
        try:
            logits = model(image)
        finally:
            torch.set_flush_denormal(False)
    return not (bool(torch.isfinite(logits).all()) and float(margin(logits)) > 0)


def margin(logits: Tensor) -> Tensor:
    return logits[0, 0] - logits[0, 1:].max()


def claims(model: nn.Module) -> float:
    """The largest margin that the checker promises over the ball around the black image."""
    try:
        network = read_network(model, SHAPE)
    except UncheckableError:
        return -np.inf
    low, high = np.zeros((1, *SHAPE)), np.full((1, *SHAPE), RADIUS)
    return max(
        float(margins(network, low, high, np.zeros(1, int), method)[0].min()) for method in METHODS
    )
