"""Deployments of small nets in float32 numpy, one rounding at a time, in any order of summation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def summed(terms: np.ndarray, order: np.ndarray) -> np.ndarray:
    """float32 (..., k) summed one by one along the last axis in this order."""
    return np.add.accumulate(terms[..., order], axis=-1, dtype=np.float32)[..., -1]


def deployed(model: nn.Sequential, image: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Logits of one image (C, H, W): every sum, the bias in it, in an order drawn anew."""
    value = image.numpy()
    for layer in model:
        if isinstance(layer, nn.Flatten):
            value = value.reshape(-1)
        elif isinstance(layer, nn.ReLU):
            value = np.maximum(value, np.float32(0))
        elif isinstance(layer, nn.BatchNorm2d):
            value = _normalised(layer, value)
        elif isinstance(layer, nn.Linear):
            value = _affine(_numpy(layer.weight), _numpy(layer.bias), value[:, None], rng)[:, 0]
        elif isinstance(layer, nn.Conv2d):
            patches = F.unfold(
                torch.from_numpy(value)[None], layer.kernel_size, 1, layer.padding, layer.stride
            )
            rows = _numpy(layer.weight).reshape(layer.out_channels, -1)
            side = (value.shape[1] + 2 * layer.padding[0] - layer.kernel_size[0]) // layer.stride[
                0
            ] + 1
            found = _affine(rows, _numpy(layer.bias), patches[0].numpy(), rng)
            value = found.reshape(layer.out_channels, side, side)
        else:
            raise AssertionError(type(layer))
        assert value.dtype == np.float32
    return value


def _affine(
    weight: np.ndarray, bias: np.ndarray | None, columns: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    terms = weight[:, None, :] * columns.T[None]
    if bias is not None:
        shape = (len(bias), columns.shape[1], 1)
        terms = np.concatenate([terms, np.broadcast_to(bias[:, None, None], shape)], axis=-1)
    return summed(terms, rng.permutation(terms.shape[-1]))


def _normalised(layer: nn.BatchNorm2d, value: np.ndarray) -> np.ndarray:
    mean, variance, weight, bias = (
        _numpy(one)[:, None, None]
        for one in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    inverse = np.float32(1) / np.sqrt(variance + np.float32(layer.eps))
    return (value - mean) * inverse * weight + bias


def _numpy(tensor: Tensor | None) -> np.ndarray:
    return None if tensor is None else tensor.detach().numpy()


def exact_linear(
    weight: Tensor, bias: Tensor, low: np.ndarray, high: np.ndarray, label: int
) -> list[Fraction]:
    """The smallest margins of one linear layer over a box, in rational arithmetic."""
    rows = [[Fraction(float(w)) for w in row] for row in weight]
    shifts = [Fraction(float(b)) for b in bias]
    bottom, top = ([Fraction(float(v)) for v in side.reshape(-1)] for side in (low, high))
    found = []
    for other in range(len(rows)):
        if other == label:
            continue
        worst = shifts[label] - shifts[other]
        for a, b, lower, upper in zip(rows[label], rows[other], bottom, top, strict=True):
            worst += (a - b) * (lower if a > b else upper)
        found.append(worst)
    return found


@contextmanager
def flushing() -> Iterator[bool]:
    """torch with denormals flushed to zero; gives whether this processor can."""
    can = torch.set_flush_denormal(True)
    try:
        yield can
    finally:
        torch.set_flush_denormal(False)


def float64(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().double().numpy() for tensor in tensors]
