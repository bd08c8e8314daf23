"""Small nets with known properties, for the tests of the certifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.benchmark.certify.checker.proofs import crown_bounds
from corobench.benchmark.certify.checker.reading import read_network


def seeded(build, seed: int = 0) -> nn.Module:
    """What `build` makes under a seed, in eval mode, with batch-norms that do something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def cnn(shape: tuple[int, int, int] = (1, 8, 8), width: int = 4, num_classes: int = 10):
    """conv 4x4 s2 p1, ReLU, conv 4x4 s2 p1, ReLU, flatten, FC, ReLU, FC."""
    channels, height, _ = shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) ** 2, 20),
        nn.ReLU(),
        nn.Linear(20, num_classes),
    )


class Viewing(nn.Module):
    """Flattens with the batch size read from its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, 2, 1)
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))


class Residual(nn.Module):
    """A block whose batch-norm follows its convolution, added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 1, 1)
        self.conv1 = nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x
        return self.fc(F.relu(out).flatten(1))


class PreActivation(nn.Module):
    """Batch-norm before ReLU before convolution, as in wide residual nets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 8, 3, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(4, 8, 1, 2, bias=False)
        self.norm3 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out = F.relu(self.norm1(x))
        body = self.conv2(F.relu(self.norm2(self.conv1(out))))
        out = F.relu(self.norm3(body + self.shortcut(out)))
        return self.fc(F.avg_pool2d(out, 4).view(-1, 8))


class Normalize(nn.Module):
    """(x - mean) / std per channel, under the name and buffers the adapter looks for."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class MaskedLinear(nn.Module):
    """weight * mask in the forward pass."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in))
        self.bias = nn.Parameter(torch.randn(num_out))
        self.register_buffer("mask", (torch.rand(num_out, num_in) > 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def boxes(shape: tuple[int, ...], eps: float, num: int = 3, seed: int = 0):
    """Random images in [0, 1] and their clipped boxes."""
    x = torch.rand(num, *shape, generator=torch.Generator().manual_seed(seed))
    return x, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """logit[label] - logit[other], written down independently of the package."""
    rows = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        rows.append(torch.stack([row[label] - row[j] for j in range(len(row)) if j != label]))
    return torch.stack(rows)


def worst_found(model: nn.Module, low: Tensor, high: Tensor, labels: Tensor, steps: int = 12):
    """Smallest margins that random sampling and signed gradient descent find in each box."""
    generator = torch.Generator().manual_seed(3)
    worst = margins(model(low), labels).detach()
    for j in range(worst.shape[1]):
        x = low + (high - low) * torch.rand(low.shape, generator=generator)
        for step in range(steps):
            x.requires_grad_(True)
            found = margins(model(x), labels)
            worst = torch.minimum(worst, found.detach())
            (gradient,) = torch.autograd.grad(found[:, j].sum(), x)
            size = 0.5 if step < 4 else 0.15
            x = x.detach() - size * (high - low) * gradient.sign()
            x = torch.maximum(torch.minimum(x, high), low)
    return worst


def relu_bounds(model: nn.Module, low: Tensor, high: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The checker's bounds before every ReLU over one box (1, ...), as a search is given them."""
    network = read_network(model, low.shape[1:])
    values = crown_bounds(network, low.double().numpy(), high.double().numpy()).values
    found = []
    for relu in network.relus:
        given = values[network.steps[relu - 1].sources[0]]
        sides = (given.low.reshape(-1), given.high.reshape(-1))
        found.append(tuple(torch.from_numpy(side).float() for side in sides))
    return found


def neighbours():
    """Two images in boxes of radius 0.2, and a net whose inner neuron IBP bounds better than CROWN.

    Its inner neuron is relu(x0 - 0.5) + relu(x1 - 0.5) + 0.05 - 4 relu(x2 - 0.5). Where x2 is dark,
    IBP proves it positive; CROWN does not, where it bounds an unstable ReLU from below by the
    identity. Where x2 is bright, IBP does not either.

    Returns:
        the net for (B, 1, 2, 2), 2 classes; the dark and the bright image; labels.
    """
    first, second, last = nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(1, 2)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4)[:3])
        first.bias.fill_(-0.5)
        second.weight.copy_(torch.tensor([[1.0, 1.0, -4.0]]))
        second.bias.fill_(0.05)
        last.weight.copy_(torch.tensor([[-1.0], [0.0]]))
        last.bias.copy_(torch.tensor([1.0, 0.0]))
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last).eval()
    x = torch.tensor([[0.55, 0.55, 0.2, 0.5], [0.55, 0.55, 0.75, 0.5]]).reshape(2, 1, 2, 2)
    return net, x, torch.tensor([0, 0])
