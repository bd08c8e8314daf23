"""CROWN-IBP training (Zhang et al., ICLR 2020, arXiv 1906.06316)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from corobench.baselines.objectives.base import Moment, box, worst_case_cross_entropy
from corobench.baselines.objectives.ibp import Ibp, Share
from corobench.baselines.schedules import between


class CrownIbp(Ibp):
    """IBP's mixture on margins beta * CROWN-IBP + (1 - beta) * IBP.

    The tighter linear bound guides the ramp, where plain intervals are unstable; beta then
    falls, and with it the cost. Both parts are lower bounds, so their mixture is one too.

    Attributes:
        beta_start: weight of the CROWN-IBP margins before the ramp.
        beta_end: and after it; 0 skips the backward pass altogether.
        fusion: bound the loss itself by one row of the backward pass instead of one row for each
            class (Xu et al. 2020, on loss fusion), about five times as fast on ten classes; the
            mixture is then one of losses.
    """

    name: ClassVar[str] = "crown-ibp"

    beta_start: Share = 1.0
    beta_end: Share = 0.0
    fusion: bool = False

    def verified(self, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean upper bound of the cross-entropy over the boxes."""
        beta = between(self.beta_start, self.beta_end, moment.progress)
        if not self.fusion or beta == 0.0:
            return super().verified(x_BCHW, labels_B, moment)
        corners = box(x_BCHW, moment.epsilon)
        fused = moment.upper_losses(*corners, labels_B).mean()
        if beta == 1.0:
            return fused
        margins_BC = moment.lower_margins(*corners, labels_B, "IBP")
        return beta * fused + (1.0 - beta) * worst_case_cross_entropy(margins_BC, labels_B)

    def margins(self, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mixed lower bounds of the margins, (B, num_classes)."""
        beta = between(self.beta_start, self.beta_end, moment.progress)
        corners = box(x_BCHW, moment.epsilon)
        if beta == 0.0:
            return moment.lower_margins(*corners, labels_B, "IBP")
        crown_BC = moment.lower_margins(*corners, labels_B, "CROWN-IBP")
        if beta == 1.0:
            return crown_BC
        return beta * crown_BC + (1.0 - beta) * moment.lower_margins(*corners, labels_B, "IBP")
