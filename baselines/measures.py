"""Quick measures on held-out training images: clean, a short attack, an interval bound.

They select an epoch and show how training goes. They are not the benchmark's measures: those
come from ``corobench evaluate`` on test images, with stronger attacks and tighter certifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from corobench.baselines.objectives.base import box
from corobench.baselines.objectives.inner import ascend, random_start
from corobench.benchmark.certify import TrainingBounds
from corobench.benchmark.errors import ConfigError, CorobenchError, NotCertifiable

ATTACK_STEPS = 10
ATTACK_STEP_RATE = 0.25
BATCH_SIZE = 500


class LazyBounds:
    """Differentiable bounds over a model in training, built when they are first asked for.

    Build them before a loss is begun: the conversion touches the shared weights, and autograd
    refuses to go back through a forward pass from before it.

    Args:
        model: shares its parameters with the bounds.
        input_shape: (C, H, W).
        num_classes: logits.

    Attributes:
        in_float32: compute bounds in float32 where training autocasts: a ball of 2/255 is hardly
            wider than what bf16 rounds off.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int], num_classes: int) -> None:
        self._arguments = (model, tuple(input_shape), num_classes)
        self._built: TrainingBounds | None = None
        self.in_float32 = False

    def lower_margins(self, x_L: Tensor, x_U: Tensor, labels: Tensor, method: str) -> Tensor:
        """See :meth:`benchmark.certify.TrainingBounds.lower_margins`."""
        with self._precision(x_L.device.type):
            return self.build().lower_margins(x_L, x_U, labels, method)

    def upper_losses(self, x_L: Tensor, x_U: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`benchmark.certify.TrainingBounds.upper_losses`."""
        with self._precision(x_L.device.type):
            return self.build().upper_losses(x_L, x_U, labels)

    def shrunk_margins(self, x_L: Tensor, x_U: Tensor, labels: Tensor, share: float) -> Tensor:
        """See :meth:`benchmark.certify.TrainingBounds.shrunk_margins`."""
        with self._precision(x_L.device.type):
            return self.build().shrunk_margins(x_L, x_U, labels, share)

    def relu_inputs(self) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`benchmark.certify.TrainingBounds.relu_inputs`."""
        return self.build().relu_inputs()

    def _precision(self, device: str) -> AbstractContextManager[object]:
        return torch.autocast(device, enabled=False) if self.in_float32 else nullcontext()

    def build(self) -> TrainingBounds:
        """The bounds.

        Raises:
            CertifierUnavailable: the bound library is missing or does not work here.
            ConfigError: the model cannot be bounded.
        """
        if self._built is None:
            try:
                self._built = TrainingBounds(*self._arguments)
            except NotCertifiable as error:
                raise ConfigError(f"this network cannot be bounded in training: {error}") from error
        return self._built

    def is_available(self) -> bool:
        """Whether this model can be bounded here."""
        try:
            self.build()
        except CorobenchError:
            return False
        return True


@dataclass(frozen=True)
class Measures:
    """Shares of held-out images, in [0, 1].

    Attributes:
        clean: classified right.
        robust: still right after a short attack.
        bound: proven right by IBP; None where the model cannot be bounded.
    """

    clean: float
    robust: float
    bound: float | None


def measure(
    model: nn.Module, x_NCHW: Tensor, labels_N: Tensor, epsilon: float, bounds: LazyBounds | None
) -> Measures:
    """Measure a model, in evaluation mode, with the same random start at every epoch.

    Args:
        epsilon: l-infinity radius.
        bounds: None where the model cannot be bounded.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator(x_NCHW.device).manual_seed(0)
    clean = robust = bound = 0
    for x_BCHW, labels_B in zip(x_NCHW.split(BATCH_SIZE), labels_N.split(BATCH_SIZE), strict=True):
        right_B = _right(model, x_BCHW, labels_B)
        clean += int(right_B.sum())
        adversarial_BCHW = _attack(model, x_BCHW, labels_B, epsilon, generator)
        robust += int((right_B & _right(model, adversarial_BCHW, labels_B)).sum())
        if bounds is not None:
            with torch.no_grad():
                margins_BC = bounds.lower_margins(*box(x_BCHW, epsilon), labels_B, "IBP")
            # The label's own column is 0, so K - 1 positive margins are all of the others.
            bound += int(((margins_BC > 0).sum(dim=1) == margins_BC.shape[1] - 1).sum())
    model.train(was_training)
    n = len(labels_N)
    return Measures(clean / n, robust / n, bound / n if bounds is not None else None)


@torch.no_grad()
def _right(model: nn.Module, x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    is_right_B: Tensor = model(x_BCHW).argmax(dim=1) == labels_B
    return is_right_B


def _attack(
    model: nn.Module, x_BCHW: Tensor, labels_B: Tensor, epsilon: float, generator: torch.Generator
) -> Tensor:
    return ascend(
        model,
        x_BCHW,
        random_start(x_BCHW, epsilon, generator),
        lambda logits: F.cross_entropy(logits, labels_B, reduction="sum"),
        epsilon,
        ATTACK_STEPS,
        ATTACK_STEP_RATE * epsilon,
    )
