"""Small networks of torch for digits, one for each family; see `families.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class Applied(nn.Module):
    """A function of one tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def chain(*between: nn.Module) -> nn.Module:
    """A convolution, the layers, and a linear layer that fits."""
    body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), *between, nn.Flatten())
    num = body.eval()(torch.zeros(1, 1, 8, 8)).shape[1]
    return nn.Sequential(body, nn.Linear(num, 10))


def full(*between: nn.Module) -> nn.Module:
    """The same with a stride of 1."""
    body = nn.Sequential(nn.Conv2d(1, 6, 3, 1, 1), *between, nn.Flatten())
    num = body.eval()(torch.zeros(1, 1, 8, 8)).shape[1]
    return nn.Sequential(body, nn.Linear(num, 10))


class Residual(nn.Module):
    """Two convolutions and a shortcut: by values, by a convolution, or by padding (option A)."""

    def __init__(self, shortcut: str) -> None:
        super().__init__()
        out, stride = (6, 1) if shortcut == "identity" else (12, 2)
        self.shortcut = shortcut
        self.first, self.head = nn.Conv2d(1, 6, 3, 1, 1), nn.Linear(out, 10)
        self.a, self.b = nn.Conv2d(6, out, 3, stride, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.norm = nn.BatchNorm2d(out)
        self.side = nn.Conv2d(6, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        y = self.norm(self.b(F.relu(self.a(x))))
        if self.shortcut == "pad":
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3))
        elif self.shortcut == "concat":
            x = x[:, :, ::2, ::2]
            x = torch.cat([x, torch.zeros_like(x)], dim=1)
        elif self.shortcut == "convolution":
            x = self.side(x)
        return self.head(F.relu(y + x).mean([2, 3]))


class Shuffled(nn.Module):
    """Half of the channels pass by, then all are shuffled (ShuffleNet v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1, groups=4)
        self.c, self.head = nn.Conv2d(4, 4, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        kept, used = F.relu(self.a(x)).chunk(2, 1)
        x = torch.cat([kept, F.relu(self.c(self.b(used)))], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(x.mean([2, 3]))


class Inverted(nn.Module):
    """An inverted bottleneck with ReLU6 (MobileNet v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.m = nn.Sequential(
            *(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6()),
            *(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6()),
            *(nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)),
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(F.adaptive_avg_pool2d(x + self.m(x), 1).flatten(1))


class Squeezed(nn.Module):
    """Squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d, self.u = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        gate = torch.sigmoid(self.u(F.relu(self.d(F.adaptive_avg_pool2d(x, 1)))))
        return self.head((x * gate).flatten(1))


class Fire(nn.Module):
    """Two convolutions side by side (SqueezeNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.e1 = nn.Conv2d(1, 6, 3, 2, 1), nn.Conv2d(6, 4, 1)
        self.e3, self.head = nn.Conv2d(6, 4, 3, 1, 1), nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = torch.cat([F.relu(self.e1(x)), F.relu(self.e3(x))], 1)
        return F.adaptive_avg_pool2d(self.head(x), 1).flatten(1)


class Mixer(nn.Module):
    """Linear layers across places and across channels (MLP-Mixer)."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(1, 6, 2, 2)
        self.places, self.channels = nn.Linear(16, 16), nn.Linear(6, 6)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2)
        x = x + F.relu(self.places(x))
        x = x.transpose(1, 2)
        return self.head((x + F.relu(self.channels(x))).flatten(1))


class Attention(nn.Module):
    """One head of attention over places."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.qkv, self.head = nn.Conv2d(1, 6, 2, 2), nn.Linear(6, 18), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + torch.softmax(q @ k.transpose(1, 2), -1) @ v
        return self.head(x.flatten(1))


class Normed(nn.Module):
    """The normalisation written with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.3]))
        self.register_buffer("std", torch.tensor([0.4]))
        self.body = chain(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "conv-relu-linear": lambda: chain(nn.ReLU()),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
    "normalisation inside": Normed,
    "batch-norm": lambda: chain(nn.BatchNorm2d(8), nn.ReLU()),
    "batch-norm behind a ReLU": lambda: chain(nn.ReLU(), nn.BatchNorm2d(8)),
    "sigmoid": lambda: chain(nn.Sigmoid()),
    "tanh": lambda: chain(nn.Tanh()),
    "relu6": lambda: chain(nn.ReLU6()),
    "leaky-relu": lambda: chain(nn.LeakyReLU(0.1)),
    "prelu": lambda: chain(nn.PReLU(8)),
    "hardtanh": lambda: chain(nn.Hardtanh()),
    "elu": lambda: chain(nn.ELU()),
    "selu": lambda: chain(nn.SELU()),
    "celu": lambda: chain(nn.CELU(0.5)),
    "gelu": lambda: chain(nn.GELU()),
    "silu": lambda: chain(nn.SiLU()),
    "mish": lambda: chain(nn.Mish()),
    "hard-swish": lambda: chain(nn.Hardswish()),
    "softplus": lambda: chain(nn.Softplus()),
    "softsign": lambda: chain(nn.Softsign()),
    "elu that falls": lambda: chain(nn.ELU(-0.5)),
    "rms-norm": lambda: chain(
        nn.Flatten(),
        Applied(lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5)),
        nn.ReLU(),
    ),
    "rows of length 1": lambda: chain(Applied(lambda x: nn.functional.normalize(x, dim=1))),
    "softmax of channels": lambda: chain(nn.Softmax(1)),
    "cube": lambda: chain(Applied(lambda x: x**3)),
    "sum over channels": lambda: chain(Applied(lambda x: x + x.sum(1, keepdim=True)), nn.ReLU()),
    "range the wrong way round": lambda: chain(Applied(lambda x: x + x.clamp(0.5, 0.2)), nn.ReLU()),
    "square": lambda: chain(Applied(lambda x: x**2)),
    "layer-norm": lambda: chain(nn.Flatten(), nn.LayerNorm(128), nn.ReLU()),
    "group-norm": lambda: chain(nn.GroupNorm(2, 8), nn.ReLU()),
    "average pooling": lambda: full(nn.ReLU(), nn.AvgPool2d(2)),
    "average pooling, padded": lambda: full(nn.ReLU(), nn.AvgPool2d(3, 2, 1)),
    "max pooling": lambda: full(nn.ReLU(), nn.MaxPool2d(2)),
    "max pooling, overlapping": lambda: full(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "global average": lambda: chain(nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
    "global maximum": lambda: chain(nn.ReLU(), nn.AdaptiveMaxPool2d(1)),
    "residual, identity": lambda: Residual("identity"),
    "residual, convolution": lambda: Residual("convolution"),
    "residual, padded channels": lambda: Residual("pad"),
    "residual, channels of zeros": lambda: Residual("concat"),
    "channel shuffle": Shuffled,
    "pixel unshuffle": lambda: nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    ),
    "inverted bottleneck": Inverted,
    "squeeze and excite": Squeezed,
    "fire module": Fire,
    "depthwise, dilated": lambda: full(nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 2, 2, 6), nn.ReLU()),
    "mirrored border": lambda: full(nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(6, 4, 3, 2)),
    "upsampling": lambda: full(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, 4)),
    "mixer": Mixer,
    "attention": Attention,
    "log-softmax at the end": lambda: nn.Sequential(chain(nn.ReLU()), nn.LogSoftmax(1)),
    "transposed convolution": lambda: chain(nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2), nn.ReLU()),
}
"""Family -> makes a network with random weights."""
