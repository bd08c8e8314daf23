"""WRN-28-4 (Zagoruyko and Komodakis 2016): pre-activation residual blocks, four times as wide.

The names of the parameters are those of the usual public checkpoints of this network.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from corobench.benchmark.submission.architectures.parts import conv_out, scaled

DEPTH = 28
WIDEN = 4
BLOCKS_PER_GROUP = (DEPTH - 4) // 6
GROUPS = ((16 * WIDEN, 1), (32 * WIDEN, 2), (64 * WIDEN, 2))
STEM = 16


class WideBlock(nn.Module):
    """BN, ReLU, convolution, twice; the shortcut is projected where the channels differ."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.projects = channels != out or stride != 1
        if self.projects:
            self.convShortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x_BCHW))
        inner = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        maps: Tensor = inner + (self.convShortcut(active) if self.projects else x_BCHW)
        return maps


class WideGroup(nn.Module):
    """Blocks of one resolution; the first one changes channels and resolution."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        blocks = [WideBlock(channels, out, stride)]
        blocks += [WideBlock(out, out, 1) for _ in range(BLOCKS_PER_GROUP - 1)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps: Tensor = self.layer(x_BCHW)
        return maps


class WideResNet28x4(nn.Module):
    """A 3x3 stem, three groups of four wide blocks, averaged over the whole map.

    Args:
        shape: channels, height, width of the input, each side at least 4.
        num_classes: logits.
        width: multiplier of all hidden channels, on top of the network's own factor of 4. The
            stem keeps its 16 channels from 1 on, so that 2.5 is the usual WRN-28-10.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        channels = scaled(STEM, min(width, 1.0))
        self.conv1 = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        height, breadth = shape[1:]
        groups: list[WideGroup] = []
        for base, stride in GROUPS:
            out = scaled(base, width)
            groups.append(WideGroup(channels, out, stride))
            channels = out
            height, breadth = conv_out(height, 3, stride, 1), conv_out(breadth, 3, stride, 1)
        self.block1, self.block2, self.block3 = groups
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d((height, breadth))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation over the outputs, as the authors of the network do."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = self.block3(self.block2(self.block1(self.conv1(x_BCHW))))
        logits: Tensor = self.fc(self.flatten(self.pool(self.relu(self.bn1(maps)))))
        return logits
