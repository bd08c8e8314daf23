"""The names of architectures, for what must not import torch; a test compares them."""

from __future__ import annotations

NAMES = (
    "cnn-large",
    "cnn-small",
    "cnn5",
    "cnn7",
    "resnet18",
    "resnet8",
    "vgg16-bn",
    "wrn-28-4",
)
