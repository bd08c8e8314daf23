"""AD-CERT: distillation at adversarial images beside a bound of the loss (arXiv 2606.31653)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import Moment
from corobench.baselines.objectives.crown_ibp import CrownIbp
from corobench.baselines.objectives.inner import divergence, farthest


class AdCert(CrownIbp):
    """kappa * KL(T(x) || S(x')) + (1 - kappa) * CE(worst logits that the bounds allow).

    AD-CERT is w * CE(interval logits) + (1 - w) * KL(T(x) || S(x')), with w = 1 - kappa here: the
    clean loss of IBP (Gowal et al. 2018) gives way to a divergence from the teacher T
    of the network in training S, at an image x' of the ball. Here x' is the one where this
    divergence is largest. kappa and epsilon move together over the ramp. The bounds are intervals,
    as in the paper, or, with `beta_end` above 0, those of CROWN-IBP.

    Attributes:
        num_steps: ascent steps on the divergence.
        step_rate: step size as a share of epsilon.
    """

    name: ClassVar[str] = "ad-cert"
    needs_teacher: ClassVar[bool] = True

    beta_start: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    num_steps: Annotated[int, Field(ge=1)] = 8
    step_rate: Annotated[float, Field(gt=0.0)] = 0.25

    def unverified(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Mean divergence from the teacher's answers, at the images where it is largest."""
        taught_BC = moment.taught(x_BCHW)
        adversarial_BCHW = farthest(
            model,
            x_BCHW,
            taught_BC,
            moment.epsilon,
            self.num_steps,
            self.step_rate,
            moment.generator,
        )
        return divergence(taught_BC, F.log_softmax(model(adversarial_BCHW), dim=1)).mean()
