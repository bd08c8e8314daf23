"""TRADES: clean accuracy plus a price for changing one's mind in the ball (Zhang et al. 2019)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import AdversarialObjective, Moment
from corobench.baselines.objectives.inner import divergence, farthest, fixed_statistics


class Trades(AdversarialObjective):
    """CE(f(x), y) + beta * max KL(f(x) || f(x')) over the ball.

    Attributes:
        beta: weight of the divergence; 1/lambda of the paper.
        num_steps: ascent steps on the divergence.
        step_rate: step size as a share of epsilon.
    """

    name: ClassVar[str] = "trades"

    beta: Annotated[float, Field(gt=0.0)] = 6.0
    num_steps: Annotated[int, Field(ge=1)] = 10
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25

    def adversarial(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Images where the answer is farthest from that to the clean ones."""
        with torch.no_grad(), fixed_statistics(model):
            clean_BC = F.log_softmax(model(x_BCHW), dim=1)
        return farthest(
            model,
            x_BCHW,
            clean_BC,
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
        """Mean cross-entropy plus beta times the mean divergence."""
        logits_BC = model(x_BCHW)
        adversarial_BC = F.log_softmax(model(adversarial_BCHW), dim=1)
        price = divergence(F.log_softmax(logits_BC, dim=1), adversarial_BC).mean()
        return F.cross_entropy(logits_BC, labels_B) + self.beta * price
