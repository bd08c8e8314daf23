"""SABR: small boxes around adversarial images (Mueller et al., ICLR 2023)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import (
    Metric,
    Moment,
    Objective,
    box,
)
from corobench.baselines.objectives.ibp import interval_loss
from corobench.baselines.objectives.inner import attacked


class Sabr(Objective):
    """CE of the worst interval logits over a box of share * epsilon around an adversarial image.

    The attack stays in the ball of (1 - share) * epsilon, so that the box lies in the ball (their
    section 3). The authors also shrink intervals at each ReLU; that is not done here.

    Attributes:
        share: of the radius that the box has; 1 is IBP at full weight, 0 adversarial training.
        num_steps: ascent steps per batch.
        step_rate: step size as a share of the attack's radius.
        regulariser: weight of Shi et al.'s two regularisers before the ramp; it falls to 0.
    """

    name: ClassVar[str] = "sabr"
    metric: ClassVar[Metric] = "robust"
    needs_bounds: ClassVar[bool] = True

    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    num_steps: Annotated[int, Field(ge=1)] = 8
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25
    regulariser: Annotated[float, Field(ge=0.0)] = 0.0

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean over the small boxes; at radius 0 it is the clean loss."""
        if moment.epsilon == 0.0:
            return F.cross_entropy(model(x_BCHW), labels_B)
        radius = (1.0 - self.share) * moment.epsilon
        centre_BCHW = x_BCHW
        if radius > 0.0:
            centre_BCHW = attacked(
                model, x_BCHW, labels_B, radius, self.num_steps, self.step_rate, moment.generator
            )
        # The running statistics of a batch-norm are those of clean images.
        model(x_BCHW)
        corners = box(centre_BCHW, self.share * moment.epsilon)
        return interval_loss(corners, labels_B, self.regulariser, moment)
