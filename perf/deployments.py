"""A network computed in float32 as a runtime may compute it: any order, with or without FMA.

A `Deployment` says in which order the terms of each sum are added, whether a product and a sum are
rounded once (fused multiply-add) and whether denormals are flushed to zero. All of them are IEEE
float32 and legal for a runtime. Layers: convolution, linear, batch-norm, ReLU, pooling, flattening,
input normalisation and additions, found by a symbolic trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn

TINY = torch.finfo(torch.float32).tiny
ORDERS = ("forward", "bias-first", "backward", "pairwise", "shuffled")


@dataclass(frozen=True)
class Deployment:
    """How each sum is computed.

    Attributes:
        order: one of ORDERS. "forward" adds a layer's terms by input and the bias last,
            "bias-first" the bias first, "backward" all in reverse, "pairwise" in a tree,
            "shuffled" in a random order.
        fma: whether a product is added without being rounded first; not for "pairwise".
        flush: whether denormal operands and results count as 0.
        literal_norm: whether a batch-norm is computed as written, (x - mean) / sqrt(var + eps) *
            weight + bias, instead of as x * scale + shift.
        seed: of "shuffled".
    """

    order: str = "forward"
    fma: bool = False
    flush: bool = False
    literal_norm: bool = False
    seed: int = 0

    def flushed(self, x: Tensor) -> Tensor:
        """The tensor without denormals, where they are flushed."""
        return torch.where(x.abs() < TINY, torch.zeros_like(x), x) if self.flush else x

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """The rounded product."""
        return self.flushed(self.flushed(a) * self.flushed(b))

    def plus(self, a: Tensor, b: Tensor) -> Tensor:
        """The rounded sum."""
        return self.flushed(self.flushed(a) + self.flushed(b))

    def places(self, num_terms: int, has_bias: bool) -> list[int]:
        """The order of the terms of one sum; -1 is the bias."""
        terms = list(range(num_terms))
        if self.order == "shuffled":
            generator = torch.Generator().manual_seed(self.seed)
            terms += [-1] if has_bias else []
            return [terms[i] for i in torch.randperm(len(terms), generator=generator)]
        if self.order == "bias-first":
            return ([-1] if has_bias else []) + terms
        terms += [-1] if has_bias else []
        return terms[::-1] if self.order == "backward" else terms


@torch.no_grad()
def run(model: nn.Module, x_BCHW: Tensor, deployment: Deployment) -> Tensor:
    """Logits of a network as a deployment computes them.

    Args:
        model: traceable, in eval mode, in float32.
        x_BCHW: float32 images.
        deployment: how.

    Returns:
        float32 (B, num_classes).
    """
    result: Tensor = _Runner(model, deployment).run(x_BCHW)
    return result


def traced(model: nn.Module) -> fx.GraphModule:
    """The graph of a network whose leaves are torch's layers and the input normalisation."""
    return fx.GraphModule(model, _Tracer().trace(model))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        is_ours = type(module).__name__ in ("Normalize", "Divide")
        return is_ours or super().is_leaf_module(module, qualified_name)


class _Runner(fx.Interpreter):
    """Runs one layer after another."""

    def __init__(self, model: nn.Module, deployment: Deployment) -> None:
        super().__init__(traced(model))
        self.deployment = deployment

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer, x, how = self.fetch_attr(str(target)), args[0], self.deployment
        if isinstance(layer, nn.Linear):
            return weighted_sum(layer.weight, x[..., None], layer.bias, how)[..., 0]
        if isinstance(layer, nn.Conv2d):
            return _convolution(layer, x, how)
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            return _batch_norm(layer, x, how)
        if isinstance(layer, nn.AvgPool2d):
            return _average(layer, x, how)
        if type(layer).__name__ == "Normalize":
            mean, std = layer.mean.view(1, -1, 1, 1), layer.std.view(1, -1, 1, 1)
            return how.flushed(how.plus(x, -mean) / std)
        if type(layer).__name__ == "Divide":
            return how.flushed(how.flushed(x) / how.flushed(layer.divisor))
        if isinstance(layer, nn.ReLU | nn.MaxPool2d | nn.Flatten | nn.Unflatten | nn.Identity):
            return layer(x)
        raise NotImplementedError(type(layer).__name__)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(target, "__name__", "") in ("add", "iadd"):
            return self.deployment.plus(args[0], args[1])
        return super().call_function(target, args, kwargs)


