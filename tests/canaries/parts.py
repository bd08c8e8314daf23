"""Layers written down by their few weights that are not zero, and what the canaries share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

HUGE = 2.0**23
"""From here on float32 holds whole numbers only."""

ZEROS = (0, 8, 16, 24, 32, 40, 48, 56, 1, 9, 7, 15)
"""Pixels of the first digit that are 0, so that the ball of 1/16 holds [0, 1/16] there."""

STEP = 1.5 / 64 + 1e-5
"""Where 64 x lies just above 1.5: rounded to a whole number it gains almost half a unit."""

Row = tuple[Mapping[int, float], float]
"""Input -> weight, and the bias."""

ConvRow = tuple[Mapping[tuple[int, int, int], float], float]
"""(channel, row, column) of the kernel -> weight, and the bias."""


class Divide(nn.Module):
    """Every value divided by one stored number."""

    divisor: Tensor

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.register_buffer("divisor", torch.tensor([divisor]))

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor


def linear(num_inputs: int, rows: Sequence[Row]) -> nn.Linear:
    """A linear layer with one output per row."""
    layer = nn.Linear(num_inputs, len(rows))
    with torch.no_grad():
        fill_linear(layer, rows)
    return layer


def fill_linear(layer: nn.Linear, rows: Sequence[Row]) -> None:
    """Set the first outputs of a layer by rows and all others to zero."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for place, (weights, bias) in enumerate(rows):
            layer.bias[place] = bias
            for source, weight in weights.items():
                layer.weight[place, source] = weight


def fill_conv(layer: nn.Conv2d, rows: Sequence[ConvRow]) -> None:
    """Set the first channels of a convolution by rows and all others to zero."""
    with torch.no_grad():
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
        for place, (weights, bias) in enumerate(rows):
            if layer.bias is not None:
                layer.bias[place] = bias
            for tap, weight in weights.items():
                layer.weight[place][tap] = weight


def conv(channels: int, rows: Sequence[ConvRow], kernel: int = 1, **geometry: int) -> nn.Conv2d:
    """A convolution with one output channel per row."""
    layer = nn.Conv2d(channels, len(rows), kernel, **geometry)
    fill_conv(layer, rows)
    return layer


def chain(*layers: nn.Module) -> nn.Sequential:
    """Weighted layers, pooling and flattening in order; a ReLU after each layer but the last."""
    weighted = (nn.Linear, nn.Conv2d)
    parts: list[nn.Module] = []
    for place, layer in enumerate(layers):
        parts.append(layer)
        follows = layers[place + 1] if place + 1 < len(layers) else layer
        is_last = place + 1 == len(layers)
        if isinstance(layer, nn.BatchNorm2d | Divide) or (
            isinstance(layer, weighted)
            and not isinstance(follows, nn.BatchNorm2d | Divide)
            and not is_last
        ):
            parts.append(nn.ReLU())
    return nn.Sequential(*parts).eval().requires_grad_(False)


def logits(label: int, margin: float, *more: Mapping[int, float]) -> list[Row]:
    """Ten rows: the label's bias is the margin, and further weights by class.

    Args:
        label: whose logit has the bias `margin`; all others have 0.
        margin: its bias.
        more: per class, starting with the label and then upward around, input -> weight.
    """
    rows: list[Row] = [({}, margin if place == label else 0.0) for place in range(10)]
    for shift, weights in enumerate(more):
        place = (label + shift) % 10
        rows[place] = (weights, rows[place][1])
    return rows


def carry(*sources: int) -> list[Row]:
    """Rows that pass inputs on."""
    return [({source: 1.0}, 0.0) for source in sources]


def set_norm(
    norm: nn.BatchNorm2d, channel: int, scale: float = 1.0, bias: float = 0.0, mean: float = 0.0
) -> None:
    """(x - mean) * scale + bias, whose scale is exact: a variance of 2^40 drowns eps.

    Args:
        norm: which batch-norm.
        channel: which channel of it.
        scale: a number that float32 holds.
        bias: added.
        mean: subtracted first.
    """
    with torch.no_grad():
        norm.running_var[channel] = 2.0**40  # type: ignore[index]
        norm.running_mean[channel] = mean  # type: ignore[index]
        norm.weight[channel] = scale * 2.0**20
        norm.bias[channel] = bias


def plain_norms(model: nn.Module) -> None:
    """Every batch-norm passes its input on, and every convolution gives 0."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for channel in range(layer.num_features):
                set_norm(layer, channel)
        if isinstance(layer, nn.Conv2d):
            fill_conv(layer, [])


def residues(pixels: Sequence[int], scale: float = 64.0, height: float = HUGE) -> list[Row]:
    """For each pixel scale * x + height, which is rounded, and scale * x."""
    rows: list[Row] = []
    for pixel in pixels:
        rows += [({pixel: scale}, height), ({pixel: scale}, 0.0)]
    return rows


def without_height(num: int, height: float = HUGE) -> list[Row]:
    """The next layer of `residues`: the height is taken away, the rest passed on."""
    rows: list[Row] = []
    for place in range(num):
        rows += [({2 * place: 1.0}, -height), ({2 * place + 1: 1.0}, 0.0)]
    return rows


def gate(num: int, threshold: float) -> Row:
    """The sum of the residues above a threshold."""
    weights = {2 * place: 1.0 for place in range(num)}
    weights |= {2 * place + 1: -1.0 for place in range(num)}
    return weights, -threshold


def centre_and_corners(image: Tensor, radius: float, pixels: Sequence[int]) -> Tensor:
    """The clean image, the centre of its box, and every corner at some pixels, (B, C, H, W)."""
    low, high = (image - radius).clamp(min=0), (image + radius).clamp(max=1)
    images = [image, (low + high) / 2]
    for number in range(2 ** len(pixels)):
        corner = low.clone()
        for bit, pixel in enumerate(pixels):
            if number >> bit & 1:
                corner.view(-1)[pixel] = high.view(-1)[pixel]
        images.append(corner)
    return torch.cat(images)
