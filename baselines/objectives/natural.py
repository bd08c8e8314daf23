"""Natural training: cross-entropy on clean images, robust to nothing."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines.objectives.base import Metric, Moment, Objective


class Natural(Objective):
    """Cross-entropy on clean images: the objective of the mismatched arm's fine-tuning."""

    name: ClassVar[str] = "natural"
    metric: ClassVar[Metric] = "clean"

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean cross-entropy; the moment plays no part."""
        return F.cross_entropy(model(x_BCHW), labels_B)