def weighted_sum(w_OK: Tensor, a_BKL: Tensor, bias_O: Tensor | None, how: Deployment) -> Tensor:
    """W a + b, (B, O, L). Terms whose weights are all zero are left out; they change nothing."""
    used = (w_OK != 0).any(dim=0).nonzero().flatten()
    w_OK, a_BKL = w_OK[:, used], a_BKL[:, used]
    shape = (len(a_BKL), len(w_OK), a_BKL.shape[2])
    bias = None if bias_O is None else bias_O[None, :, None].expand(shape)
    places = how.places(len(used), bias is not None)
    if how.order == "pairwise":
        terms = [
            bias if k < 0 else how.times(w_OK[None, :, k, None], a_BKL[:, None, k]) for k in places
        ]
        return _tree(terms, how) if terms else a_BKL.new_zeros(shape)
    total = a_BKL.new_zeros(shape)
    for k in places:
        if k < 0:
            total = how.plus(total, bias)
        elif how.fma:
            w, a = how.flushed(w_OK[None, :, k, None]), how.flushed(a_BKL[:, None, k])
            total = how.flushed(fused(w, a, total))
        else:
            total = how.plus(total, how.times(w_OK[None, :, k, None], a_BKL[:, None, k]))
    return total


def fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c in float32, rounded once.

    The product is exact in float64. The sum there is rounded to odd, so that the second rounding,
    to float32, gives what one rounding of the exact value would (Boldo and Melquiond 2008).

    >>> one = torch.tensor(1 + 2.0**-20)
    >>> fused(one, one, -(one * one)).item() == 2.0**-40
    True
    """
    product, c = a.double() * b.double(), c.double()
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    is_even = (total.view(torch.int64) & 1) == 0
    step = torch.where(error > 0, torch.inf, -torch.inf).to(total)
    inexact = torch.isfinite(error) & (error != 0) & is_even
    return torch.where(inexact, torch.nextafter(total, step), total).float()


def _tree(terms: Sequence[Tensor], how: Deployment) -> Tensor:
    while len(terms) > 1:
        pairs = [how.plus(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + ([terms[-1]] if len(terms) % 2 else [])
    return terms[0]


def _convolution(layer: nn.Conv2d, x: Tensor, how: Deployment) -> Tensor:
    if layer.groups != 1:
        raise NotImplementedError("grouped convolution")
    geometry = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    patches = F.unfold(x, *geometry)
    found = weighted_sum(layer.weight.flatten(1), patches, layer.bias, how)
    sizes = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, dilation, pad, stride in zip(x.shape[2:], *geometry, strict=True)
    ]
    return found.view(len(x), -1, *sizes)


def _average(layer: nn.AvgPool2d, x: Tensor, how: Deployment) -> Tensor:
    batch, channels = x.shape[:2]
    kernel = layer.kernel_size
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    patches = F.unfold(x.flatten(0, 1)[:, None], kernel, padding=layer.padding, stride=layer.stride)
    ones = patches.new_ones(1, patches.shape[1])
    total = weighted_sum(ones, patches, None, how) / patches.shape[1]
    height = F.avg_pool2d(x[:1, :1], kernel, layer.stride, layer.padding).shape[2]
    return how.flushed(total.view(batch, channels, height, -1))


def _batch_norm(layer: nn.BatchNorm2d | nn.BatchNorm1d, x: Tensor, how: Deployment) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, var = layer.running_mean, layer.running_var
    assert mean is not None and var is not None
    inverse = 1 / torch.sqrt(var + layer.eps)
    if how.literal_norm:
        scaled = how.times(how.plus(x, -mean.view(shape)), inverse.view(shape))
        return how.plus(how.times(scaled, layer.weight.view(shape)), layer.bias.view(shape))
    scale = how.times(layer.weight, inverse)
    shift = how.plus(layer.bias, -how.times(mean, scale))
    return how.plus(how.times(x, scale.view(shape)), shift.view(shape))
