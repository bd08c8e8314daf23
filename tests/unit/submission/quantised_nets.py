"""Small networks of twelve kinds, trained for seconds on digits and quantised by onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

NUM_STEPS, BATCH = 80, 48


def images() -> tuple[Tensor, Tensor]:
    """All digits and their labels: float32 (B, 1, 8, 8) in [0, 1], int64 (B,)."""
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    return x, torch.tensor(digits.target)


def _conv(channels: int, out: int, stride: int = 1, kernel: int = 3, groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    )


class Head(nn.Module):
    """The mean of each channel to the logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return found


class Residual(nn.Module):
    """``act(x + body(x))``, or without the activation behind the sum."""

    def __init__(self, body: nn.Module, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.act = body, act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act(x + self.body(x))
        return found


class Dense(nn.Module):
    """``[x, body(x)]`` side by side."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class Squeezed(nn.Module):
    """Channels weighed by what all of the map says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class Fire(nn.Module):
    """A squeeze, and two expansions side by side."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 4, 1)
        self.one, self.three = nn.Conv2d(4, out // 2, 1), nn.Conv2d(4, out // 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


def _basic(channels: int) -> nn.Module:
    return Residual(
        nn.Sequential(_conv(channels, channels), nn.ReLU(), _conv(channels, channels)), nn.ReLU()
    )


def _grouped(channels: int) -> nn.Module:
    body = nn.Sequential(
        _conv(channels, channels, kernel=1),
        nn.ReLU(),
        _conv(channels, channels, groups=4),
        nn.ReLU(),
        _conv(channels, channels, kernel=1),
    )
    return Residual(body, nn.ReLU())


def _inverted(channels: int, act: Callable[[], nn.Module], squeezed: bool = False) -> nn.Module:
    wide = 3 * channels
    inner: list[nn.Module] = [Squeezed(wide)] if squeezed else []
    return Residual(
        nn.Sequential(
            _conv(channels, wide, kernel=1),
            act(),
            _conv(wide, wide, groups=wide),
            act(),
            *inner,
            _conv(wide, channels, kernel=1),
        )
    )


def _before(channels: int) -> nn.Module:
    return Residual(
        nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )
    )


def _stem(channels: int, stride: int = 1) -> list[nn.Module]:
    return [_conv(1, channels, stride), nn.ReLU()]


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)
    ),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    ),
    "vgg": lambda: nn.Sequential(
        *_stem(12),
        _conv(12, 12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _conv(12, 24),
        nn.ReLU(),
        _conv(24, 24),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _conv(24, 24),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 10),
    ),
    "resnet": lambda: nn.Sequential(
        *_stem(12),
        *(_basic(12) for _ in range(4)),
        _conv(12, 24, 2),
        nn.ReLU(),
        *(_basic(24) for _ in range(4)),
        Head(24),
    ),
    "regnet": lambda: nn.Sequential(
        *_stem(16),
        *(_grouped(16) for _ in range(3)),
        _conv(16, 32, 2),
        nn.ReLU(),
        *(_grouped(32) for _ in range(3)),
        Head(32),
    ),
    "mobilenet": lambda: nn.Sequential(
        _conv(1, 12), nn.ReLU6(), *(_inverted(12, nn.ReLU6) for _ in range(5)), Head(12)
    ),
    "mobilenet3": lambda: nn.Sequential(
        _conv(1, 12),
        nn.Hardswish(),
        *(_inverted(12, nn.Hardswish, True) for _ in range(3)),
        Head(12),
    ),
    "squeezenet": lambda: nn.Sequential(
        *_stem(12), Fire(12, 16), Fire(16, 16), nn.MaxPool2d(2), Fire(16, 24), Head(24)
    ),
    "densenet": lambda: nn.Sequential(
        *_stem(8),
        *(Dense(nn.Sequential(_conv(8 + 6 * i, 6), nn.ReLU())) for i in range(5)),
        Head(38),
    ),
    "preact": lambda: nn.Sequential(
        *_stem(12), *(_before(12) for _ in range(5)), nn.BatchNorm2d(12), nn.ReLU(), Head(12)
    ),
    "efficientnet": lambda: nn.Sequential(
        _conv(1, 12), nn.SiLU(), *(_inverted(12, nn.SiLU, True) for _ in range(3)), Head(12)
    ),
    "allconv": lambda: nn.Sequential(
        *_stem(12),
        _conv(12, 16, 2),
        nn.LeakyReLU(0.1),
        _conv(16, 24, 2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(24, 10, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
}


@cache
def trained(name: str) -> nn.Module:
    """A network of :data:`NETS` that has learnt a little, in eval mode."""
    x, labels = images()
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETS[name]()
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(NUM_STEPS):
        chosen = torch.randint(0, len(x), (BATCH,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(network(x[chosen]), labels[chosen]).backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def export(network: nn.Module, path: Path) -> None:
    """An ONNX file with an open batch."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 8, 8),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )


def _settings() -> dict[str, dict[str, Any]]:
    from onnxruntime.quantization import QuantType

    eight, signed = QuantType.QUInt8, QuantType.QInt8
    return {
        "default": {},
        "per channel": {
            "per_channel": True,
            "activation_type": eight,
            "weight_type": signed,
            "reduce_range": True,
        },
        "symmetric": {
            "activation_type": signed,
            "weight_type": signed,
            "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
        },
    }


#: Names of the quantiser's settings.
SETTINGS = ("default", "per channel", "symmetric")


def quantise(source: Path, target: Path, setting: str) -> None:
    """The file as onnxruntime's own quantiser writes it (QDQ), calibrated on 64 digits."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            x, _ = images()
            self.parts = iter([{"x": np.asarray(part)} for part in x[:64].split(16)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.parts, None)

    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, **_settings()[setting]
        )
    finally:
        logging.disable(logging.NOTSET)
