"""ResNet-18 for small images (He et al. 2016, the CIFAR form: 3x3 stem, no max-pooling).

The names of the parameters are those of the usual public checkpoints of this form.
"""

from __future__ import annotations

from torch import Tensor, nn

from corobench.benchmark.submission.architectures.parts import conv_out, scaled

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
BLOCKS_PER_STAGE = 2


def _conv3x3(channels: int, out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where shapes differ."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, out, stride)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv3x3(out, out, 1)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x_BCHW)))
        inner = self.bn2(self.conv2(inner))
        maps: Tensor = self.relu2(inner + self.shortcut(x_BCHW))
        return maps


class ResNet18(nn.Module):
    """Four stages of two residual blocks, 64 to 512 channels, averaged over the whole map.

    Args:
        shape: channels, height, width of the input, each side at least 8.
        num_classes: logits.
        width: multiplier of all hidden channels.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        channels = scaled(STAGES[0][0], width)
        self.conv1 = _conv3x3(shape[0], channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        height, breadth = shape[1:]
        stages: list[nn.Sequential] = []
        for base, stride in STAGES:
            out = scaled(base, width)
            blocks = [ResidualBlock(channels, out, stride)]
            blocks += [ResidualBlock(out, out, 1) for _ in range(BLOCKS_PER_STAGE - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = out
            height, breadth = conv_out(height, 3, stride, 1), conv_out(breadth, 3, stride, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        # A fixed window over the whole map, not adaptive pooling: to the last bit what the
        # public checkpoints were trained with.
        self.pool = nn.AvgPool2d((height, breadth))
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(x_BCHW)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.linear(self.flatten(self.pool(maps)))
        return logits
