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
from corobench.benchmark.submission.architectures import split_normalize

Share = Annotated[float, Field(ge=0.0, le=1.0)]

REST = 1e-5
"""Radius of the boxes that are regularised while the training radius is 0."""


class Ibp(Objective):
    """kappa * CE(clean) + (1 - kappa) * CE(worst interval logits): their training objective.

    kappa and epsilon move together over the ramp: from the clean loss to the mixture.

    Attributes:
        kappa_start: weight of the clean loss before the ramp.
        kappa_end: and after it.
        regulariser: weight of Shi et al.'s two regularisers before the ramp and while warming up,
            there over boxes of `REST`; it falls to 0 with the ramp.
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
            loss = self.unverified(model, x_BCHW, labels_B, moment)
            return at_rest(loss, self.regulariser, model, x_BCHW, labels_B, moment)
        verified = (1.0 - kappa) * self.verified(x_BCHW, labels_B, moment)
        corners = box(x_BCHW, moment.epsilon)
        verified = regularised(verified, self.regulariser, model, corners, moment)
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
    loss: Tensor,
    weight: float,
    model: nn.Module,
    corners: tuple[Tensor, Tensor],
    moment: Moment,
) -> Tensor:
    """A loss whose bounds were just computed, with both regularisers until the ramp ends.

    Args:
        loss: scalar.
        weight: before the ramp.
        model: its normalisation, where it has one, widens what its first layer sees.
        corners: of the boxes that were bounded.
        moment: its progress takes the weight to 0.
    """
    rest = weight * (1.0 - moment.progress)
    if rest == 0.0:
        return loss
    bounds = moment.relu_inputs()
    width_BCHW = corners[1] - corners[0]
    normalize, _ = split_normalize(model)
    if normalize is not None:
        width_BCHW = width_BCHW / normalize.std.view(1, -1, 1, 1)
    return loss + rest * (explosion(width_BCHW, bounds) + imbalance(bounds))


def at_rest(
    loss: Tensor,
    weight: float,
    model: nn.Module,
    x_BCHW: Tensor,
    labels_B: Tensor,
    moment: Moment,
) -> Tensor:
    """A loss without bounds, while the radius is 0, with both regularisers over tiny boxes.

    Intervals are linear in a small radius, and what the regularisers judge are ratios; the authors
    likewise have them act from the first step on.

    Args:
        loss: scalar.
        weight: before the ramp; 0 computes no bounds.
        model: in training.
        x_BCHW: images in [0, 1].
        labels_B: int64 classes.
        moment: bounds, and the progress of the ramp.
    """
    if weight == 0.0 or moment.progress >= 1.0:
        return loss
    corners = box(x_BCHW, REST)
    moment.lower_margins(*corners, labels_B, "IBP")
    return regularised(loss, weight, model, corners, moment)
