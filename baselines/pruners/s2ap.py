"""S2AP: HYDRA's search where the scores are at their worst (Piras et al., arXiv 2510.18381)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from corobench.baselines.pruners.hydra import Gradients, GradientsAt, Hydra
from corobench.baselines.weight_perturbation import uphill


class S2ap(Hydra):
    """min over scores s of max over z of the robust loss under the mask of s + z.

    In every layer the norm of z is at most gamma times that of s. As in their algorithm, z is
    one step along the gradient at s, and s takes the gradient at s + z. Each batch costs two
    losses; an objective that attacks attacks twice, each time the network of the present mask.

    Attributes:
        gamma: largest norm of the perturbation, as a share of the norm of the layer's scores.
    """

    name: ClassVar[str] = "s2ap"
    criterion: ClassVar[str] = "least-importance-score (perturbed search)"

    gamma: Annotated[float, Field(ge=0.0)] = 0.01

    def gradients(self, scores: Mapping[str, Tensor], at: GradientsAt) -> Gradients:
        """Gradients at the worst scores nearby."""
        return at(perturbed(scores, at(scores).of_scores, self.gamma))


@torch.no_grad()
def perturbed(
    scores: Mapping[str, Tensor], gradients: Mapping[str, Tensor], gamma: float
) -> dict[str, Tensor]:
    """Scores of each layer, moved along its gradient by `gamma` times their norm.

    Args:
        scores: by layer.
        gradients: of the loss, by layer; where one is 0, its scores stay.
        gamma: as a share of the norm.
    """
    return {name: score + uphill(score, gradients[name], gamma) for name, score in scores.items()}
