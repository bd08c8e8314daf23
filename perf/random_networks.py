"""Small random networks with unpleasant numbers: what `fuzz_certificates.py` certifies and breaks.

Weights are scaled by powers of two that later layers take back, mostly zero, doubled, denormal, or
in pairs that nearly cancel; biases are huge and taken away exactly by the next layer. Networks of
the kind "hidden" have a path that only rounding opens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

KINDS = ("mlp", "conv", "norm", "average", "max", "residual", "hidden")


@dataclass(frozen=True)
class Drawn:
    """A network and what goes into it.

    Attributes:
        network: eval mode, without gradients of weights.
        shape: channels, height, width.
        num_classes: logits.
        kind: one of KINDS.
        traits: what was done to its weights, layer by layer.
    """

    network: nn.Module
    shape: tuple[int, int, int]
    num_classes: int
    kind: str
    traits: tuple[str, ...]


def hidden(rng: np.random.Generator) -> Drawn:
    """A constant classifier with a gate that is shut in real arithmetic.

    One or two inputs pass s x + h, which float32 rounds to multiples of a unit, and s x, which it
    does not; where their differences add up to more than a threshold, another logit rises.
    """
    num_inputs, num = int(rng.integers(2, 6)), int(rng.integers(1, 3))
    power = int(rng.integers(16, 30))
    unit = 2.0 ** (power - 23)
    scale = unit * 2.0 ** int(rng.integers(3, 8))
    threshold = float(rng.choice([0.0, 0.2, 0.35])) * num * unit
    gain = 16.0 / (0.5 * num * unit - threshold)
    first, second = nn.Linear(num_inputs, 2 * num), nn.Linear(2 * num, 2 * num)
    gate, last = nn.Linear(2 * num, 1), nn.Linear(1, 3)
    with torch.no_grad():
        for layer in (first, second, gate, last):
            layer.weight.zero_()
            layer.bias.zero_()
        for place, source in enumerate(rng.permutation(num_inputs)[:num]):
            first.weight[2 * place : 2 * place + 2, int(source)] = scale
            first.bias[2 * place] = 2.0**power
            second.bias[2 * place] = -(2.0**power)
            gate.weight[0, 2 * place], gate.weight[0, 2 * place + 1] = 1.0, -1.0
        second.weight.copy_(torch.eye(2 * num))
        gate.bias.fill_(-threshold)
        last.weight[int(rng.integers(1, 3)), 0] = gain
        last.bias[0] = 4.0
    parts = [nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), gate, nn.ReLU(), last]
    network = nn.Sequential(*parts).eval().requires_grad_(False)
    traits = (f"2^{power}", f"{num} inputs", f"threshold {threshold / unit:.2g} units")
    return Drawn(network, (1, 1, num_inputs), 3, "hidden", traits)


class Block(nn.Module):
    """relu(x + body(x))."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.body(x))


def draw(rng: np.random.Generator) -> Drawn:
    """A random network of 1 to 6 weighted layers that gives more than one class."""
    kind = str(rng.choice(KINDS))
    while kind != "hidden":
        drawn = _drawn(rng, kind)
        with torch.no_grad():
            logits = drawn.network(torch.rand(64, *drawn.shape))
        if bool(torch.isfinite(logits).all()) and len(logits.argmax(dim=1).unique()) > 1:
            return drawn
    return hidden(rng)


def _drawn(rng: np.random.Generator, kind: str) -> Drawn:
    torch.manual_seed(int(rng.integers(2**31)))
    num_classes = int(rng.integers(2, 5))
    shape = (1, 1, int(rng.integers(2, 9))) if kind == "mlp" else (int(rng.integers(1, 3)), 4, 4)
    layers = _mlp(rng, shape) if kind == "mlp" else _maps(rng, kind, shape)
    features = _features(nn.Sequential(*layers), shape)
    layers.append(nn.Linear(features, num_classes))
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        traits = _spoil(rng, network)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                _fill_norm(rng, norm)
        _balance(network, shape)
    return Drawn(network.requires_grad_(False), shape, num_classes, kind, traits)


def _balance(network: nn.Sequential, shape: tuple[int, int, int]) -> None:
    """Let each class win somewhere: logits have the mean 0 over random images."""
    last = network[-1]
    assert isinstance(last, nn.Linear)
    logits = network(torch.rand(256, *shape))
    if bool(torch.isfinite(logits).all()):
        last.bias -= logits.mean(dim=0)


def _mlp(rng: np.random.Generator, shape: tuple[int, int, int]) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    width = shape[2]
    for _ in range(int(rng.integers(0, 6))):
        after = int(rng.integers(2, 9))
        layers += [nn.Linear(width, after), nn.ReLU()]
        width = after
    return layers


