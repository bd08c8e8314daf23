"""CNN-small and CNN-large: the plain networks of the paper line (literature: HYDRA, CROWN-IBP).

CNN5 and CNN7 are those of certified training, with a batch-norm before every ReLU (Mao et al. 2024;
Shi et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from corobench.benchmark.submission.architectures.parts import conv_out, scaled

#: One convolution as (channels, kernel, stride); the padding is always 1.
Conv = tuple[int, int, int]

SMALL_CONVS: tuple[Conv, ...] = ((16, 4, 2), (32, 4, 2))
SMALL_HIDDEN = (100,)
LARGE_CONVS: tuple[Conv, ...] = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2))
LARGE_HIDDEN = (512, 512)
CNN5_CONVS: tuple[Conv, ...] = ((64, 3, 1), (64, 4, 2), (128, 4, 2))
CNN7_CONVS: tuple[Conv, ...] = ((64, 3, 1), (64, 3, 1), (128, 3, 2), (128, 3, 1), (128, 3, 1))
CERTIFIED_HIDDEN = 512


def _plain(
    shape: tuple[int, int, int],
    num_classes: int,
    width: float,
    convs: Sequence[Conv],
    hidden: Sequence[int],
) -> nn.Sequential:
    """Convolutions, each with a ReLU, then fully connected layers with ReLUs between them."""
    channels, height, breadth = shape
    layers: list[nn.Module] = []
    for base, kernel, stride in convs:
        out = scaled(base, width)
        layers += [nn.Conv2d(channels, out, kernel, stride=stride, padding=1), nn.ReLU()]
        channels = out
        height = conv_out(height, kernel, stride, 1)
        breadth = conv_out(breadth, kernel, stride, 1)
    layers.append(nn.Flatten())
    features = channels * height * breadth
    for base in hidden:
        layers += [nn.Linear(features, scaled(base, width)), nn.ReLU()]
        features = scaled(base, width)
    layers.append(nn.Linear(features, num_classes))
    return nn.Sequential(*layers)


def _with_batch_norm(
    shape: tuple[int, int, int], num_classes: int, width: float, convs: Sequence[Conv]
) -> nn.Sequential:
    """Convolutions and one hidden layer, each with a batch-norm and a ReLU.

    The places in the sequence are those of the public code, so that checkpoints fit by name.
    """
    channels, height, breadth = shape
    layers: list[nn.Module] = []
    for base, kernel, stride in convs:
        out = scaled(base, width)
        layers += [
            nn.Conv2d(channels, out, kernel, stride=stride, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        ]
        channels = out
        height = conv_out(height, kernel, stride, 1)
        breadth = conv_out(breadth, kernel, stride, 1)
    hidden = scaled(CERTIFIED_HIDDEN, width)
    layers += [
        nn.Flatten(),
        nn.Linear(channels * height * breadth, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    ]
    return nn.Sequential(*layers)


def cnn_small(shape: tuple[int, int, int], num_classes: int, width: float) -> nn.Sequential:
    """Two 4x4 convolutions of stride 2 (16, 32 channels), one hidden layer of 100.

    Args:
        shape: channels, height, width of the input, each side at least 4.
        num_classes: logits.
        width: multiplier of all hidden channels.
    """
    return _plain(shape, num_classes, width, SMALL_CONVS, SMALL_HIDDEN)


def cnn_large(shape: tuple[int, int, int], num_classes: int, width: float) -> nn.Sequential:
    """Four convolutions (32, 32, 64, 64 channels), two hidden layers of 512.

    Args:
        shape: channels, height, width of the input, each side at least 4.
        num_classes: logits.
        width: multiplier of all hidden channels.
    """
    return _plain(shape, num_classes, width, LARGE_CONVS, LARGE_HIDDEN)


def cnn5(shape: tuple[int, int, int], num_classes: int, width: float) -> nn.Sequential:
    """Three convolutions (64, 64, 128 channels), one hidden layer of 512, all with batch-norm.

    Args:
        shape: channels, height, width of the input, each side at least 4.
        num_classes: logits.
        width: multiplier of all hidden channels.
    """
    return _with_batch_norm(shape, num_classes, width, CNN5_CONVS)


def cnn7(shape: tuple[int, int, int], num_classes: int, width: float) -> nn.Sequential:
    """Five 3x3 convolutions (64, 64, 128, 128, 128 channels), one hidden layer of 512.

    Args:
        shape: channels, height, width of the input, each side at least 4.
        num_classes: logits.
        width: multiplier of all hidden channels.
    """
    return _with_batch_norm(shape, num_classes, width, CNN7_CONVS)
