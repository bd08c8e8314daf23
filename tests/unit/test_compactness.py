"""Counts against closed forms, where common counters go wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from corobench.benchmark.network import compactness


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


@pytest.mark.parametrize(
    "name", ["cnn-small", "cnn-large", "vgg16-bn", "wrn-28-4", "resnet18", "resnet8"]
)
def test_multiply_adds_equal_torchs_own_counter(name: str) -> None:
    """torch's counter is right for these networks; it counts two operations a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    from corobench.benchmark.submission.architectures import build

    model = build(name, (3, 32, 32), 10, {"width": 0.25}).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    measured = compactness.measure(model, (3, 32, 32))
    assert 2 * measured.macs_dense == counter.get_total_flops()


def test_codes_of_quantised_weights() -> None:
    from corobench.benchmark.network.sizes import coded_bytes, packed_bytes

    codes = torch.randint(-128, 128, (64, 64), generator=torch.Generator().manual_seed(0))
    quantised = codes.float() * 0.01
    assert len(quantised.unique()) == 256
    assert coded_bytes(quantised) == 64 * 64 + 4 * 256  # 8 bits a value and the table
    assert coded_bytes(torch.zeros(64, 64)) == 4  # one value, no bits
    few = torch.zeros(800)
    few[:80] = torch.tensor([1.0, -1.0, 0.5, -0.5]).repeat(20)
    assert coded_bytes(few) == 100 + 80 * 2 // 8 + 4 * 4
    dense = torch.randn(1000)
    assert coded_bytes(dense) == packed_bytes(dense) == 4000


def test_zstd_finds_what_repeats() -> None:
    from corobench.benchmark.network.sizes import zstd_bytes

    assert zstd_bytes([torch.ones(10_000)]) < 100
    noise = torch.randn(10_000)
    assert 30_000 < zstd_bytes([noise]) < 40_100


def test_peak_activations_by_hand() -> None:
    from corobench.benchmark.network.memory import peak_activation_bytes

    chain = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),  # 64 in, 256 out
        nn.ReLU(),  # 256 in, 256 out: the peak
        nn.Conv2d(4, 2, 3, padding=1),  # 256 in, 128 out
        nn.Flatten(),  # a view
        nn.Linear(128, 10),
    ).eval()
    assert peak_activation_bytes(chain, (1, 8, 8)) == 4 * (256 + 256)

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.second(self.first(x))  # the image is held all the way

    assert peak_activation_bytes(Skip().eval(), (1, 8, 8)) == 4 * (64 + 256 + 64)


def test_removable_channels_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    ).eval()
    with torch.no_grad():
        model[0].weight[1] = 0.0  # constant, moved into the next bias: no padding there
        model[2].weight[:, 2] = 0.0  # nobody reads channel 2
        model[5].weight[:, 16:48] = 0.0  # nobody reads channels 1 and 2
    found = compactness.measure_equivalent(model, (1, 8, 8))
    assert found is not None
    assert (found.num_channels, found.num_removed) == (10, 4)
    assert found.num_parameters == (2 * 9 + 2) + (4 * 2 * 9 + 4) + (64 * 3 + 3)
    assert found.macs_dense == 2 * 9 * 36 + 4 * 2 * 9 * 16 + 64 * 3


def test_magnitudes_equal_numpys_histogram() -> None:
    from corobench.benchmark.network.magnitudes import magnitudes

    weights = [torch.randn(50, 40), torch.randn(7, 3, 3, 3) * 1e-3, torch.zeros(9)]
    weights[0][torch.rand(50, 40) < 0.9] = 0.0
    found = magnitudes(weights)
    values = np.concatenate([weight.double().abs().flatten().numpy() for weight in weights])
    kept = values[values > 0]
    expected, _ = np.histogram(kept, bins=[*found.edges[:-1], np.nextafter(found.edges[-1], 0)])
    assert found.counts == tuple(expected)
    assert sum(found.counts) == len(kept)
    assert found.num_zeros == len(values) - len(kept)
    assert found.counts[0] and found.counts[-1]
    ratios = np.asarray(found.edges[1:]) / np.asarray(found.edges[:-1])
    assert ratios == pytest.approx(np.full(len(ratios), 2**0.25), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "edges", "counts", "num_zeros"),
    [
        ([0.0, -0.0], (), (), 2),
        ([1e-12, 0.0], (0.0, 5.96046e-08), (1,), 1),
        ([-1.0], (1.0, 1.18921), (1,), 0),
        ([3.4028234e38], (3.40282e38, 4.04666e38), (1,), 0),
    ],
)
def test_magnitudes_by_hand(
    values: list[float], edges: tuple[float, ...], counts: tuple[int, ...], num_zeros: int
) -> None:
    from corobench.benchmark.network.magnitudes import magnitudes

    found = magnitudes([torch.tensor(values)])
    assert (found.edges, found.counts, found.num_zeros) == (edges, counts, num_zeros)


def test_magnitudes_of_a_network_leave_biases_out() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 1.0, -1.0, 0.3], [0.0, 0.0, 0.0, 2.0]]))
    found = compactness.measure(model, (1, 2, 2)).magnitudes
    assert found is not None
    assert (sum(found.counts), found.num_zeros) == (4, 4)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"edges": [1.0, 2.0], "counts": [1, 2], "num_zeros": 0}, "one count between two edges"),
        ({"edges": [1.0], "counts": [], "num_zeros": 0}, "one count between two edges"),
        ({"edges": [2.0, 1.0], "counts": [1], "num_zeros": 0}, "edges that ascend"),
        ({"edges": [1.0, 2.0], "counts": [0], "num_zeros": 0}, "no bins where no weight"),
        ({"edges": [1.0, 1e999], "counts": [1], "num_zeros": 0}, "finite number"),
        ({"edges": [-1.0, 2.0], "counts": [1], "num_zeros": 0}, "greater than or equal to 0"),
    ],
)
def test_a_histogram_that_is_none_is_refused(record: dict[str, object], fault: str) -> None:
    from corobench.benchmark.records.result import Magnitudes

    with pytest.raises(ValueError, match=fault):
        Magnitudes.model_validate(record)
