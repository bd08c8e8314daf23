"""VGG16 with batch normalisation, in the small-image form of the paper line."""

from __future__ import annotations

from torch import Tensor, nn

from corobench.benchmark.submission.architectures.parts import scaled

#: Channels of the 3x3 convolutions, one group between two max-poolings.
GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
HIDDEN = 256
NUM_POOLINGS = len(GROUPS) - 1


class VGG16(nn.Module):
    """13 convolutions, four 2x2 max-poolings between them, three fully connected layers.

    What is left of the image (2x2 for 32x32) is average-pooled to 2x2 where it divides evenly,
    else to 1x1, before the first fully connected layer.

    Args:
        shape: channels, height, width of the input, each side at least 16.
        num_classes: logits.
        width: multiplier of all hidden channels.
    """

    def __init__(self, shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        channels = shape[0]
        layers: list[nn.Module] = []
        for index, group in enumerate(GROUPS):
            if index > 0:
                layers.append(nn.MaxPool2d(2))
            for base in group:
                out = scaled(base, width)
                layers += [
                    nn.Conv2d(channels, out, 3, padding=1, bias=False),
                    nn.BatchNorm2d(out),
                    nn.ReLU(),
                ]
                channels = out
        self.features = nn.Sequential(*layers)
        remaining = [size // 2**NUM_POOLINGS for size in shape[1:]]
        pooled = [2 if size % 2 == 0 else 1 for size in remaining]
        kernel = (remaining[0] // pooled[0], remaining[1] // pooled[1])
        self.pool: nn.Module = nn.Identity() if kernel == (1, 1) else nn.AvgPool2d(kernel)
        self.flatten = nn.Flatten()
        hidden = scaled(HIDDEN, width)
        self.classifier = nn.Sequential(
            nn.Linear(channels * pooled[0] * pooled[1], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.pool(self.features(x_BCHW))))
        return logits
