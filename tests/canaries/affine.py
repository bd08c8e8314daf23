"""A float-naive verifier: affine bounds of a network in real arithmetic, whatever it rounds.

Every neuron is c + A x + [-r, r] over the box, in float64. A ReLU that keeps its sign is exact;
any other becomes an interval. That is sound for real numbers (up to float64) and says nothing of
float32: whoever certifies by it is fooled by every canary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from perf.deployments import traced


@dataclass(frozen=True)
class Form:
    """c + A x + [-r, r].

    Attributes:
        rows: float64 (1 + X, *shape): the value at x = 0, then the slopes.
        radius: float64 (*shape), at least 0.
        low: float64 (X,), lower corner of the box.
        high: float64 (X,), upper corner.
    """

    rows: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds, (*shape)."""
        slopes = self.rows[1:].flatten(1)
        up, down = slopes.clamp(min=0).T, slopes.clamp(max=0).T
        bottom, top = (a.view(self.radius.shape) + self.rows[0] for a in _range(up, down, self))
        return bottom - self.radius, top + self.radius

    def replaced(self, rows: Tensor, radius: Tensor) -> Form:
        """Another form over the same box."""
        return Form(rows, radius, self.low, self.high)

    def interval(self, bottom: Tensor, top: Tensor) -> Form:
        """The interval [bottom, top], which remembers nothing of x."""
        rows = torch.zeros(len(self.rows), *bottom.shape, dtype=torch.float64)
        rows[0] = (bottom + top) / 2
        return self.replaced(rows, (top - bottom) / 2)


def _range(up: Tensor, down: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    return up @ form.low + down @ form.high, up @ form.high + down @ form.low


@torch.no_grad()
def naive_margin(model: nn.Module, low: Tensor, high: Tensor, label: int) -> float:
    """The smallest margin over a box that the verifier claims.

    Args:
        model: traceable, in eval mode.
        low: (1, C, H, W), lower corner.
        high: (1, C, H, W), upper corner.
        label: the true class.
    """
    num = low.numel()
    basis = torch.cat([torch.zeros(1, num), torch.eye(num)]).double()
    rows = basis.view(-1, *low.shape[1:])
    flat = [x.flatten().double() for x in (low, high)]
    logits: Form = _Bounder(model).run(Form(rows, torch.zeros(low.shape[1:]).double(), *flat))
    margins = []
    for other in range(logits.radius.numel()):
        if other != label:
            rows = (logits.rows[:, label] - logits.rows[:, other])[:, None]
            radius = (logits.radius[label] + logits.radius[other])[None]
            margins.append(float(logits.replaced(rows, radius).bounds()[0]))
    return min(margins)


class _Bounder(fx.Interpreter):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(traced(model))

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer, form = self.fetch_attr(str(target)), args[0]
        if isinstance(layer, nn.Linear | nn.Conv2d):
            return _weighted(layer, form)
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            scale = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
            shift = layer.bias.double() - layer.running_mean.double() * scale
            return _scaled(form, scale, shift)
        if type(layer).__name__ == "Normalize":
            scale = 1 / layer.std.double()
            return _scaled(form, scale, -layer.mean.double() * scale)
        if isinstance(layer, nn.ReLU):
            return _relu(form)
        if isinstance(layer, nn.MaxPool2d):
            bottom, top = form.bounds()
            return form.interval(layer(bottom[None])[0], layer(top[None])[0])
        if type(layer).__name__ == "Divide":
            divisor = layer.divisor.double()
            return form.replaced(form.rows / divisor, form.radius / divisor.abs())
        if isinstance(layer, nn.Flatten | nn.Unflatten | nn.AvgPool2d | nn.Identity):
            return form.replaced(layer(form.rows), layer(form.radius[None])[0])
        raise NotImplementedError(type(layer).__name__)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert getattr(target, "__name__", "") in ("add", "iadd"), target
        a, b = args
        return a.replaced(a.rows + b.rows, a.radius + b.radius)


def _weighted(layer: nn.Linear | nn.Conv2d, form: Form) -> Form:
    weight = layer.weight.double()
    if isinstance(layer, nn.Linear):
        rows, radius = form.rows @ weight.T, form.radius @ weight.abs().T
    else:
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        rows = nn.functional.conv2d(form.rows, weight, None, *geometry)
        radius = nn.functional.conv2d(form.radius[None], weight.abs(), None, *geometry)[0]
    if layer.bias is not None:
        rows[0] += layer.bias.double().view(-1, *[1] * (radius.ndim - 1))
    return form.replaced(rows, radius)


def _scaled(form: Form, scale: Tensor, shift: Tensor) -> Form:
    shape = (-1, *[1] * (form.radius.ndim - 1))
    rows = form.rows * scale.view(1, *shape)
    rows[0] += shift.view(shape)
    return form.replaced(rows, form.radius * scale.abs().view(shape))


def _relu(form: Form) -> Form:
    bottom, top = form.bounds()
    is_active, is_off = bottom >= 0, top <= 0
    crossing = form.interval(torch.zeros_like(top), top.clamp(min=0))
    rows = torch.where(is_active, form.rows, torch.where(is_off, 0.0, crossing.rows))
    radius = torch.where(is_active, form.radius, torch.where(is_off, 0.0, crossing.radius))
    return form.replaced(rows, radius)
