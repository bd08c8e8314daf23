"""MTL-IBP: interval bounds and an attack as two tasks (De Palma et al., ICLR 2024)."""

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
    worst_case_cross_entropy,
)
from corobench.baselines.objectives.ibp import Share, at_rest, regularised
from corobench.baselines.objectives.inner import attacked


class MtlIbp(Objective):
    """(1 - share) * CE(adversarial) + share * CE(worst interval logits): their MTL-IBP loss.

    A small share gives networks that branch and bound proves and intervals do not. The attack keeps
    of each image the iterate of the largest loss, as the authors' code does. The running statistics
    of a batch-norm are those of adversarial images; `norm_batches` estimates them anew.

    Attributes:
        share: weight of the interval loss.
        attack_rate: radius of the attack, as a multiple of the training radius.
        num_steps: ascent steps per batch.
        step_rate: step size as a share of the attack's radius.
        regulariser: weight of Shi et al.'s two regularisers before the ramp, beside both losses and
            not a part of the share; it falls to 0.
    """

    name: ClassVar[str] = "mtl-ibp"
    metric: ClassVar[Metric] = "robust"
    needs_bounds: ClassVar[bool] = True

    share: Share = 0.01
    attack_rate: Annotated[float, Field(gt=0.0)] = 1.0
    num_steps: Annotated[int, Field(ge=1)] = 8
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25
    regulariser: Annotated[float, Field(ge=0.0)] = 0.0

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean mixture; at radius 0 it is the clean loss."""
        if moment.epsilon == 0.0:
            loss = F.cross_entropy(model(x_BCHW), labels_B)
            return at_rest(loss, self.regulariser, model, x_BCHW, labels_B, moment)
        radius = self.attack_rate * moment.epsilon
        adversarial_BCHW = attacked(
            model,
            x_BCHW,
            labels_B,
            radius,
            self.num_steps,
            self.step_rate,
            moment.generator,
            keeps_best=True,
        )
        corners = box(x_BCHW, moment.epsilon)
        margins_BC = moment.lower_margins(*corners, labels_B, "IBP")
        verified = self.share * worst_case_cross_entropy(margins_BC, labels_B)
        verified = regularised(verified, self.regulariser, model, corners, moment)
        robust = F.cross_entropy(model(adversarial_BCHW), labels_B)
        return (1.0 - self.share) * robust + verified
