"""Networks that no track knows: what a user of `corobench.evaluate` brings along."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from corobench.benchmark.data import load_train


class TinyViT(nn.Module):
    """A vision transformer for digits: patches, attention, layer norm, GELU.

    Args:
        width: of each token.
        depth: blocks.
    """

    def __init__(self, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.places = nn.Parameter(torch.zeros(1, 16, width))
        block = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x - 0.5).flatten(2).transpose(1, 2) + self.places
        return self.head(self.blocks(tokens).mean(dim=1))


class SiluBlock(nn.Module):
    """Two convolutions around a shortcut, with SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.active = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.active(x + self.second(self.active(self.norm(self.first(x)))))


class SiluResNet(nn.Module):
    """A residual network of two blocks."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(SiluBlock(width), SiluBlock(width))
        self.head = nn.Linear(width * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).flatten(1))


def small_cnn() -> nn.Sequential:
    """Convolution, ReLU, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


def trained(model: nn.Module, steps: int = 60, seed: int = 0) -> nn.Module:
    """The network after a short training on the digits' training set, in eval mode."""
    train = load_train("digits")
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(steps):
            rows = torch.randint(len(images), (64,))
            loss = nn.functional.cross_entropy(model.train()(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval()


def pruned_cnn(keep_ratio: float = 0.5) -> nn.Module:
    """A trained network with live masks of torch's own pruning on every layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = trained(small_cnn())
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(layer, "weight", amount=1 - keep_ratio)
    return model
