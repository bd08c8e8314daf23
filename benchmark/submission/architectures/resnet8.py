"""ResNet-8, the image classifier of MLPerf Tiny for microcontrollers (Banbury et al. 2021).

The reference network of mlcommons/tiny, `resnet_v1_eembc` with 16 filters: 78,666 stored numbers
for 3x32x32 and ten classes, 96 kB in int8.
"""

from __future__ import annotations

from torch import Tensor, nn

from corobench.benchmark.submission.architectures.parts import conv_out, scaled

STACKS = ((16, 1), (32, 2), (64, 2))


class TinyBlock(nn.Module):
    """Two 3x3 convolutions with batch-norm; the shortcut is a bare 1x1 one where shapes differ."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = self.relu1(self.bn1(self.conv1(x_BCHW)))
        inner = self.bn2(self.conv2(inner))
        maps: Tensor = self.relu2(inner + self.shortcut(x_BCHW))
        return maps


class ResNet8(nn.Module):
    """A stem and three residual blocks of 16, 32 and 64 channels, averaged over the whole map.

    Every convolution has a bias, also before a batch-norm, and shortcuts have no batch-norm, as in
    the reference. Maps are padded on both sides; the reference pads those of stride 2 at the bottom
    and on the right only, so that its weights give other logits here.

    Args:
        shape: channels, height, width of the input, each side at least 4.
        num_classes: logits.
        width: multiplier of all hidden channels; 1.625 is the 26 filters of the later reference.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        channels = scaled(STACKS[0][0], width)
        self.conv1 = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        height, breadth = shape[1:]
        blocks: list[TinyBlock] = []
        for base, stride in STACKS:
            out = scaled(base, width)
            blocks.append(TinyBlock(channels, out, stride))
            channels = out
            height, breadth = conv_out(height, 3, stride, 1), conv_out(breadth, 3, stride, 1)
        self.stack1, self.stack2, self.stack3 = blocks
        self.pool = nn.AvgPool2d((height, breadth))
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation over the inputs and biases of 0, as in the reference."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(x_BCHW)))
        maps = self.stack3(self.stack2(self.stack1(maps)))
        logits: Tensor = self.linear(self.flatten(self.pool(maps)))
        return logits
