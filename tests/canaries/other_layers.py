"""Canaries in pooling, normalisation and batch-norm, and in copies that certifiers simplify."""

from __future__ import annotations

import copy
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from canaries.canary import Canary, OnnxRuntime, first_digit, with_pixels
from canaries.parts import (
    HUGE,
    STEP,
    ZEROS,
    chain,
    conv,
    fill_conv,
    fill_linear,
    linear,
    logits,
    set_norm,
)
from corobench.benchmark.network.compaction import remove_dead
from corobench.benchmark.submission.architectures import build
from perf.deployments import Deployment, run

EPSILON = Fraction(1, 16)
PIXEL = ZEROS[0]
THIRD = float(torch.tensor(1 / 3))


def convolution() -> Canary:
    """An ONNX network of three convolutions, rounded in the first, gated in the third."""
    image, label = first_digit()
    tap = (0, 0, 0)
    network = chain(
        conv(1, [({tap: 64.0}, HUGE), ({tap: 64.0}, 0.0)]),
        conv(2, [({tap: 1.0}, -HUGE), ({(1, 0, 0): 1.0}, 0.0)]),
        conv(2, [({tap: 1.0, (1, 0, 0): -1.0}, -0.45)]),
        nn.Flatten(),
        linear(64, logits(label, 5.0, dict.fromkeys(range(64), -1000.0))),
    )
    broken = with_pixels(image, {PIXEL: STEP})
    return Canary("convolution", network, image, label, EPSILON, broken, is_silent=True)


def average_pooling() -> Canary:
    """Each pixel has its bias of 2^17 and is exact; the sum of four of them is rounded.

    64 x = 3/64 at one of the four gives a sum of 1/16 above whole numbers in every order.
    """
    image, label = first_digit()
    height = 2.0**17
    tap = (0, 0, 0)
    network = chain(
        conv(1, [({tap: 64.0}, height), ({tap: 64.0}, 0.0)]),
        nn.AvgPool2d(2),
        nn.Flatten(),
        linear(32, [({0: 4.0}, -4 * height), ({16: 4.0}, 0.0)]),
        linear(2, [({0: 1.0, 1: -1.0}, -1 / 128)]),
        linear(1, logits(label, 5.0, {}, {0: 2.0**12})),
    )
    broken = with_pixels(image, {PIXEL: 3 / 4096})
    return Canary("average-pooling", network, image, label, EPSILON, broken, is_silent=True)


