"""Fast adversarial training: one large step from a random start (Wong et al., ICLR 2020)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import AdversarialObjective, Moment
from corobench.baselines.objectives.inner import attacked


class FastAt(AdversarialObjective):
    """FGSM from a uniform start with a step of 1.25 epsilon, projected.

    It can overfit its own attack; the quick robust measure of each epoch, a multi-step attack,
    shows that and selects an epoch before it.

    Attributes:
        step_rate: step size as a share of epsilon; above 1 on purpose.
    """

    name: ClassVar[str] = "fast-at"

    step_rate: Annotated[float, Field(gt=0.0)] = 1.25

    def adversarial(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Images after the single step."""
        return attacked(
            model, x_BCHW, labels_B, moment.epsilon, 1, self.step_rate, moment.generator
        )

    def outer(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        adversarial_BCHW: Tensor,
        labels_B: Tensor,
        moment: Moment,
    ) -> Tensor:
        """Mean cross-entropy after the single step."""
        return F.cross_entropy(model(adversarial_BCHW), labels_B)
