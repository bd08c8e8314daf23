"""A large bias rounds what passes it; the next layer takes the bias away, the rounding stays."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from torch import nn

from canaries.canary import Canary, first_digit, with_pixels
from canaries.parts import (
    HUGE,
    STEP,
    ZEROS,
    Row,
    carry,
    chain,
    gate,
    linear,
    logits,
    residues,
    without_height,
)
from corobench.benchmark.data import load_train

EPSILON = Fraction(1, 16)
SHIFT = 100.0


def _means() -> list[Row]:
    """The classifier by the nearest mean of a class, shifted to be positive."""
    train = load_train("digits")
    pixels = train.images.reshape(len(train), -1)
    rows: list[Row] = []
    for label in range(10):
        mean = pixels[train.labels == label].mean(axis=0)
        weights = {i: float(value) for i, value in enumerate(mean)}
        rows.append((weights, SHIFT - float(np.dot(mean, mean)) / 2))
    return rows


def first_layers() -> Canary:
    """A classifier of digits with six hidden pixels that raise a wrong logit."""
    image, label = first_digit()
    pixels = ZEROS[:6]
    wrong = (label + 1) % 10
    classes: list[Row] = [({1 + c: 1.0}, 0.0) for c in range(10)]
    classes[wrong] = ({1 + wrong: 1.0, 0: 1000.0}, 0.0)
    network = chain(
        nn.Flatten(),
        linear(64, [*residues(pixels), *_means()]),
        linear(22, [*without_height(6), *carry(*range(12, 22))]),
        linear(22, [gate(6, 2.7), *carry(*range(12, 22))]),
        linear(11, classes),
    )
    broken = with_pixels(image, dict.fromkeys(pixels, STEP))
    return Canary("first-layers", network, image, label, EPSILON, broken, is_silent=True)


def middle_layers() -> Canary:
    """One pixel, rounded in the third layer of six, lowers the true logit."""
    image, label = first_digit()
    network = chain(
        nn.Flatten(),
        linear(64, carry(ZEROS[0])),
        linear(1, carry(0)),
        linear(1, residues([0])),
        linear(2, without_height(1)),
        linear(2, [gate(1, 0.45)]),
        linear(1, logits(label, 5.0, {0: -1000.0})),
    )
    broken = with_pixels(image, {ZEROS[0]: STEP})
    return Canary("middle-layers", network, image, label, EPSILON, broken, is_silent=True)


def twelve_pixels() -> Canary:
    """Twelve pixels at once; the true logit falls and a wrong one rises."""
    image, label = first_digit()
    network = chain(
        nn.Flatten(),
        linear(64, residues(ZEROS)),
        linear(24, without_height(12)),
        linear(24, [gate(12, 5.4)]),
        linear(1, logits(label, 5.0, {0: -20.0}, {0: 20.0})),
    )
    broken = with_pixels(image, dict.fromkeys(ZEROS, STEP))
    return Canary("twelve-pixels", network, image, label, EPSILON, broken)


def last_layers() -> Canary:
    """Two layers only: what was rounded and what was not go to two logits, nothing is gated."""
    image, label = first_digit()
    rows = logits(label, 5.0, {1: 64.0}, {0: 64.0})
    wrong = (label + 1) % 10
    rows[wrong] = (rows[wrong][0], -64.0 * HUGE)
    network = chain(nn.Flatten(), linear(64, residues(ZEROS[:1])), linear(2, rows))
    broken = with_pixels(image, {ZEROS[0]: STEP})
    return Canary("last-layers", network, image, label, EPSILON, broken, is_silent=True)


def absorbed() -> Canary:
    """A bias of 2^33 takes all of what speaks for the true class, where that is below half a step.

    A bright pixel gives 544 to 510 over the ball. The step of float32 there is 1024: 544 is
    rounded up to it, 510 down to 0, and the other logits are 256.
    """
    image, label = first_digit()
    height = 2.0**33
    rows = logits(label, 0.0, {0: 1.0})
    rows = [row if place == label else ({}, 256.0) for place, row in enumerate(rows)]
    network = chain(
        nn.Flatten(),
        linear(64, [({11: 544.0}, height)]),
        linear(1, [({0: 1.0}, -height)]),
        linear(1, rows),
    )
    broken = with_pixels(image, {11: 15 / 16})
    return Canary("absorbed", network, image, label, EPSILON, broken)


def small_biases() -> Canary:
    """No bias above 1 and no weight above 16: nine layers turn 2^-24 into 16."""
    image, label = first_digit()
    gains = [linear(1, [({0: 16.0}, 0.0)]) for _ in range(6)]
    network = chain(
        nn.Flatten(),
        linear(64, residues(ZEROS[:1], 1.0, 1.0)),
        linear(2, without_height(1, 1.0)),
        linear(2, [gate(1, 0.0)]),
        *gains,
        linear(1, logits(label, 4.0, {}, {0: 16.0})),
    )
    broken = with_pixels(image, {ZEROS[0]: 2.0**-10 + 2.0**-24 + 2.0**-32})
    return Canary("small-biases", network, image, label, EPSILON, broken, is_silent=True)
