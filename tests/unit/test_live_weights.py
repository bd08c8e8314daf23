"""Weights that a logit can feel, by hand and by wiggling them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.network.compactness import measure, prunable_layers
from corobench.benchmark.network.live_weights import count_live_weights
from corobench.benchmark.submission.architectures import build

SHAPE = (1, 8, 8)


def _felt(model: nn.Module, x: Tensor) -> int:
    """Weights by which some logit has a derivative at one of many images and settings.

    Without biases a unit that the image does not reach is 0, and so is that derivative.
    """
    felt = {name: torch.zeros_like(layer.weight) for name, layer in prunable_layers(model).items()}
    model = model.double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        for layer in prunable_layers(model).values():
            drawn = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            layer.weight.data = torch.where(layer.weight == 0, 0.0, drawn)
        images = x.double().requires_grad_()
        slopes = torch.autograd.grad(
            model(images).sum(),
            [one.weight for one in prunable_layers(model).values()],
            allow_unused=True,
        )
        for name, slope in zip(felt, slopes, strict=True):
            if slope is not None:
                felt[name] += (slope != 0).float()
    return sum(
        int(torch.count_nonzero(found * (layer.weight != 0)))
        for found, layer in zip(felt.values(), prunable_layers(model).values(), strict=True)
    )


def test_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
        model[1].weight[0] = 0.0  # a constant unit: its two outgoing weights are dead
        model[3].weight.fill_(-1.0)
        model[3].weight[:, 1] = 0.0  # nobody reads this one: its 64 incoming weights are dead
    assert count_live_weights(model, SHAPE) == 64 + 2
    assert measure(model, SHAPE).num_live == 66


class _Everything(nn.Module):
    """Branches, pools, a product, a norm, constants on both sides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False)
        self.right = nn.Conv2d(6, 6, 1, stride=1)
        self.last = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.4) / 0.25
        x = F.max_pool2d(F.leaky_relu(self.norm(self.first(x)), 0.1), 2)
        y = torch.tanh(self.right(x))
        x = F.gelu(self.left(x)) + y * 0.5
        x = F.avg_pool2d(torch.cat([x[:, :3], x[:, 3:]], dim=1), 2)
        return 1.0 - self.last(torch.flatten(x, 1))


@pytest.mark.parametrize("share", [0.0, 0.7, 0.9, 0.97])
def test_agrees_with_wiggling_every_weight(share: float) -> None:
    model = _Everything().eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in prunable_layers(model).values():
            kept = torch.rand(layer.weight.shape, generator=generator) >= share
            layer.weight.mul_(kept)
    found = count_live_weights(model, SHAPE)
    x = torch.rand(6, *SHAPE, generator=generator)
    assert found == _felt(model, x)
    assert (
        found < sum(int((one.weight != 0).sum()) for one in prunable_layers(model).values())
    ) == (share > 0.8)


@pytest.mark.parametrize(
    "name", ["cnn-small", "cnn-large", "cnn5", "resnet18", "resnet8", "vgg16-bn"]
)
def test_dense_networks_are_alive(name: str) -> None:
    model = build(name, (3, 32, 32), 10, {"width": 0.125} if name.startswith("cnn") else {})
    weights = sum(int((one.weight != 0).sum()) for one in prunable_layers(model).values())
    assert count_live_weights(model.eval(), (3, 32, 32)) == weights


def test_a_norm_channel_of_weight_zero_cuts_its_path() -> None:
    model = build("cnn5", SHAPE, 10, {"width": 0.125}).eval()
    before = count_live_weights(model, SHAPE)
    norm = next(one for one in model.modules() if isinstance(one, nn.BatchNorm2d))
    norm.weight.data[0] = 0.0
    first, second, *_ = prunable_layers(model).values()
    lost = first.weight[0].numel() + second.weight[:, 0].numel()
    assert before is not None
    assert count_live_weights(model, SHAPE) == before - lost


def test_what_is_not_followed_is_left_out() -> None:
    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(x.flatten(1), dim=1).values

    assert count_live_weights(Sorted(), SHAPE) is None
    assert "num_live" not in measure(Sorted(), SHAPE).model_dump()


def test_published_rows_say_what_their_pruner_left_alive() -> None:
    """Filters that were removed leave the weights that read them without effect."""
    from corobench.benchmark.submission import load_submission

    entry = Path(__file__).parents[2] / "submissions" / "digits-ibp-random-10x"
    submission = load_submission(entry)
    size = measure(submission.model, submission.track.shape)
    assert size.num_live is not None
    assert 0 < size.num_live < size.num_weights_kept
