"""What float32 does besides rounding to a grid: order, fused products, denormals, overflow."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from canaries.canary import Canary, Torch, first_digit, with_pixels
from canaries.parts import ZEROS, Row, chain, gate, linear, logits
from perf.deployments import Deployment, fused

EPSILON = Fraction(1, 16)
PIXEL = ZEROS[0]
BRIGHT = 11
"""A pixel of the first digit that is 1."""


def summed_in_order() -> Canary:
    """Sixteen ones behind 2^24 are lost one by one, and kept where they are added first.

    The large term is 2^28 times a pixel that is 0 in the clean image, so that clean images are
    right in every order.
    """
    image, label = first_digit()
    big = 2.0**28
    ones: list[Row] = [({BRIGHT: 1.0}, 0.0)] * 16
    rows = logits(label, 0.0, {0: 1.0, 1: -1.0})
    rows = [row if place == label else ({}, 6.0) for place, row in enumerate(rows)]
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: big}, 0.0), *ones]),
        linear(17, [(dict.fromkeys(range(17), 1.0), 0.0), ({0: 1.0}, 0.0)]),
        linear(2, rows),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    return Canary("summed-in-order", network, image, label, EPSILON, broken, Deployment("forward"))


def cancelled_at_1e30() -> Canary:
    """1e30 - 1e30 in the last layer takes with it what stands between the two."""
    image, label = first_digit()
    rows = logits(label, 0.0, {0: 1.0, 1: 1.0, 2: -1.0})
    rows = [row if place == label else ({}, 4.0) for place, row in enumerate(rows)]
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: 1e30}, 0.0), ({BRIGHT: 16.0}, 0.0), ({PIXEL: 1e30}, 0.0)]),
        linear(3, rows),
    )
    broken = with_pixels(image, {PIXEL: 1 / 32})
    return Canary(
        "cancelled-at-1e30", network, image, label, EPSILON, broken, Deployment("forward")
    )


def fused_product() -> Canary:
    """w x - round(w x) is 0 where products are rounded, and their error where they are fused."""
    image, label = first_digit()
    weight = torch.tensor(1.7)
    grid = torch.arange(1, 4096) / 65537
    errors = fused(weight, grid, -(weight * grid))
    value = float(grid[errors.abs().argmax()])
    rows: list[Row] = [({0: -1.0, 1: float(weight)}, 0.0), ({0: 1.0, 1: -float(weight)}, 0.0)]
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: float(weight)}, 0.0), ({PIXEL: 1.0}, 0.0)]),
        linear(2, rows),
        linear(2, [({0: 2.0**20, 1: 2.0**20}, 0.0)]),
        linear(1, logits(label, 2.0, {}, {0: 2.0**15})),
    )
    broken = with_pixels(image, {PIXEL: value})
    return Canary(
        "fused-product", network, image, label, EPSILON, broken, Deployment("forward", fma=True)
    )


def products_in_turn() -> Canary:
    """15 x and 5 (3 x) differ in the last bit; six layers of gain 16, no bias, nothing large."""
    image, label = first_digit()
    grid = torch.arange(1, 4096) / 65537
    differences = 5 * (3 * grid) - 15 * grid
    value = float(grid[differences.argmax()])
    gains = [linear(1, [({0: 16.0}, 0.0)]) for _ in range(6)]
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: 3.0}, 0.0), ({PIXEL: 15.0}, 0.0)]),
        linear(2, [({0: 5.0}, 0.0), ({1: 1.0}, 0.0)]),
        linear(2, [({0: 1.0, 1: -1.0}, 0.0)]),
        *gains,
        linear(1, logits(label, 0.5, {}, {0: 16.0})),
    )
    broken = with_pixels(image, {PIXEL: value})
    return Canary("products-in-turn", network, image, label, EPSILON, broken)


def flushed_activation() -> Canary:
    """What speaks for the true class is normal in the clean image and denormal at a corner."""
    image, label = first_digit()
    rows = logits(label, 0.0, {0: 1.0})
    rows = [row if place == label else ({}, 0.5) for place, row in enumerate(rows)]
    network = chain(
        nn.Flatten(),
        linear(64, [({BRIGHT: 2.0**-126 * 32 / 31}, 0.0)]),
        linear(1, [({0: 2.0**120}, 0.0)]),
        linear(1, [({0: 2.0**6}, 0.0)]),
        linear(1, rows),
    )
    broken = with_pixels(image, {BRIGHT: 15 / 16})
    return Canary("flushed-activation", network, image, label, EPSILON, broken, Torch(flush=True))


def flushed_weight() -> Canary:
    """A weight of 2^-130 makes up for what another path takes; flushed, it is 0."""
    image, label = first_digit()
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: 16.0}, 0.0), ({PIXEL: 2.0**-130}, 0.0)]),
        linear(2, [({0: 1.0}, 0.0), ({1: 2.0**100}, 0.0)]),
        linear(2, [({0: 1.0}, 0.0), ({1: 2.0**34}, 0.0)]),
        linear(2, logits(label, 10.0, {0: -100.0, 1: 100.0})),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    return Canary("flushed-weight", network, image, label, EPSILON, broken, Torch(flush=True))


def overflow() -> Canary:
    """1.5 * 2^128 in between is infinite in float32; the logit it makes is 3 in real numbers."""
    image, label = first_digit()
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: 1.5 * 2.0**127}, 0.0)]),
        linear(1, [({0: 32.0}, 0.0)]),
        linear(1, [({0: 2.0**-127}, 0.0)]),
        linear(1, logits(label, 10.0, {}, {0: 1.0})),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    return Canary("overflow", network, image, label, EPSILON, broken)


def overflow_in_order() -> Canary:
    """Three terms near 2^128 with signs + + -: infinite where both positive ones come first."""
    image, label = first_digit()
    weight = 1.9375 * 2.0**126
    rows: list[Row] = [({0: 32.0, 1: 32.0, 2: -32.0}, 0.0), ({0: 32.0}, 0.0)]
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: weight}, 0.0)] * 3),
        linear(3, rows),
        linear(2, [gate(1, 0.0)]),
        linear(1, logits(label, 5.0, {}, {0: 1.0})),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    return Canary(
        "overflow-in-order", network, image, label, EPSILON, broken, Deployment("forward")
    )
