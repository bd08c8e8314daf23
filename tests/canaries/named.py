"""Canaries in the networks that a manifest builds by name, as safetensors."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor, nn

from canaries.canary import Canary, first_digit, with_pixels
from canaries.parts import (
    HUGE,
    STEP,
    ConvRow,
    Row,
    carry,
    fill_conv,
    fill_linear,
    logits,
    plain_norms,
    set_norm,
)
from corobench.benchmark.submission.architectures import build

EPSILON = Fraction(1, 16)
DIGIT = (1, 8, 8)
CORNER = 0
GAIN = 16.0


def _named(name: str, width: float, shape: tuple[int, int, int] = DIGIT) -> nn.Module:
    network = build(name, shape, 10, {"width": width} if width != 1 else {})
    return network.eval().requires_grad_(False)


def _centre(*weights: float) -> dict[tuple[int, int, int], float]:
    """The middle tap of a 3x3 kernel, by channel."""
    return {(channel, 1, 1): weight for channel, weight in enumerate(weights) if weight}


def cnn_small_convolutions() -> Canary:
    """cnn-small: the first convolution rounds four pixels, the second takes its bias away."""
    image, label = first_digit()
    network = _named("cnn-small", 1)
    tap = (0, 1, 1)
    fill_conv(network[0], [({tap: 64.0}, HUGE), ({tap: 64.0}, 0.0)])
    fill_conv(network[2], [({tap: 1.0}, -HUGE), ({(1, 1, 1): 1.0}, 0.0)])
    weights = dict.fromkeys(range(4), 1.0) | dict.fromkeys(range(4, 8), -1.0)
    fill_linear(network[5], [(weights, -1.9)])
    fill_linear(network[7], logits(label, 5.0, {0: -100.0}, {0: 100.0}))
    pixels = (0, 4, 32, 36)
    shift = {pixel: _stepped(float(image.view(-1)[pixel])) for pixel in pixels}
    return Canary(
        "cnn-small-convolutions",
        network,
        image,
        label,
        EPSILON,
        with_pixels(image, shift),
        architecture="cnn-small",
        is_silent=True,
    )


def _stepped(value: float) -> float:
    """The clean value, moved to where 64 x lies just above a half."""
    return value + STEP if value < 0.5 else value - STEP + 2e-5


def cnn_small_linear() -> Canary:
    """cnn-small: rounded in its last hidden layer and seen in the logits only."""
    image, label = first_digit()
    network = _named("cnn-small", 0.25)
    fill_conv(network[0], [({(0, 1, 1): 64.0}, 0.0)])
    fill_conv(network[2], [({(0, 1, 1): 1.0}, 0.0)])
    fill_linear(network[5], [({0: 1.0}, HUGE), ({0: 1.0}, 0.0)])
    rows = logits(label, 5.0, {1: 64.0}, {0: 64.0})
    rows[(label + 1) % 10] = ({0: 64.0}, -64.0 * HUGE)
    fill_linear(network[7], rows)
    return Canary(
        "cnn-small-linear",
        network,
        image,
        label,
        EPSILON,
        with_pixels(image, {CORNER: STEP}),
        architecture="cnn-small",
        arguments={"width": 0.25},
        is_silent=True,
    )


def cnn_large_middle() -> Canary:
    """cnn-large: rounded in the third of four convolutions."""
    image, label = first_digit()
    width = 0.0625
    network = _named("cnn-large", width)
    fill_conv(network[0], [(_centre(64.0), 0.0)])
    fill_conv(network[2], [({(0, 1, 1): 1.0}, 0.0)])
    fill_conv(network[4], [(_centre(1.0), HUGE), (_centre(1.0), 0.0)])
    fill_conv(network[6], [({(0, 1, 1): 1.0}, -HUGE), ({(1, 1, 1): 1.0}, 0.0)])
    fill_linear(network[9], [({0: 1.0, 4: -1.0}, -0.45)])
    fill_linear(network[11], [({0: 64.0}, 0.0)])
    fill_linear(network[13], logits(label, 5.0, {}, {0: 8.0}))
    return Canary(
        "cnn-large-middle",
        network,
        image,
        label,
        EPSILON,
        with_pixels(image, {CORNER: STEP}),
        architecture="cnn-large",
        arguments={"width": width},
        is_silent=True,
    )


def _resnet() -> nn.Module:
    """Passes channels 0 and 1 of the stem on; from the second stage on their difference."""
    network = _named("resnet18", 0.0625)
    plain_norms(network)
    fill_conv(network.conv1, [(_centre(1.0), 0.0), (_centre(1.0), 0.0)])
    taps: list[dict[tuple[int, int, int], float]] = [
        {(0, 0, 0): GAIN, (1, 0, 0): -GAIN},
        {(0, 0, 0): 1.0},
        {(0, 0, 0): 1.0},
    ]
    for stage, weights in zip((network.layer2, network.layer3, network.layer4), taps, strict=True):
        fill_conv(stage[0].shortcut[0], [(weights, 0.0)])
    set_norm(network.layer2[0].bn2, 0, bias=-0.45 * GAIN)
    return network


def resnet_residual() -> Canary:
    """resnet18: a constant of 2^23 is added by one residual block and taken away by the next."""
    image, label = first_digit()
    network = _resnet()
    for channel in (0, 1):
        set_norm(network.bn1, channel, scale=64.0)
    set_norm(network.layer1[0].bn2, 0, bias=HUGE)
    set_norm(network.layer1[1].bn2, 0, bias=-HUGE)
    fill_linear(network.linear, logits(label, 5.0, {}, {0: 16.0}))
    return _resnet_canary("resnet18-residual", network, image, label)


def resnet_norm() -> Canary:
    """resnet18: the first batch-norm adds 2^23, the first residual block takes it away."""
    image, label = first_digit()
    network = _resnet()
    set_norm(network.bn1, 0, scale=64.0, bias=HUGE)
    set_norm(network.bn1, 1, scale=64.0)
    set_norm(network.layer1[0].bn2, 0, bias=-HUGE)
    fill_linear(network.linear, logits(label, 5.0, {0: -16.0}))
    return _resnet_canary("resnet18-norm", network, image, label)


def _resnet_canary(name: str, network: nn.Module, image: Tensor, label: int) -> Canary:
    return Canary(
        name,
        network,
        image,
        label,
        EPSILON,
        with_pixels(image, {CORNER: STEP}),
        architecture="resnet18",
        arguments={"width": 0.0625},
        is_silent=True,
    )


def wide_resnet_residual() -> Canary:
    """wrn-28-4: convolutions give 2^23 and its negative to the shortcut of two blocks."""
    image, label = first_digit()
    width = 0.125
    network = _named("wrn-28-4", width)
    plain_norms(network)
    fill_conv(network.conv1, [(_centre(64.0), 0.0)])
    one = ({(0, 0, 0): 1.0}, 0.0)
    blocks = network.block1.layer
    fill_conv(blocks[0].convShortcut, [one, one])
    for block, height in ((blocks[1], HUGE), (blocks[2], -HUGE)):
        set_norm(block.bn2, 0, bias=1.0)
        fill_conv(block.conv2, [(_centre(height), 0.0)])
    difference = {(0, 0, 0): GAIN, (1, 0, 0): -GAIN}
    fill_conv(network.block2.layer[0].convShortcut, [(difference, 0.0)])
    fill_conv(network.block3.layer[0].convShortcut, [one])
    # the map of 2x2 is averaged, and the residue stands in one of its four places
    fill_linear(network.fc, logits(label, 5.0, {0: -32.0}, {0: 32.0}))
    return Canary(
        "wrn-28-4-residual",
        network,
        image,
        label,
        EPSILON,
        with_pixels(image, {CORNER: STEP}),
        architecture="wrn-28-4",
        arguments={"width": width},
        is_silent=True,
    )


def vgg_norm() -> Canary:
    """vgg16-bn on random images of 28x28: a bias and a running mean of 2^23 cancel."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(4, 60, (1, 1, 28, 28), generator=generator) / 64
    width, label = 0.03125, 3
    network = _named("vgg16-bn", width, (1, 28, 28))
    plain_norms(network)
    convs = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in network.features if isinstance(layer, nn.BatchNorm2d)]
    fill_conv(convs[0], [(_centre(1.0), 0.0), (_centre(1.0), 0.0)])
    set_norm(norms[0], 0, scale=64.0, bias=HUGE)
    set_norm(norms[0], 1, scale=64.0)
    fill_conv(convs[1], [(_centre(-1.0, 1.0), 0.0)])
    set_norm(norms[1], 0, mean=-HUGE)
    passed: list[ConvRow] = [(_centre(2.0), 0.0)]
    for layer in convs[2:]:
        fill_conv(layer, passed)
    linears = [layer for layer in network.classifier if isinstance(layer, nn.Linear)]
    ones: list[Row] = carry(0)
    fill_linear(linears[0], ones)
    fill_linear(linears[1], ones)
    fill_linear(linears[2], logits(label, 5.0, {0: -1.0}))
    value = float(image[0, 0, 0, 0])
    return Canary(
        "vgg16-bn-norm",
        network,
        image,
        label,
        Fraction(1, 20),
        with_pixels(image, {CORNER: value + 0.5 / 64 - 1e-5}),
        track="fashion-mnist",
        architecture="vgg16-bn",
        arguments={"width": width},
    )
