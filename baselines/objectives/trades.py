"""TRADES: clean accuracy plus a price for changing one's mind in the ball (Zhang et al. 2019)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import Metric, Moment, Objective
from corobench.baselines.objectives.inner import ascend, fixed_statistics


class Trades(Objective):
    """CE(f(x), y) + beta * max KL(f(x) || f(x')) over the ball (their equation 5).

    Attributes:
        beta: weight of the divergence; 1/lambda of the paper.
        num_steps: ascent steps on the divergence.
        step_rate: step size as a share of epsilon.
    """

    name: ClassVar[str] = "trades"
    metric: ClassVar[Metric] = "robust"

    beta: Annotated[float, Field(gt=0.0)] = 6.0
    num_steps: Annotated[int, Field(ge=1)] = 10
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean cross-entropy plus beta times the mean divergence."""
        with torch.no_grad(), fixed_statistics(model):
            clean_BC = F.log_softmax(model(x_BCHW), dim=1)
        noise = torch.randn(x_BCHW.shape, generator=moment.generator, device=x_BCHW.device)
        # At x itself the divergence has no gradient, so the ascent starts a little beside it.
        start_BCHW = (x_BCHW + 1e-3 * noise).clamp(0.0, 1.0)
        adversarial_BCHW = ascend(
            model,
            x_BCHW,
            start_BCHW,
            lambda logits: divergence(clean_BC, F.log_softmax(logits, dim=1)).sum(),
            moment.epsilon,
            self.num_steps,
            self.step_rate * moment.epsilon,
        )
        logits_BC = model(x_BCHW)
        adversarial_BC = F.log_softmax(model(adversarial_BCHW), dim=1)
        price = divergence(F.log_softmax(logits_BC, dim=1), adversarial_BC).mean()
        return F.cross_entropy(logits_BC, labels_B) + self.beta * price


def divergence(log_p_BC: Tensor, log_q_BC: Tensor) -> Tensor:
    """KL(p || q) per image from log-probabilities.

    >>> divergence(torch.zeros(1, 1), torch.zeros(1, 1))
    tensor([0.])
    """
    return (log_p_BC.exp() * (log_p_BC - log_q_BC)).sum(dim=1)