def _maps(rng: np.random.Generator, kind: str, shape: tuple[int, int, int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = shape[0]
    for _ in range(int(rng.integers(1, 4))):
        after = int(rng.integers(1, 4))
        kernel = int(rng.choice([1, 3]))
        layers.append(nn.Conv2d(channels, after, kernel, padding=kernel // 2))
        if kind == "norm":
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU())
        channels = after
        if kind == "residual":
            inner = nn.Conv2d(channels, channels, 3, padding=1)
            layers.append(Block(inner))
    if kind == "average":
        layers.append(nn.AvgPool2d(2))
    if kind == "max":
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    if rng.random() < 0.5:
        layers += [nn.Linear(_features(nn.Sequential(*layers), shape), 4), nn.ReLU()]
    return layers


def _features(network: nn.Module, shape: tuple[int, int, int]) -> int:
    with torch.no_grad():
        return int(network.eval()(torch.zeros(1, *shape)).numel())


def _fill_norm(rng: np.random.Generator, norm: nn.BatchNorm2d) -> None:
    scale = float(rng.choice([1.0, 2.0**-20, 2.0**20]))
    spread = torch.from_numpy(np.exp(rng.normal(size=norm.num_features)))
    norm.running_var.copy_(spread * scale)  # type: ignore[union-attr]
    norm.weight.copy_(norm.running_var.sqrt() * float(rng.choice([0.1, 1.0, 3.0])))  # type: ignore[union-attr]
    size = float(rng.choice([0.1, 1.0, 2.0**12, 2.0**23]))
    norm.running_mean.copy_(torch.randn(norm.num_features) * size)  # type: ignore[union-attr]
    inverse = torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator]
    norm.bias.copy_(
        norm.running_mean * inverse * norm.weight + 0.1 * torch.randn(norm.num_features)
    )  # type: ignore[operator]


def _spoil(rng: np.random.Generator, network: nn.Module) -> tuple[str, ...]:
    """Give each weighted layer a trait; a scale is taken back by the next layer of the chain."""
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    in_chain = [m for m in network if isinstance(m, nn.Conv2d | nn.Linear)]
    traits: list[str] = []
    for place, layer in enumerate(weighted):
        weight, bias = layer.weight, layer.bias
        assert bias is not None
        weight.mul_(float(rng.choice([1.0, 2.0, 4.0])))
        trait = str(rng.choice(["plain", "scaled", "sparse", "pairs", "doubled", "tiny", "high"]))
        follower = _follower(in_chain, layer)
        if trait == "scaled" and follower is not None:
            factor = float(2.0 ** rng.choice([-60, -24, -12, 12, 24, 40]))
            weight.mul_(factor)
            bias.mul_(factor)
            follower.weight.mul_(1 / factor)
        elif trait == "sparse":
            weight.mul_((torch.rand_like(weight) < 0.3).float())
        elif trait == "pairs" and len(weight) > 1:
            weight[1] = weight[0] * (1 + 2.0**-22)
            bias[1] = bias[0]
            if follower is not None and follower.weight.shape[1] == len(weight):
                follower.weight[:, 0] = follower.weight[:, 1] * -1.0
                follower.weight[:, :2] *= float(rng.choice([1.0, 2.0**10, 2.0**20]))
        elif trait == "doubled":
            weight.copy_(weight[:1].expand_as(weight).clone())
        elif trait == "tiny":
            weight.flatten()[:: int(rng.integers(2, 4))] *= 2.0**-130
        elif trait == "high" and follower is not None:
            _raise(rng, layer, follower)
        traits.append(f"{place}:{trait}")
    return tuple(traits)


def _follower(chain: list[nn.Module], layer: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """The next weighted layer of the chain; None for the last one and inside a block."""
    for place, one in enumerate(chain[:-1]):
        if one is layer:
            found = chain[place + 1]
            assert isinstance(found, nn.Conv2d | nn.Linear)
            return found
    return None


def _raise(
    rng: np.random.Generator, layer: nn.Conv2d | nn.Linear, follower: nn.Conv2d | nn.Linear
) -> None:
    """A huge bias on one neuron or channel, taken away by the bias of the layer behind."""
    height = float(2.0 ** rng.choice([10, 16, 20, 22, 23, 24, 26]))
    assert layer.bias is not None and follower.bias is not None
    layer.bias[0] += height
    if follower.weight.shape[1] % len(layer.weight):
        return
    share = follower.weight.shape[1] // len(layer.weight)
    if isinstance(follower, nn.Conv2d):
        taken = follower.weight[:, 0].flatten(1).sum(dim=1)
    else:
        taken = follower.weight[:, :share].sum(dim=1)
    follower.bias -= height * taken
