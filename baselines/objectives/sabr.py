"""SABR: small boxes around adversarial images (Mueller et al., ICLR 2023)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
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
from corobench.baselines.objectives.ibp import at_rest, regularised
from corobench.baselines.objectives.inner import attacked
from corobench.baselines.settings import LATER


class Sabr(Objective):
    """CE of the worst interval logits over a box of share * epsilon around an adversarial image.

    The attack searches the whole ball and keeps the iterate of the largest loss. The centre of the
    box is moved from there just so far that the box lies in the ball and in [0, 1]. Batch-norm in
    the bounds has the statistics of the centres; its running ones are those of clean images.

    Attributes:
        share: of the radius that the box has; 1 is IBP at full weight.
        relu_share: what is left of the upper bound behind a ReLU that may be on or off: the
            authors' ReLU shrinkage, 0.8 for 2/255 in their settings. Below 1 it is no bound.
        num_steps: ascent steps per batch.
        step_rate: step size as a share of epsilon.
        regulariser: weight of Shi et al.'s two regularisers before the ramp; it falls to 0.
    """

    name: ClassVar[str] = "sabr"
    metric: ClassVar[Metric] = "robust"
    needs_bounds: ClassVar[bool] = True

    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    relu_share: Annotated[float, Field(gt=0.0, le=1.0), LATER] = 1.0
    num_steps: Annotated[int, Field(ge=1)] = 8
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25
    regulariser: Annotated[float, Field(ge=0.0)] = 0.0

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean over the small boxes; at radius 0 it is the clean loss."""
        if moment.epsilon == 0.0:
            loss = F.cross_entropy(model(x_BCHW), labels_B)
            return at_rest(loss, self.regulariser, model, x_BCHW, labels_B, moment)
        corners = box(x_BCHW, moment.epsilon)
        if self.share < 1.0:
            found_BCHW = attacked(
                model,
                x_BCHW,
                labels_B,
                moment.epsilon,
                self.num_steps,
                self.step_rate,
                moment.generator,
                keeps_best=True,
            )
            corners = small_box(found_BCHW, corners, self.share)
        with torch.no_grad():
            model(x_BCHW)  # running statistics of clean images
        margins_BC = self._margins(corners, labels_B, moment)
        loss = worst_case_cross_entropy(margins_BC, labels_B)
        return regularised(loss, self.regulariser, model, corners, moment)

    def _margins(self, corners: tuple[Tensor, Tensor], labels_B: Tensor, moment: Moment) -> Tensor:
        if self.relu_share == 1.0:
            return moment.lower_margins(*corners, labels_B, "IBP")
        assert moment.shrunk_margins is not None
        return moment.shrunk_margins(*corners, labels_B, self.relu_share)


def small_box(
    x_BCHW: Tensor, corners: tuple[Tensor, Tensor], share: float
) -> tuple[Tensor, Tensor]:
    """Corners of the box of `share` of a box's sides that lies in it, as near to a point as can be.

    >>> low, high = torch.zeros(1), torch.ones(1)
    >>> small_box(torch.ones(1), (low, high), 0.5)
    (tensor([0.5000]), tensor([1.]))
    """
    half_BCHW = share * (corners[1] - corners[0]) / 2
    centre_BCHW = x_BCHW.clamp(corners[0] + half_BCHW, corners[1] - half_BCHW)
    return centre_BCHW - half_BCHW, centre_BCHW + half_BCHW
