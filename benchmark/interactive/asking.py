"""What `certify` and `attack` share: a network that keeps the contract, and the right images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from corobench.benchmark.errors import ContractError
from corobench.benchmark.interactive import networks
from corobench.benchmark.interactive.arguments import images_of, labels_of
from corobench.benchmark.referee.judge import is_wrong, predict_one_by_one
from corobench.benchmark.submission import check_contract

if TYPE_CHECKING:
    from corobench.benchmark.interactive.arguments import Images, Labels


@dataclass(frozen=True, eq=False)
class Asked:
    """A network and the images that it is asked about.

    Attributes:
        model: the measured copy.
        x_BCHW: float32 in [0, 1], on the model's device.
        y_B: int64.
        num_classes: logits.
        right_B: bool, right without an attack, each image alone.
    """

    model: nn.Module
    x_BCHW: Tensor
    y_B: Tensor
    num_classes: int
    right_B: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.x_BCHW.shape[1:]
        return channels, height, width


def asked(model: object, x: Images, y: Labels) -> Asked:
    """Check everything, and predict.

    Raises:
        ConfigError: images or labels are not what they must be.
        ContractError: the clause that the model breaks.
    """
    network = networks.require_network(model)
    images = images_of(x, networks.device_of(network))
    copied = networks.measured_copy(network, images.shape[1:])
    num_classes = _num_classes(copied, images[:1], networks.name_of(network))
    labels = labels_of(y, len(images), num_classes, images.device)
    check_contract(copied, images, num_classes, networks.name_of(network))
    right_B = ~is_wrong(predict_one_by_one(copied, images), labels)
    return Asked(copied, images, labels, num_classes, right_B)


def _num_classes(model: nn.Module, image: Tensor, name: str) -> int:
    """How many logits a network gives; what is no row of them breaks the contract."""
    try:
        with torch.no_grad():
            found = model(image)
    except Exception as error:  # a stranger's network raises anything
        lines = str(error).strip().splitlines() or [""]
        fault = f"contract clause runs: {type(error).__name__}: {lines[0]}"
        raise ContractError(name, [fault[:400]]) from error
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] < 2:
        what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        fault = f"contract clause output-shape: expected logits (B, classes), but found {what}"
        raise ContractError(name, [fault])
    return int(found.shape[1])
