"""Adversarial training with projected gradient descent (Madry et al., ICLR 2018)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import AdversarialObjective, Moment
from corobench.baselines.objectives.inner import attacked


class PgdAt(AdversarialObjective):
    """min over weights of the loss at the worst image PGD finds.

    Attributes:
        num_steps: ascent steps per batch.
        step_rate: step size as a share of epsilon.
        clean_rate: weight of the clean loss beside the adversarial one, in [0, 1); Madry's is 0.
        label_smoothing: share of the target spread evenly over all classes, in the outer loss.
    """

    name: ClassVar[str] = "pgd-at"

    num_steps: Annotated[int, Field(ge=1)] = 7
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25
    clean_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    def adversarial(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Images after the ascent of the cross-entropy."""
        return attacked(
            model,
            x_BCHW,
            labels_B,
            moment.epsilon,
            self.num_steps,
            self.step_rate,
            moment.generator,
        )

    def outer(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        adversarial_BCHW: Tensor,
        labels_B: Tensor,
        moment: Moment,
    ) -> Tensor:
        """Mean cross-entropy at the adversarial images."""
        smoothing = self.label_smoothing
        logits = model(adversarial_BCHW)
        loss = F.cross_entropy(logits, labels_B, label_smoothing=smoothing)
        if self.clean_rate > 0.0:
            clean = F.cross_entropy(model(x_BCHW), labels_B, label_smoothing=smoothing)
            loss = self.clean_rate * clean + (1.0 - self.clean_rate) * loss
        return loss
