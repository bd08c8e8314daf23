"""Families of layers beyond ReLUs: no image sampled in a box lies below a bound over it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from certify_nets import boxes, margins, seeded
from float32_nets import float64, flushing
from torch import Tensor, nn

from corobench.benchmark.certify.checker import proofs
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.submission.graph.layers import (
    Clip,
    Flattened,
    GraphNetwork,
    Hardsigmoid,
    Max,
    Min,
    UnitLength,
)

SHAPE = (2, 5, 5)


def around(*layers: nn.Module, channels: int = 4) -> nn.Sequential:
    """A convolution, the layers, and a linear layer."""
    front = nn.Sequential(nn.Conv2d(2, channels, 3, 1, 1), *layers, nn.Flatten())
    front.eval()
    num = front(torch.zeros(1, *SHAPE)).shape[1]
    return nn.Sequential(*front, nn.Linear(num, 12), *layers[:1], nn.Linear(12, 4))


def simply(*layers: nn.Module) -> nn.Sequential:
    """A convolution, the layers, and a linear layer; layers that want maps."""
    front = nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), *layers, nn.Flatten()).eval()
    num = front(torch.zeros(1, *SHAPE)).shape[1]
    return nn.Sequential(*front, nn.Linear(num, 4))


class Written(nn.Module):
    """A function between a convolution and a linear layer, read off the forward pass."""

    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, 1, 1), nn.Linear(4 * 25, 4)
        self.slope = nn.Parameter(torch.tensor([0.1, 0.3, -0.2, 0.0]))
        self.scale, self.shift = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.function(self, self.conv(x)).flatten(1))


class LayerNormed(nn.Module):
    """Layer norms of a map and of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, 1, 1), nn.Linear(4 * 25, 8)
        self.map_norm, self.norm = nn.LayerNorm([4, 5, 5]), nn.LayerNorm(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.map_norm(self.conv(x)))
        return self.last(torch.relu(self.norm(self.fc(x.flatten(1)))))