def input_normalisation() -> Canary:
    """cnn-small with mean 1000 and std 1e-4: the largest pixel value of a ball becomes larger.

    The pixel is chosen where rounding moves the upper end of its ball furthest up. Only above the
    real end does a wrong logit grow.
    """
    image, label = first_digit()
    arguments = {"mean": [1000.0], "std": [1e-4], "width": 0.25}
    network = build("cnn-small", (1, 8, 8), 10, arguments).eval().requires_grad_(False)
    seen = [(row, column) for row in range(0, 8, 4) for column in range(0, 8, 4)]
    ends = {place: min(float(image[0, 0][place]) + 1 / 16, 1.0) for place in seen}
    std = float(torch.tensor(1e-4))
    excess = {}
    for place, end in ends.items():
        normalised = float(network.normalize(torch.full((1, 1, 1, 1), end)))
        excess[place] = normalised - (end - 1000.0) / std
    place = max(excess, key=lambda where: excess[where])
    real_end = (ends[place] - 1000.0) / std
    layers = network.network
    fill_conv(layers[0], [({(0, 1, 1): 1.0}, float(-round(real_end) + 1))])
    fill_conv(layers[2], [({(0, 1, 1): 1.0}, 0.0)])
    fill_linear(layers[5], [({place[0] // 4 * 2 + place[1] // 4: 64.0}, 0.0)])
    real = 64.0 * (real_end - round(real_end) + 1)
    fill_linear(layers[7], logits(label, real + 32.0 * excess[place], {}, {0: 1.0}))
    broken = with_pixels(image, {place[0] * 8 + place[1]: ends[place]})
    return Canary(
        "input-normalisation",
        network,
        image,
        label,
        EPSILON,
        broken,
        architecture="cnn-small",
        arguments=arguments,
    )


def literal_batch_norm() -> Canary:
    """(x - mean) / sqrt(var + eps) + bias with mean = bias = -2^23: x, unless computed so."""
    image, label = first_digit()
    tap = (0, 0, 0)
    norm = nn.BatchNorm2d(2)
    set_norm(norm, 0, mean=-HUGE, bias=-HUGE)
    set_norm(norm, 1)
    network = chain(
        conv(1, [({tap: 64.0}, 0.0), ({tap: 64.0}, 0.0)]),
        norm,
        nn.Flatten(),
        linear(128, [({0: 1.0, 64: -1.0}, -0.25)]),
        linear(1, logits(label, 5.0, {0: -100.0})),
    )
    broken = with_pixels(image, {PIXEL: STEP})
    how = Deployment(literal_norm=True)
    return Canary("literal-batch-norm", network, image, label, EPSILON, broken, how)


def _scaled_thirds(label: int, second: float, then: float) -> tuple[nn.Sequential, nn.Sequential]:
    """Nine layers of gain 16 behind the difference of two channels, and the same with a fold.

    Args:
        label: true class.
        second: what the second channel multiplies the pixel with; the first has 3, and a
            batch-norm that multiplies by 1/3 rounded.
        then: what the second channel is multiplied with in a layer of its own.
    """
    tap = (0, 0, 0)
    norm = nn.BatchNorm2d(2)
    set_norm(norm, 0, scale=THIRD)
    set_norm(norm, 1)
    gains = [linear(1, [({0: 16.0}, 0.0)]) for _ in range(6)]
    tail = [
        nn.Flatten(),
        linear(128, [({0: 1.0}, 0.0), ({64: then}, 0.0)]),
        linear(2, [({0: 1.0, 1: -1.0}, 0.0), ({0: -1.0, 1: 1.0}, 0.0)]),
        linear(2, [({0: 16.0, 1: 16.0}, 0.0)]),
        *gains,
        linear(1, logits(label, 0.5, {}, {0: 16.0})),
    ]
    first = conv(1, [({tap: 3.0}, 0.0), ({tap: second}, 0.0)])
    network = chain(first, norm, *tail)
    folded = chain(fuse_conv_bn_eval(first.eval(), norm.eval()), *copy.deepcopy(tail))
    return network, folded


def _most_wrong(network: nn.Module, image: Tensor, label: int) -> Tensor:
    """The image whose next logit is largest among many values of one pixel."""
    grid = torch.arange(1, 4096) / 65537
    images = image.expand(len(grid), -1, -1, -1).clone()
    images.view(len(grid), -1)[:, PIXEL] = grid
    worst = run(network, images, Deployment())[:, (label + 1) % 10].argmax()
    return images[worst][None].clone()


def folded_batch_norm() -> Canary:
    """A batch-norm folded into its convolution in float32 is another function of real numbers.

    One channel is 3 x scaled by 1/3 rounded, the other x times what float32 makes of that product.
    The copy with the fold has them equal; the network has not, and nine layers show it.
    """
    image, label = first_digit()
    product = float(torch.tensor(3.0) * torch.tensor(THIRD))
    network, folded = _scaled_thirds(label, product, 1.0)
    broken = _most_wrong(network, image, label)
    return Canary("folded-batch-norm", network, image, label, EPSILON, broken, verified=folded)


def folded_by_the_runtime() -> Canary:
    """The same the other way round: equal in real numbers, until onnxruntime folds.

    Both channels are 3 x scaled by 1/3 rounded, one by a batch-norm, one by a linear layer.
    """
    image, label = first_digit()
    network, folded = _scaled_thirds(label, 3.0, THIRD)
    broken = _most_wrong(folded, image, label)
    return Canary("folded-by-the-runtime", network, image, label, EPSILON, broken, OnnxRuntime())


def dead_constant() -> Canary:
    """A neuron that is always 2^23 meets its negative bias; a copy without it rounds nothing."""
    image, label = first_digit()
    pixel = {PIXEL: 64.0}
    layers = [
        nn.Flatten(),
        linear(64, [({}, HUGE), (pixel, 0.0)]),
        linear(2, [({0: 1.0, 1: 1.0}, -HUGE), ({1: 1.0}, 0.0)]),
        linear(2, [({0: 1.0, 1: -1.0}, -0.45)]),
        linear(1, logits(label, 5.0, {}, {0: 1000.0})),
    ]
    network = chain(*layers)
    smaller = list(copy.deepcopy(network))
    remove_dead(smaller)
    return Canary(
        "dead-constant",
        network,
        image,
        label,
        EPSILON,
        with_pixels(image, {PIXEL: STEP}),
        Deployment("forward"),
        verified=nn.Sequential(*smaller).eval(),
    )
