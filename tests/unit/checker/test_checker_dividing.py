"""Quotients that are a norm or a curve, and those that only look like one; functions of torch.

Whatever a quotient is taken for, its interval holds what torch computes at every point of the box.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.graph.operators import _Reduced

SHAPE = (1, 2, 3)


class Written(nn.Module):
    """A function of the six pixels less a half, of stored values, and of the model itself."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.length = _Reduced(torch.linalg.vector_norm, [1], True)
        self.flat_length = _Reduced(torch.linalg.vector_norm, [1], False)
        stored = torch.tensor([[0.5, -1.0, 2.0, 0.25, 1.5, -0.75]])
        self.register_buffer("sizes", torch.tensor([[1.0, 1.0, 2.0, 1.0, 0.5, 1.0]]))
        self.stored = nn.Parameter(stored, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.flatten(1) - 0.5, self.stored, self)


def kinds_of(network: Network) -> set[str]:
    return {type(step.layer).__name__ for step in network.steps}


def assert_holds(model: nn.Module, network: Network) -> None:
    rng = torch.Generator().manual_seed(0)
    for radius in (0.0, 1e-3, 0.05):
        mid = 0.1 + 0.8 * torch.rand(8, *SHAPE, generator=rng)
        low, high = (mid - radius).clamp(0, 1), (mid + radius).clamp(0, 1)
        found = network.bounds(low.double().numpy(), high.double().numpy()).values[-1]
        assert np.isfinite(found.low).any()
        for _ in range(20):
            x = torch.lerp(low, high, torch.rand(low.shape, generator=rng)).clamp(low, high)
            logits = model(x).double().numpy()
            assert (found.low <= logits).all() and (logits <= found.high).all()


def centred(z: Tensor) -> Tensor:
    return z - z.mean(1, keepdim=True)


def squared_norm(z: Tensor) -> Tensor:
    d = centred(z)
    return d / root(d * d)


def root(z: Tensor) -> Tensor:
    return torch.sqrt(z.mean(1, keepdim=True) + 1e-3)


QUOTIENTS = {
    "softsign": (lambda z, s, m: z / (1.0 + z.abs()), "Smooth"),
    "one and a size per value": (lambda z, s, m: z / (m.sizes + z.abs()), "Quotient"),
    "one and a cut value": (lambda z, s, m: z / (1.0 + z.clamp(0.0, 1.0)), "Quotient"),
    "length": (lambda z, s, m: z / m.length(z).clamp(min=1e-3), "Normalised"),
    "length cut twice": (lambda z, s, m: z / m.length(z).clamp(1e-3, 2.0), "Quotient"),
    "length of another value": (
        lambda z, s, m: z / m.length(2.0 * z).clamp(min=1e-3),
        "Quotient",
    ),
    "length without its axis": (
        lambda z, s, m: z / m.flat_length(z).clamp(min=1e-3).unsqueeze(1),
        "Quotient",
    ),
    "root cut": (lambda z, s, m: z / root(z * z).clamp(min=1e-2), "Quotient"),
    "root of no squares": (lambda z, s, m: z / root(z.abs()), "Quotient"),
    "root of a doubled mean": (
        lambda z, s, m: z / torch.sqrt(2.0 * (z * z).mean(1, keepdim=True)),
        "Quotient",
    ),
    "root of a mean doubled before its number": (
        lambda z, s, m: z / torch.sqrt(2.0 * (z * z).mean(1, keepdim=True) + 1e-3),
        "Quotient",
    ),
    "layer norm": (lambda z, s, m: squared_norm(z), "Norm"),
    "centred, by a root of no mean": (
        lambda z, s, m: centred(z) / torch.sqrt(z.abs() + 1.0),
        "Quotient",
    ),
    "layer norm of a product": (
        lambda z, s, m: centred(z) / torch.sqrt((centred(z) * z).mean(1, keepdim=True) + 4.0),
        "Quotient",
    ),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_quotients_hold_whatever_they_are_taken_for(name: str) -> None:
    function, kind = QUOTIENTS[name]
    model = Written(function).eval()
    network = read_network(model, SHAPE)
    assert kind in kinds_of(network)
    assert_holds(model, network)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "a difference from the right": lambda z, s, m: torch.rsub(z, 1.0),
    "stored values in another shape": lambda z, s, m: z * s.view(1, 6) + s.flip(1),
    "a product with a stored matrix": lambda z, s, m: z @ torch.reshape(s, (6, 1)).expand(6, 3),
    "a linear layer without a bias": lambda z, s, m: F.linear(z, s.expand(2, 6)),
    "a convolution": lambda z, s, m: F.conv2d(z.view(-1, 1, 2, 3), s.view(2, 1, 1, 3)).flatten(1),
    "an erf of values times their own factors": lambda z, s, m: torch.erf(z * s),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_torch_hold(name: str) -> None:
    model = Written(FUNCTIONS[name]).eval()
    assert_holds(model, read_network(model, SHAPE))


REFUSED: dict[str, tuple[Callable[..., Tensor], str]] = {
    "a size that is a text": (lambda z, s, m: z.mean("a"), "a use of an operator"),
    "an axis that is not there": (lambda z, s, m: z.flip(7), "a rearrangement"),
    "images in another order": (lambda z, s, m: z.flip(0), "mixes images"),
    "one row of all images": (lambda z, s, m: z.t().select(0, 0), "mixes images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_uses_that_are_refused(name: str) -> None:
    function, text = REFUSED[name]
    with pytest.raises(UncheckableError, match=text):
        read_network(Written(function).eval(), SHAPE)
