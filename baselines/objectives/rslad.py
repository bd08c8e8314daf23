"""RSLAD: the dense parent's answers as soft labels (Zi et al., ICCV 2021, arXiv 2108.07969)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import AdversarialObjective, Moment
from corobench.baselines.objectives.ibp import Share
from corobench.baselines.objectives.inner import divergence, farthest


class Rslad(AdversarialObjective):
    """alpha * KL(T(x) || S(x')) + (1 - alpha) * KL(T(x) || S(x)) (their RSLAD).

    T is the teacher, S the network in training, and x' the image in the ball where the first
    divergence is largest. No label takes part: the teacher, always asked about the clean image,
    is robust itself. The paper writes KL(S, T) for the divergence that its code computes, that of
    the teacher's distribution from the student's. The code also takes the mean over classes; here
    their sum is taken, so that the loss is larger by the number of classes.

    Attributes:
        alpha: weight of the adversarial divergence.
        num_steps: ascent steps on it.
        step_rate: step size as a share of epsilon.
    """

    name: ClassVar[str] = "rslad"
    needs_teacher: ClassVar[bool] = True

    alpha: Share = 5 / 6
    num_steps: Annotated[int, Field(ge=1)] = 10
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25

    def adversarial(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Images where the student is farthest from the teacher's answer."""
        return farthest(
            model,
            x_BCHW,
            moment.taught(x_BCHW),
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
        """Mean of both divergences, weighted."""
        taught_BC = moment.taught(x_BCHW)
        robust_BC = F.log_softmax(model(adversarial_BCHW), dim=1)
        clean_BC = F.log_softmax(model(x_BCHW), dim=1)
        robust = divergence(taught_BC, robust_BC).mean()
        return self.alpha * robust + (1.0 - self.alpha) * divergence(taught_BC, clean_BC).mean()
