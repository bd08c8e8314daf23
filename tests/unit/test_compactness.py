"""Counts against closed forms, where common counters go wrong."""

import pytest
import torch
from torch import nn

from benchmark import compactness


def test_depthwise_padding_stride_and_dilation() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1),  # 8x8 -> 4x4
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # depthwise, 4x4
        nn.Conv2d(8, 2, 2, dilation=2),  # 4x4 -> 2x2
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    measured = compactness.measure(model, (4, 8, 8))
    assert [layer.macs_dense for layer in measured.layers] == [
        8 * 4 * 9 * 16,
        8 * 1 * 9 * 16,
        2 * 8 * 4 * 4,
        8 * 5,
    ]
    assert measured.macs_dense == sum(layer.macs_dense for layer in measured.layers)


def test_zeros_count_nowhere_but_in_the_dense_size() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[:, :6] = 1.0
        model[1].bias.fill_(1.0)
    measured = compactness.measure(model, (1, 8, 8))
    assert (measured.num_parameters, measured.num_nonzero) == (650, 70)
    assert (measured.macs_dense, measured.macs_nonzero) == (640, 60)
    assert measured.bytes_dense == 2600
    # Weight: 640 bits of mask and 60 values; bias: dense is smaller than mask plus values.
    assert measured.bytes_packed == (80 + 240) + 40
    assert measured.sparsity == pytest.approx(580 / 640)


def test_weights_hidden_in_buffers_count() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("hidden", torch.ones(10, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.hidden.T

    assert compactness.measure(Hiding(), (1, 8, 8)).num_parameters == 640


def test_a_shared_layer_counts_once_and_its_work_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x)).flatten(1)

    measured = compactness.measure(Twice(), (1, 8, 8))
    assert measured.num_parameters == 9
    assert measured.macs_dense == 2 * 9 * 64
