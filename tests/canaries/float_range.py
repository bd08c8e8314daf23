"""The ends of the range: numbers that vanish or overflow where a runtime rewrites a network."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from torch import nn

from canaries.canary import Canary, OnnxRuntime, Torch, first_digit, with_pixels
from canaries.parts import (
    ZEROS,
    Divide,
    chain,
    conv,
    linear,
    logits,
    set_norm,
)
from perf.deployments import Deployment

EPSILON = Fraction(1, 16)
PIXEL = ZEROS[0]


def _made_up_for(
    name: str,
    gains: tuple[float, float],
    middle: Sequence[nn.Module],
    last: float,
    deployment: Torch | OnnxRuntime,
    is_clean_right: bool = True,
) -> Canary:
    """What one channel takes from the true logit another one gives back, while it is there.

    Args:
        name: of the canary.
        gains: of the two channels in the first layer.
        middle: layers on both channels.
        last: gain of the second channel behind them, so that both are 16 times the pixel.
        deployment: in which the second channel is lost.
        is_clean_right: see `Canary`.
    """
    image, label = first_digit()
    tap = (0, 0, 0)
    network = chain(
        conv(1, [({tap: gains[0]}, 0.0), ({tap: gains[1]}, 0.0)]),
        *middle,
        nn.Flatten(),
        linear(128, [({0: 1.0}, 0.0), ({64: last}, 0.0)]),
        linear(2, logits(label, 10.0, {0: -100.0, 1: 100.0})),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    return Canary(
        name,
        network,
        image,
        label,
        EPSILON,
        broken,
        deployment,
        is_clean_right=is_clean_right,
    )


def _passing(second: float) -> nn.Conv2d:
    return conv(2, [({(0, 0, 0): 1.0}, 0.0), ({(1, 0, 0): second}, 0.0)])


def underflow_by_folding() -> Canary:
    """2^-80 in a convolution and 2^-80 in its batch-norm: folded they are 2^-160, which is 0."""
    norm = nn.BatchNorm2d(2)
    set_norm(norm, 0)
    set_norm(norm, 1, scale=2.0**-80)
    middle = (_passing(2.0**-80), norm)
    gains = (16.0, 2.0**88)
    return _made_up_for("underflow-by-folding", gains, middle, 2.0**76, OnnxRuntime())


def overflow_by_folding() -> Canary:
    """2^70 in a convolution and 2^70 in its batch-norm: folded they are infinite."""
    norm = nn.BatchNorm2d(2)
    set_norm(norm, 0)
    set_norm(norm, 1, scale=2.0**70)
    middle = (_passing(2.0**70), norm)
    gains = (16.0, 2.0**-76)
    return _made_up_for("overflow-by-folding", gains, middle, 2.0**-60, OnnxRuntime(), False)


def flushed_norm_weight() -> Canary:
    """A batch-norm's weight is denormal; times 1 / sqrt(variance) it is not."""
    norm = nn.BatchNorm2d(2)
    set_norm(norm, 0)
    norm.running_var[1] = 2.0**-16  # type: ignore[index]
    norm.weight.data[1] = 2.0**-127
    norm.requires_grad_(False)
    middle = (_passing(1.0), norm)
    factor = float(2.0**-127 / (2.0**-16 + norm.eps) ** 0.5)
    gains = (16.0, 2.0**110)
    last = 16.0 / (2.0**110 * factor)
    return _made_up_for("flushed-norm-weight", gains, middle, last, Torch(flush=True))


def divided_by_denormal() -> Canary:
    """A division by 2^-127 is a product with 2^127; flushed, it is one by 0."""
    image, label = first_digit()
    network = chain(
        nn.Flatten(),
        linear(64, [({PIXEL: 2.0**-100}, 0.0)]),
        Divide(2.0**-127),
        linear(1, [({0: 2.0**-26}, 0.0)]),
        linear(1, logits(label, 2.0, {}, {0: 1.0})),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    how = Deployment(flush=True)
    return Canary(
        "divided-by-denormal", network, image, label, EPSILON, broken, how, is_clean_right=False
    )


def overflow_in_pooling() -> Canary:
    """The mean of twelve values near 2^126 is in range, and their sum is not."""
    image, label = first_digit()
    network = chain(
        nn.Flatten(),
        linear(64, [({pixel: 1.9 * 2.0**127}, 0.0) for pixel in ZEROS]),
        linear(12, [({place: 4.0}, 0.0) for place in range(12)]),
        nn.Unflatten(1, (1, 2, 6)),
        nn.AvgPool2d((2, 6)),
        nn.Flatten(),
        linear(1, [({0: 2.0**-126}, 0.0)]),
        linear(1, logits(label, 2.0, {}, {0: 1.0})),
    )
    broken = with_pixels(image, dict.fromkeys(ZEROS, 1 / 16))
    return Canary("overflow-in-pooling", network, image, label, EPSILON, broken)


def flushed_variance() -> Canary:
    """Half of variance + eps is denormal; flushed, the batch-norm multiplies by a fifth more."""
    image, label = first_digit()
    norm = nn.BatchNorm2d(2, eps=2.0**-126)
    for channel, spread in ((0, 1.0), (1, 2.0**-127)):
        set_norm(norm, channel)
        norm.running_var[channel] = spread  # type: ignore[index]
        norm.weight.data[channel] = (spread + norm.eps) ** 0.5
    norm.requires_grad_(False)
    tap = (0, 0, 0)
    network = chain(
        conv(1, [({tap: 16.0}, 0.0), ({tap: 16.0}, 0.0)]),
        norm,
        nn.Flatten(),
        linear(128, logits(label, 5.0, {0: 100.0, 64: -100.0})),
    )
    broken = with_pixels(image, {PIXEL: 1 / 16})
    how = Torch(flush=True)
    return Canary("flushed-variance", network, image, label, EPSILON, broken, how)
