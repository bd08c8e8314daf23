"""Distillation of features at adversarial images beside a bound: the counterpart of AD-CERT."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from corobench.baselines.features import Features
from corobench.baselines.objectives.ad_cert import AdCert
from corobench.baselines.objectives.base import Moment
from corobench.baselines.objectives.inner import ascend, beside

_SMALLEST = 1e-12


class FeatureCert(AdCert):
    """kappa * D(T(x), S(x')) + (1 - kappa) * CE(worst logits that the bounds allow).

    As AD-CERT, which distils logits and is compared by its authors with a distillation of features
    (arXiv 2606.31653; features: De Palma, arXiv 2602.02626). T and S are here what the last layer
    of teacher and student reads, D the squared distance as a share of the squared length of the
    teacher's, and x' the image of the ball where D is largest. The scale by that length, and that
    nothing else differs from AD-CERT, are ours: it is meant for a comparison of the two.
    """

    name: ClassVar[str] = "feature-cert"

    def unverified(
        self, model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, moment: Moment
    ) -> Tensor:
        """Mean distance from the teacher's features, at the images where it is largest."""
        taught_BF = moment.taught_features(x_BCHW)
        student = Features(model)
        adversarial_BCHW = ascend(
            student,
            x_BCHW,
            beside(x_BCHW, moment.generator),
            lambda features_BF: distance(taught_BF, features_BF),
            moment.epsilon,
            self.num_steps,
            self.step_rate * moment.epsilon,
        )
        return distance(taught_BF, student(adversarial_BCHW)).mean()


def distance(taught_BF: Tensor, features_BF: Tensor) -> Tensor:
    """Squared distance of each image's features, relative to the squared length of the first ones.

    >>> import torch
    >>> distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, -1.0]]))
    tensor([1.])
    """
    length_B = taught_BF.square().sum(dim=1).clamp(min=_SMALLEST)
    return (taught_BF - features_BF).square().sum(dim=1) / length_B
