"""Interval bound propagation training (Gowal et al. 2018, arXiv 1810.12715)."""

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
from corobench.baselines.objectives.regularisers import explosion, imbalance
from corobench.baselines.schedules import between

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Ibp(Objective):
    """kappa * CE(clean) + (1 - kappa) * CE(worst interval logits) (their equation 12).

    kappa and epsilon move together over the ramp: from the clean loss to the mixture.

    Attributes:
        kappa_start: weight of the clean loss before the ramp.
        kappa_end: and after it.
        regulariser: weight of Shi et al.'s two regularisers before the ramp; it falls to 0 with it.
    """

    name: ClassVar[str] = "ibp"
    metric: ClassVar[Metric] = "bound"
    needs_bounds: ClassVar[bool] = True

    kappa_start: Share = 1.0
    kappa_end: Share = 0.5
    regulariser: Annotated[float, Field(ge=0.0)] = 0.0

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean mixture; before the ramp begins it is the clean loss and costs no bound."""
        kappa = between(self.kappa_start, self.kappa_end, moment.progress)
        is_regularised = self.regulariser > 0.0 and moment.progress < 1.0
        if moment.epsilon == 0.0 or (kappa == 1.0 and not is_regularised):
            return self.unverified(model, x_BCHW, labels_B, moment)
        verified = (1.0 - kappa) * self.verified(x_BCHW, labels_B, moment)
        corners = box(x_BCHW, moment.epsilon)
        verified = regularised(verified, self.regulariser, corners, moment)
        if kappa == 0.0:
            return verified
        return kappa * self.unverified(model, x_BCHW, labels_B, moment) + verified

    def unverified(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """The part without bounds: the mean clean loss."""
        return F.cross_entropy(model(x_BCHW), labels_B)

    def verified(self, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean upper bound of the cross-entropy over the boxes."""
        return worst_case_cross_entropy(self.margins(x_BCHW, labels_B, moment), labels_B)

    def margins(self, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Lower bounds of the margins over the box, (B, num_classes)."""
        return moment.lower_margins(*box(x_BCHW, moment.epsilon), labels_B, "IBP")


def regularised(
    loss: Tensor, weight: float, corners: tuple[Tensor, Tensor], moment: Moment
) -> Tensor:
    """A loss whose bounds were just computed, with both regularisers until the ramp ends.

    Args:
        loss: scalar.
        weight: before the ramp.
        corners: of the boxes that were bounded.
        moment: its progress takes the weight to 0.
    """
    rest = weight * (1.0 - moment.progress)
    if rest == 0.0:
        return loss
    bounds = moment.relu_inputs()
    return loss + rest * (explosion(corners[1] - corners[0], bounds) + imbalance(bounds))


def interval_loss(
    corners: tuple[Tensor, Tensor], labels_B: Tensor, regulariser: float, moment: Moment
) -> Tensor:
    """Cross-entropy at the worst interval logits of boxes, with both regularisers.

    Args:
        corners: of the boxes.
        labels_B: int64 classes.
        regulariser: weight before the ramp.
        moment: bounds, and the progress of the ramp.
    """
    margins_BC = moment.lower_margins(*corners, labels_B, "IBP")
    loss = worst_case_cross_entropy(margins_BC, labels_B)
    return regularised(loss, regulariser, corners, moment)
