"""The smaller network computes the same function, or there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corobench.benchmark.network.compaction import compacted, smallest_equivalent
from corobench.benchmark.submission.architectures import build

X = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def _cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, 10),
    ).eval()  # fmt: skip


def _prune_filters(layer: nn.Conv2d | nn.Linear, channels: list[int], bias: float) -> None:
    with torch.no_grad():
        layer.weight[channels] = 0
        layer.bias[channels] = bias


@pytest.mark.parametrize("bias", [0.0, 0.7, -0.7])
def test_dead_filters_go_and_their_constants_stay(bias: float) -> None:
    model = _cnn()
    _prune_filters(model[0], [0, 3, 5, 6, 7], bias)
    _prune_filters(model[2], [1, 2, 3, 4], bias)
    _prune_filters(model[5], list(range(8)), bias)
    small = compacted(model, (1, 8, 8), X)
    assert small is not None
    with torch.no_grad():
        assert torch.allclose(small(X), model(X), atol=1e-5)
    # The second convolution does not pad, so that the first one's constants fold exactly.
    assert [m.weight.shape[0] for m in small if hasattr(m, "weight")] == [3, 4, 8, 10]


def test_a_constant_before_padding_is_kept() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(8), nn.Flatten(), nn.Linear(4, 10),
    ).eval()  # fmt: skip
    _prune_filters(model[0], [0, 1, 2, 3], 0.5)
    assert compacted(model, (1, 8, 8), X) is None
    _prune_filters(model[0], [0, 1, 2, 3], -0.5)
    small = compacted(model, (1, 8, 8), X)
    assert small is not None
    assert small[0].weight.shape[0] == 4
    with torch.no_grad():
        assert torch.allclose(small(X), model(X), atol=1e-5)


def test_channels_that_nobody_reads_go_and_take_others_with_them() -> None:
    model = _cnn()
    with torch.no_grad():
        model[7].weight[:, 4:] = 0  # 12 hidden neurons unread
        model[5].weight[:4, : 36 * 7] = 0  # so seven channels of the second convolution are, too
    small = compacted(model, (1, 8, 8), X)
    assert small is not None
    assert [m.weight.shape[0] for m in small if hasattr(m, "weight")] == [8, 1, 4, 10]
    with torch.no_grad():
        assert torch.allclose(small(X), model(X), atol=1e-5)


def test_nothing_worth_removing_and_unknown_networks_are_left_alone() -> None:
    assert compacted(_cnn(), (1, 8, 8), X) is None
    residual = build("resnet18", (1, 8, 8), 10, {"width": 0.125}).eval()
    assert compacted(residual, (1, 8, 8), X) is None


def test_batch_norm_is_folded_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 64, 10),
    )  # fmt: skip
    model(torch.rand(16, 1, 8, 8))
    model.eval()
    with torch.no_grad():
        model[0].weight[:6] = 0
    small = compacted(model, (1, 8, 8), X)
    assert small is not None
    assert small[0].weight.shape[0] == 2
    with torch.no_grad():
        assert torch.allclose(small(X), model(X), atol=1e-5)


def test_a_network_with_a_forward_pass_of_its_own_is_a_chain_too() -> None:
    """VGG16-BN with dead filters: batch-norm folded, filters gone, the same outputs."""
    torch.manual_seed(0)
    model = build("vgg16-bn", (3, 32, 32), 10, {"width": 0.1}).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.weight[:2] = 0.0  # with the bias at 0, two filters of each layer are dead
    found = smallest_equivalent(model, (3, 32, 32))
    assert found is not None
    chain, num_channels, num_removed = found
    assert num_removed == 2 * 13
    assert num_channels == sum(
        len(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d)
    ) + (2 * round(256 * 0.1))
    x = torch.rand(8, 3, 32, 32)
    assert torch.allclose(chain(x), model(x), atol=1e-5)


def _kill_inside(model: nn.Module, share: float) -> int:
    """Leave no trace of some channels inside every block; returns how many."""
    killed = 0
    for block in model.modules():
        if hasattr(block, "conv2"):
            # ResNet-18 has a batch-norm after the first convolution called bn1, WRN one called bn2.
            norm = block.bn1 if hasattr(block, "shortcut") else block.bn2
            number = int(share * len(norm.weight))
            with torch.no_grad():
                norm.weight[:number], norm.bias[:number] = 0.0, -0.1
            killed += number
    return killed


@pytest.mark.parametrize("name", ["resnet18", "resnet8", "wrn-28-4"])
def test_channels_inside_residual_blocks_go(name: str) -> None:
    """What the shortcut adds keeps its channels, and the outputs are the same."""
    torch.manual_seed(0)
    model = build(name, (1, 8, 8), 10, {"width": 0.125}).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.bias.normal_()
    killed = _kill_inside(model, 0.5)
    found = smallest_equivalent(model, (1, 8, 8))
    assert found is not None
    network, num_channels, num_removed = found
    assert num_removed == killed
    outputs = [len(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert num_channels == sum(outputs) - 10
    with torch.no_grad():
        assert torch.allclose(network(X), model(X), atol=1e-5)
    small = compacted(model, (1, 8, 8), X)
    assert small is not None
    with torch.no_grad():
        assert torch.allclose(small(X), model(X), atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(
        p.numel() for p in model.parameters()
    )


class _Twice(nn.Module):
    """Two readers of one layer, a sum, and a linear layer that reads maps row by row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.rows = nn.Linear(8, 8)
        self.flatten, self.last = nn.Flatten(), nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.relu(self.first(x))
        return self.last(self.flatten(self.left(shared) + self.rows(self.right(shared))))


def test_what_branches_share_stays() -> None:
    """Four dead filters with two readers, and four that a linear layer reads row by row."""
    model = _Twice().eval()
    _prune_filters(model.first, [0, 1, 2, 3], 0.0)
    _prune_filters(model.right, [0, 1, 2, 3], 0.0)
    assert smallest_equivalent(model, (1, 8, 8)) is None
    assert compacted(model, (1, 8, 8), X) is None
