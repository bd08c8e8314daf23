"""MixTrain: verifiable training on a few images of each batch (Wang et al. 2018)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
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
from corobench.baselines.objectives.ibp import Share


class MixTrain(Objective):
    """CE(clean) on the batch, plus a weighted verified loss on a random k of it.

    The settings are those of the paper's line of code: a step is verified with probability .75,
    on 10 images, with weight 50. Their bounds were symbolic intervals; ours are CROWN-IBP's
    through auto_LiRPA, which are linear relaxations of the same kind.

    Attributes:
        verify_rate: probability that a step has a verified part, in [0, 1].
        num_samples: images of the batch that are verified.
        weight: of the verified loss, relative to the clean loss.
        bounds: how they are bounded.
    """

    name: ClassVar[str] = "mixtrain"
    metric: ClassVar[Metric] = "bound"
    needs_bounds: ClassVar[bool] = True

    verify_rate: Share = 0.75
    num_samples: Annotated[int, Field(ge=1)] = 10
    weight: Annotated[float, Field(gt=0.0)] = 50.0
    bounds: Literal["IBP", "CROWN-IBP"] = "CROWN-IBP"

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Clean loss plus weight times the verified one: a verified step is a large one."""
        device = x_BCHW.device
        draw = torch.rand((), generator=moment.generator, device=device)
        chosen = torch.randperm(len(x_BCHW), generator=moment.generator, device=device)
        clean = F.cross_entropy(model(x_BCHW), labels_B)
        weight = self.weight * moment.progress
        if moment.epsilon == 0.0 or weight == 0.0 or float(draw) >= self.verify_rate:
            return clean
        chosen = chosen[: self.num_samples]
        corners = box(x_BCHW[chosen], moment.epsilon)
        margins_BC = moment.lower_margins(*corners, labels_B[chosen], self.bounds)
        return clean + weight * worst_case_cross_entropy(margins_BC, labels_B[chosen])
