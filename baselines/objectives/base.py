"""The protocol of a training objective: one method from a batch to a scalar loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines.settings import Registered

Metric = Literal["clean", "robust", "bound"]
LowerMargins = Callable[[Tensor, Tensor, Tensor, str], Tensor]
UpperLosses = Callable[[Tensor, Tensor, Tensor], Tensor]
ReluInputs = Callable[[], list[tuple[Tensor, Tensor]]]
Teaching = Callable[[Tensor], Tensor]
ShrunkMargins = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@runtime_checkable
class FeatureTeaching(Protocol):
    """A teacher that also tells its features."""

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Logits, without gradient."""

    def features(self, x_BCHW: Tensor) -> Tensor:
        """What its last layer reads, (B, F), without gradient."""


@dataclass(frozen=True)
class Moment:
    """Where in its stage a training step stands.

    Attributes:
        epsilon: l-infinity radius of this step, after the ramp.
        progress: share of the ramp that is done, in [0, 1].
        generator: the only source of random numbers, on the device of the images.
        lower_margins: ``(x_L, x_U, labels, method)`` -> lower bounds of the margins of the label
            over each class, (B, num_classes), 0 at the label itself, differentiable in the
            model's weights (:class:`benchmark.certify.TrainingBounds`).
        upper_losses: ``(x_L, x_U, labels)`` -> upper bounds of the cross-entropy, (B,), by
            CROWN-IBP with loss fusion (the same class).
        relu_inputs: interval bounds before each layer of ReLUs, of the last call of either,
            differentiable (the same class).
        shrunk_margins: ``(x_L, x_U, labels, share)`` -> as `lower_margins` by intervals whose upper
            ends behind unstable ReLUs are multiplied by `share`; no bounds (the same class).
        teacher: images -> logits of the dense parent, without gradient; None where the objective
            needs none.
    """

    epsilon: float
    progress: float
    generator: torch.Generator
    lower_margins: LowerMargins
    upper_losses: UpperLosses
    relu_inputs: ReluInputs
    teacher: Teaching | None = None
    shrunk_margins: ShrunkMargins | None = None

    def taught_features(self, x_BCHW: Tensor) -> Tensor:
        """What the teacher's last layer reads, (B, F), without gradient."""
        assert isinstance(self.teacher, FeatureTeaching), "the objective says needs_teacher"
        return self.teacher.features(x_BCHW)

    def taught(self, x_BCHW: Tensor) -> Tensor:
        """Log-probabilities of the teacher's answers, (B, num_classes), without gradient."""
        assert self.teacher is not None, "the objective says needs_teacher"
        return F.log_softmax(self.teacher(x_BCHW), dim=1)


class Objective(Registered):
    """A training objective; its fields are what a recipe may set.

    Attributes:
        metric: the held-out measure that selects the epoch of a stage with this objective.
        needs_bounds: whether a model that cannot be bounded cannot be trained with it.
        needs_teacher: whether it learns from the dense parent, too.
    """

    metric: ClassVar[Metric]
    needs_bounds: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False

    @abstractmethod
    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Mean loss of a batch.

        Args:
            model: in training mode; images in [0, 1] to logits.
            x_BCHW: float32 images in [0, 1].
            labels_B: int64 classes.
            moment: radius and progress of this step.

        Returns:
            Scalar, differentiable in the model's weights.
        """


class AdversarialObjective(Objective):
    """An objective in two parts: adversarial images are found, then the loss is taken at them.

    Apart, so that the loss can be taken again at the same images with other weights (AWP).
    """

    metric: ClassVar[Metric] = "robust"

    @abstractmethod
    def adversarial(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """The inner part: images in the ball, float32 (B, C, H, W), detached."""

    @abstractmethod
    def outer(
        self,
        model: nn.Module,
        x_BCHW: Tensor,
        adversarial_BCHW: Tensor,
        labels_B: Tensor,
        moment: Moment,
    ) -> Tensor:
        """The outer part: mean loss of a batch, given its adversarial images."""

    def loss(self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment) -> Tensor:
        """Both parts."""
        adversarial_BCHW = self.adversarial(model, x_BCHW, labels_B, moment)
        return self.outer(model, x_BCHW, adversarial_BCHW, labels_B, moment)


def worst_case_cross_entropy(margins_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy at the worst logits a box allows, from lower bounds of the margins.

    With z_y - z_j >= m_j the loss is at most log(1 + sum_j exp(-m_j)); the last layer is elided
    into the margins (Gowal et al. 2018, on the elision of the last layer).

    Args:
        margins_BC: lower bounds of the label's margin over each class, 0 at the label itself.
        labels_B: int64 classes.

    >>> round(worst_case_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item(), 4)
    0.6931
    """
    return F.cross_entropy(-margins_BC, labels_B)


def box(x_BCHW: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Corners of the ball around each image within [0, 1]; training only, not outward rounded."""
    return (x_BCHW - epsilon).clamp(min=0.0), (x_BCHW + epsilon).clamp(max=1.0)
