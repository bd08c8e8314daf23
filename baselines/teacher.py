"""The teacher of a distillation: the dense parent as it is before anything is removed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from corobench.baselines.features import Features
from corobench.baselines.identity import fingerprint


class Teacher:
    """A frozen copy of a network, in evaluation mode.

    Args:
        model: what to copy; pruning and training it afterwards changes nothing here.

    Attributes:
        fingerprint: of its weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self.fingerprint = fingerprint(self._model.state_dict())

    @torch.no_grad()
    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Logits, (B, num_classes), without gradient."""
        logits_BC: Tensor = self._model(x_BCHW)
        return logits_BC

    @torch.no_grad()
    def features(self, x_BCHW: Tensor) -> Tensor:
        """What its last layer reads, (B, F), without gradient."""
        features_BF: Tensor = Features(self._model)(x_BCHW)
        return features_BF
