"""Architectures by name: how ``[model]`` of a manifest becomes a network.

Only these networks are built from a name; no code of a submission is ever run. Every one takes
the arguments of :data:`ARGUMENTS` and keeps the model contract: images in [0, 1] in, logits out,
ReLU as modules, nothing in place, nothing that depends on the size of the batch.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from corobench.benchmark.errors import SubmissionError, nearest
from corobench.benchmark.submission.architectures.cnn import cnn5, cnn7, cnn_large, cnn_small
from corobench.benchmark.submission.architectures.parts import Normalize, split_normalize
from corobench.benchmark.submission.architectures.resnet import ResNet18
from corobench.benchmark.submission.architectures.resnet8 import ResNet8
from corobench.benchmark.submission.architectures.vgg import VGG16
from corobench.benchmark.submission.architectures.wide_resnet import WideResNet28x4

__all__ = [
    "ARCHITECTURES",
    "ARGUMENTS",
    "ArchitectureInfo",
    "Normalize",
    "build",
    "find_faults",
    "split_normalize",
]

Shape = tuple[int, int, int]

MAX_WIDTH = 4.0
MIN_STD = 1e-4
MAX_ABS_MEAN = 1e3

#: Arguments that every architecture takes: name -> what it is.
ARGUMENTS: dict[str, str] = {
    "width": f"multiplier of all hidden channels, above 0 and at most {MAX_WIDTH:g}; default 1.0",
    "mean": "one number per input channel, subtracted first; needs `std`",
    "std": "one positive number per input channel, divided by after `mean`; needs `mean`",
}


@dataclass(frozen=True)
class ArchitectureInfo:
    """One known network.

    Attributes:
        name: what a manifest calls it.
        title: for people.
        summary: its layers in one line, for people.
        min_size: smallest height and width of the input it is defined for.
        factory: (shape, num_classes, width) -> the network without normalisation.
    """

    name: str
    title: str
    summary: str
    min_size: int
    factory: Callable[[Shape, int, float], nn.Module]


ARCHITECTURES: dict[str, ArchitectureInfo] = {
    info.name: info
    for info in (
        ArchitectureInfo(
            name="cnn-small",
            title="CNN-small",
            summary="conv 16 and 32 (4x4, stride 2), FC 100, FC classes",
            min_size=4,
            factory=cnn_small,
        ),
        ArchitectureInfo(
            name="cnn-large",
            title="CNN-large",
            summary="conv 32, 32 (stride 2), 64, 64 (stride 2), FC 512, 512, classes",
            min_size=4,
            factory=cnn_large,
        ),
        ArchitectureInfo(
            name="cnn5",
            title="CNN5",
            summary="conv 64, 64 (stride 2), 128 (stride 2), FC 512, classes, with batch-norm",
            min_size=4,
            factory=cnn5,
        ),
        ArchitectureInfo(
            name="cnn7",
            title="CNN7",
            summary="conv 64, 64, 128 (stride 2), 128, 128, FC 512, classes, with batch-norm",
            min_size=4,
            factory=cnn7,
        ),
        ArchitectureInfo(
            name="vgg16-bn",
            title="VGG16-BN",
            summary="13 convolutions with batch-norm, 4 max-poolings, FC 256, 256, classes",
            min_size=16,
            factory=VGG16,
        ),
        ArchitectureInfo(
            name="wrn-28-4",
            title="WRN-28-4",
            summary="3 groups of 4 pre-activation residual blocks, 64 to 256 channels",
            min_size=4,
            factory=WideResNet28x4,
        ),
        ArchitectureInfo(
            name="resnet18",
            title="ResNet-18",
            summary="4 stages of 2 residual blocks, 64 to 512 channels, 3x3 stem",
            min_size=8,
            factory=ResNet18,
        ),
        ArchitectureInfo(
            name="resnet8",
            title="ResNet-8",
            summary="stem and 3 residual blocks, 16 to 64 channels, as in MLPerf Tiny",
            min_size=4,
            factory=ResNet8,
        ),
    )
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _channel_faults(key: str, value: object, channels: int) -> list[str]:
    """Faults of `mean` or `std`: one finite number per channel, in range."""
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) != channels
        or not all(_is_number(item) for item in value)
    ):
        return [
            f"argument `{key}`: expected a list of {channels} finite numbers, one per channel, "
            f"but found {value!r}"
        ]
    if key == "std" and min(value) < MIN_STD:
        return [f"argument `std`: expected numbers of at least {MIN_STD:g}, but found {value!r}"]
    if key == "mean" and max(abs(item) for item in value) > MAX_ABS_MEAN:
        return [f"argument `mean`: expected at most {MAX_ABS_MEAN:g} in size, but found {value!r}"]
    return []


def find_faults(
    name: str, input_shape: Shape, num_classes: int, arguments: Mapping[str, object]
) -> list[str]:
    """Every reason why :func:`build` would refuse, one line each; empty if it would not."""
    if name not in ARCHITECTURES:
        return [f"unknown architecture {name!r}: {nearest(name, ARCHITECTURES)}"]
    info = ARCHITECTURES[name]
    channels, height, breadth = input_shape
    faults = [
        f"unknown argument {key!r} of architecture {name!r}: {nearest(key, ARGUMENTS)}"
        for key in sorted(arguments)
        if key not in ARGUMENTS
    ]
    if channels < 1 or min(height, breadth) < info.min_size:
        faults.append(
            f"architecture {name!r} expects images of at least {info.min_size}x{info.min_size}, "
            f"but found {channels}x{height}x{breadth}"
        )
    if num_classes < 2:
        faults.append(f"expected at least 2 classes, but found {num_classes}")
    width = arguments.get("width", 1.0)
    if not isinstance(width, int | float) or not _is_number(width) or not 0 < width <= MAX_WIDTH:
        faults.append(
            f"argument `width`: expected a number above 0 and at most {MAX_WIDTH:g}, "
            f"but found {width!r}"
        )
    for key, other in (("mean", "std"), ("std", "mean")):
        if key in arguments:
            faults += _channel_faults(key, arguments[key], channels)
            if other not in arguments:
                faults.append(f"argument `{key}` needs `{other}` beside it, but found none")
    return faults


def build(
    name: str,
    input_shape: Shape,
    num_classes: int,
    arguments: Mapping[str, object] | None = None,
) -> nn.Module:
    """A freshly initialised network, in training mode, on the default device.

    With `mean` and `std` it is ``Sequential(normalize=Normalize, network=...)``, otherwise the
    network itself.

    Args:
        name: key of :data:`ARCHITECTURES`.
        input_shape: channels, height, width of one image.
        num_classes: logits per image.
        arguments: keys of :data:`ARGUMENTS`.

    Raises:
        SubmissionError: unknown name or argument (names the nearest known one), a value outside
            its range, or an image too small for the network; all faults at once.
    """
    arguments = {} if arguments is None else arguments
    faults = find_faults(name, input_shape, num_classes, arguments)
    if faults:
        raise SubmissionError(f"architecture {name}", faults)
    width = arguments.get("width", 1.0)
    assert isinstance(width, int | float)
    network = ARCHITECTURES[name].factory(input_shape, num_classes, float(width))
    mean, std = arguments.get("mean"), arguments.get("std")
    if isinstance(mean, Sequence) and isinstance(std, Sequence):
        normalize = Normalize(mean, std)
        return nn.Sequential(OrderedDict(normalize=normalize, network=network))
    return network
