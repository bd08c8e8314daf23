"""A network in whole numbers, computed by itself in integers: the reference for its ONNX file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from corobench.benchmark.submission.graph.network import GraphModel, read_network
from corobench.benchmark.submission.graph.writing_qdq import IntegerNetwork, write_qdq
from corobench.benchmark.submission.quantising import quantise_network


def images_of(shape: tuple[int, int, int], num: int = 32) -> torch.Tensor:
    """Random images on the grid of 1/255."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (num, *shape), generator=generator).float() / 255


def convert(
    model: nn.Module, shape: tuple[int, int, int], num: int = 32
) -> tuple[IntegerNetwork, bytes, GraphModel]:
    """A network in whole numbers, its file, and what is read from the file."""
    network = quantise_network(model.eval(), shape, images_of(shape, num))
    content = write_qdq(network)
    return network, content, read_network(content)


def codes_of(x: np.ndarray) -> np.ndarray:
    """Activations to whole numbers: 256 steps to 1, half to even, from 0 to 255."""
    return np.clip(np.rint(x * 256), 0, 255).astype(np.int64)


def logits_in_integers(network: IntegerNetwork, x_BCHW: np.ndarray) -> np.ndarray:
    """Logits (B, classes), float64, with products and sums of int64 alone."""
    x = np.rint(np.float64(x_BCHW) * 255).astype(np.int64)
    if network.has_ones:
        x = np.concatenate([x, np.full_like(x[:, :1], 255)], axis=1)
    if network.before:
        x = x.reshape(len(x), -1)
    for layer in network.layers:
        codes = layer.codes.astype(np.int64)
        if codes.ndim == 4:
            sums = _windows(x, layer.attributes).reshape(*_sizes(x, layer.attributes), -1)
            sums = sums @ codes.reshape(len(codes), -1).T + layer.bias
            values = np.moveaxis(sums * layer.scales.astype(np.float64), -1, 1) / 256
        else:
            values = (x @ codes.T + layer.bias) * layer.scales.astype(np.float64) / 256
        if layer is network.layers[-1]:
            return values
        for op, attributes in layer.after:
            if op == "MaxPool":
                values = (
                    _windows(values, attributes, low=-np.inf).max(axis=(4, 5)).transpose(0, 3, 1, 2)
                )
            if op == "Reshape":
                values = values.reshape(len(values), -1)
        x = codes_of(values)  # the rectifier is in the range of the whole numbers
    raise AssertionError("no layers")


def _sizes(x: np.ndarray, attributes: dict[str, list[int]]) -> tuple[int, int, int]:
    return _windows(x, attributes).shape[:3]


def _windows(x: np.ndarray, attributes: dict[str, list[int]], low: float = 0) -> np.ndarray:
    """What each output place sees: (B, rows, columns, C, height, width)."""
    (up, left, down, right), (tall, wide) = attributes["pads"], attributes["strides"]
    padded = np.pad(x, ((0, 0), (0, 0), (up, down), (left, right)), constant_values=low)
    seen = np.lib.stride_tricks.sliding_window_view(
        padded, tuple(attributes["kernel_shape"]), axis=(2, 3)
    )
    return seen[:, :, ::tall, ::wide].transpose(0, 2, 3, 1, 4, 5)
