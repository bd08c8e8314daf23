"""N-FGSM: one step from large noise, not clipped (de Jorge et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.objectives.base import AdversarialObjective, Moment
from corobench.baselines.objectives.inner import fixed_statistics


class NFgsm(AdversarialObjective):
    """One signed step from uniform noise wider than the ball, without projection.

    It costs two passes a batch and does not overfit its own attack as plain FGSM does. Images are
    clamped to [0, 1].

    Attributes:
        noise_rate: half-width of the noise as a multiple of epsilon.
        step_rate: step size as a multiple of epsilon.
    """

    name: ClassVar[str] = "n-fgsm"

    noise_rate: Annotated[float, Field(ge=0.0)] = 2.0
    step_rate: Annotated[float, Field(gt=0.0)] = 1.0

    def adversarial(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Images after the single step."""
        draw = torch.rand(x_BCHW.shape, generator=moment.generator, device=x_BCHW.device)
        noisy = x_BCHW + self.noise_rate * moment.epsilon * (2.0 * draw - 1.0)
        noisy = noisy.clamp(0.0, 1.0).requires_grad_(True)
        with fixed_statistics(model), torch.enable_grad():
            inner = F.cross_entropy(model(noisy), labels_B, reduction="sum")
            (gradient,) = torch.autograd.grad(inner, noisy)
        stepped = noisy.detach() + self.step_rate * moment.epsilon * gradient.sign()
        return stepped.clamp(0.0, 1.0)

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