PIECES = {
    "ReLU6": lambda: around(nn.ReLU6()),
    "Hardtanh": lambda: around(nn.Hardtanh(-0.3, 0.4)),
    "LeakyReLU": lambda: around(nn.LeakyReLU(0.1)),
    "LeakyReLU that turns": lambda: around(nn.LeakyReLU(-0.3)),
    "LeakyReLU steeper below": lambda: around(nn.LeakyReLU(1.7)),
    "PReLU": lambda: simply(nn.PReLU(4)),
    "Hardsigmoid": lambda: around(nn.Hardsigmoid()),
    "Hardsigmoid of ONNX": lambda: around(Hardsigmoid(0.7, 0.4)),
    "clip above": lambda: around(Clip(None, 0.2)),
    "sum over channels": lambda: Written(lambda net, z: torch.relu(z.sum(1, keepdim=True) + z)),
    "clip below": lambda: around(Clip(-0.1, None)),
    "clamp": lambda: Written(lambda net, z: z.clamp(min=-0.2, max=0.3)),
    "hardtanh": lambda: Written(lambda net, z: F.hardtanh(z, -0.2, 0.3)),
    "clamp at 0": lambda: Written(lambda net, z: torch.clamp(z, 0)),
    "leaky": lambda: Written(lambda net, z: F.leaky_relu(z, 0.2) + z),
    "prelu": lambda: Written(lambda net, z: F.prelu(z, net.slope)),
    "abs": lambda: Written(lambda net, z: torch.abs(z - 0.1)),
    "maximum": lambda: Written(lambda net, z: torch.maximum(z, 0.2 - z)),
    "clamp_min": lambda: Written(lambda net, z: z.clamp_min(-0.1)),
    "clamp_max": lambda: Written(lambda net, z: torch.clamp_max(z, 0.2)),
    "amax": lambda: Written(lambda net, z: z + torch.amax(z, dim=(2, 3), keepdim=True)),
    "minimum": lambda: Written(lambda net, z: torch.minimum(z * 2.0, z + 0.1)),
    "Max of ONNX": lambda: simply(GraphNetwork([nn.Tanh(), Max()], [(0,), (0, 1)])),
    "Min of ONNX": lambda: simply(GraphNetwork([nn.Tanh(), Min()], [(0,), (0, 1)])),
}
SMOOTH = {
    "SiLU": lambda: around(nn.SiLU()),
    "GELU": lambda: around(nn.GELU()),
    "GELU by tanh": lambda: around(nn.GELU("tanh")),
    "Mish": lambda: around(nn.Mish()),
    "Hardswish": lambda: around(nn.Hardswish()),
    "ELU": lambda: around(nn.ELU(0.7)),
    "CELU": lambda: around(nn.CELU(0.4)),
    "SELU": lambda: around(nn.SELU()),
    "ELU that falls": lambda: around(nn.ELU(-0.7)),
    "ELU that is flat": lambda: around(nn.ELU(0.0)),
    "CELU that is steep": lambda: around(nn.CELU(1e-20)),
    "Softsign": lambda: around(nn.Softsign()),
    "Softsign by hand": lambda: Written(lambda net, z: z / (1.0 + z.abs())),
    "Softplus": lambda: around(nn.Softplus(2.0)),
    "x sigmoid(x)": lambda: Written(lambda net, z: z * torch.sigmoid(z)),
    "erf": lambda: Written(lambda net, z: torch.erf(z * 0.9)),
    "GELU, half last": lambda: Written(lambda net, z: z * (torch.erf(z / ROOT) + 1.0) * 0.5),
    "GELU, half first": lambda: Written(lambda net, z: (z * 0.5) * (1.0 + torch.erf(z / ROOT))),
    "GELU, half inside": lambda: Written(
        lambda net, z: z * (0.5 * (1.0 + torch.erf(z * (1.0 / ROOT))))
    ),
    "GELU times 4": lambda: Written(lambda net, z: (2.0 * z) * (torch.erf(z / ROOT) + 1.0)),
}
ROOT = 2.0**0.5
BOXED = {
    "no GELU: another width": lambda: Written(lambda net, z: z * (torch.erf(z / 1.5) + 1.0)),
    "no GELU: another summand": lambda: Written(lambda net, z: z * (torch.erf(z / ROOT) + 0.9)),
    "no GELU: another value": lambda: Written(
        lambda net, z: (z + 0.01) * (torch.erf(z / ROOT) + 1.0)
    ),
    "product": lambda: Written(lambda net, z: z * torch.sigmoid(z + 0.3)),
    "channels weighed": lambda: Written(
        lambda net, z: z * torch.sigmoid(z.mean((2, 3), keepdim=True))
    ),
    "square": lambda: Written(lambda net, z: z * z),
    "to the power of 2": lambda: Written(lambda net, z: z**2 + torch.square(z)),
    "layer_norm": lambda: Written(lambda net, z: F.layer_norm(z, (4, 5, 5))),
    "group_norm": lambda: Written(lambda net, z: F.group_norm(z, 2, net.scale, net.shift, 1e-4)),
    "LayerNorm": LayerNormed,
    "GroupNorm": lambda: simply(nn.GroupNorm(2, 4), nn.ReLU()),
    "InstanceNorm": lambda: simply(nn.InstanceNorm2d(4, affine=True), nn.ReLU()),
    "clip the wrong way round": lambda: around(nn.ReLU(), Clip(0.3, -0.2)),
    "RMSNorm": lambda: simply(nn.RMSNorm([4, 5, 5], eps=1e-3), nn.ReLU()),
    "RMS by hand": lambda: Written(
        lambda net, z: z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-3)
    ),
    "RMS by hand, divided": lambda: Written(
        lambda net, z: z / (z.square().mean((2, 3), True) + 1e-3).sqrt()
    ),
    "length 1": lambda: Written(lambda net, z: F.normalize(z, dim=1)),
    "length 1 of ONNX": lambda: simply(UnitLength(-1).eval()),
    "softmax of channels": lambda: Written(lambda net, z: torch.softmax(z, 1)),
    "softmax of columns": lambda: simply(nn.Softmax(-1)),
    "softmax of all behind": lambda: simply(Flattened(nn.Softmax(-1), 2).eval()),
    "attention": lambda: Written(
        lambda net, z: torch.softmax(z.flatten(2) @ z.flatten(2).transpose(1, 2), -1) @ z.flatten(2)
    ),
    "quotient": lambda: Written(lambda net, z: z / (1.0 + z * z)),
    "reciprocal": lambda: Written(lambda net, z: 2.0 / (z.abs() + 0.5)),
    "root": lambda: Written(lambda net, z: torch.sqrt(torch.relu(z) + 0.1)),
    "cube": lambda: Written(lambda net, z: z**3 + torch.pow(z, 4)),
    "InstanceNorm without weights": lambda: simply(nn.InstanceNorm2d(4), nn.ReLU()),
}
WINDOWS = {
    "average rounded up": lambda: simply(nn.AvgPool2d(3, 2, ceil_mode=True), nn.ReLU()),
    "average, padded and rounded up": lambda: simply(nn.AvgPool2d(4, 3, 1, True, False)),
    "average, padding counted": lambda: simply(nn.AvgPool2d(4, 3, 1, True, True)),
    "max rounded up": lambda: simply(nn.MaxPool2d(4, 3, 1, ceil_mode=True)),
    "max, 3 with stride 2": lambda: simply(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
}
ENDINGS = {
    "log-softmax": lambda: nn.Sequential(*simply(nn.ReLU()), nn.LogSoftmax(1)),
    "softmax": lambda: nn.Sequential(*simply(nn.ReLU()), nn.Softmax(-1)),
    "nothing": lambda: Written(lambda net, z: F.dropout(z.clone(), 0.5, False)),
}
FAMILIES = {**PIECES, **SMOOTH, **BOXED, **WINDOWS, **ENDINGS}


def spread(build, seed: int = 0) -> nn.Module:
    """A seeded net whose inner values are large enough for every piece of a function."""
    net = seeded(build, seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(2.0)
            if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.InstanceNorm2d):
                for number in module.parameters():
                    number.normal_()
    return net


def deployments(net: nn.Module, x: Tensor) -> list[np.ndarray]:
    """Logits of one network computed in several ways."""
    with torch.no_grad():
        found = [net(x), torch.cat([net(one) for one in x.split(1)])]
        with flushing():
            found.append(net(x))
        found.append(net.double()(x.double()))
        net.float()
    return [logits.double().numpy() for logits in found]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_image_lies_below_a_bound(name: str) -> None:
    net = spread(FAMILIES[name], 1)
    generator = torch.Generator().manual_seed(0)
    for eps in (0.0, 0.02):
        x, low, high = boxes(SHAPE, eps, num=2, seed=5)
        labels = net(x).argmax(dim=1)
        network = read_network(net, SHAPE)
        corners = float64(low, high)
        bounds = {
            method: proofs.margins(network, *corners, labels.numpy(), method)
            for method in proofs.METHODS
        }
        values = network.bounds(*corners).values[-1]
        assert np.isfinite(values.low).all() or (name == "LayerNorm" and eps)
        assert (bounds["CROWN"] >= bounds["IBP"]).all()
        for number in range(8 if eps else 1):
            share = torch.rand(low.shape, generator=generator)
            points = low + (high - low) * (share if number % 2 else share.round())
            for logits in deployments(net, torch.minimum(torch.maximum(points, low), high)):
                assert not (values.low > logits).any() and not (logits > values.high).any()
                seen = margins(torch.from_numpy(logits), labels).numpy()
                for found in bounds.values():
                    assert (found <= seen + 1e-15).all()
        if eps == 0.0:  # says something
            exact = margins(net(x), labels).detach().numpy()
            assert (bounds["CROWN"] > exact - 1e-2 * max(1.0, np.abs(exact).max())).all()


@pytest.mark.parametrize("name", [*PIECES, "max, 3 with stride 2"])
def test_sums_of_relus_are_bounded_well_by_crown(name: str) -> None:
    """Backward passes go through to the image, which intervals do not."""
    net = spread(FAMILIES[name], 2)
    x, low, high = boxes(SHAPE, 0.1, num=3)
    network, labels = read_network(net, SHAPE), net(x).argmax(dim=1).numpy()
    ibp, crown = (
        proofs.margins(network, *float64(low, high), labels, method) for method in ("IBP", "CROWN")
    )
    assert (crown > ibp).any()


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (nn.LeakyReLU(1e-40), "flushed to zero"),
        (nn.Softplus(1.0, threshold=1.0), "a threshold below 20"),
        (nn.MaxPool2d(2, return_indices=True), "indices"),
        (nn.GroupNorm(2, 2, eps=0.0), "eps is 0"),
    ],
    ids=str,
)
def test_uses_that_are_not_known(net: nn.Module, text: str) -> None:
    model = nn.Sequential(net, nn.Flatten(), nn.Linear(50, 3)).eval()
    with pytest.raises(UncheckableError, match=text):
        read_network(model, SHAPE)
