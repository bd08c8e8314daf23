"""HYDRA: which weights to keep is itself trained on the robust loss (Sehwag et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners.base import PruneContext, Pruner, least, targets
from corobench.baselines.training_data import Augmentation, augment


@dataclass(frozen=True)
class Gradients:
    """Of the loss on one batch.

    Attributes:
        of_scores: by layer.
        of_norms: of batch-norm's scales and shifts, where they are trained.
        of_rates: of the share that a layer keeps, by layer, straight through the mask.
    """

    of_scores: dict[str, Tensor]
    of_norms: tuple[Tensor, ...]
    of_rates: dict[str, float]


class Rates:
    """How many weights each layer loses while scores are trained; here always the same.

    Args:
        removed: by layer.
    """

    def __init__(self, removed: Mapping[str, int]) -> None:
        self._removed = dict(removed)

    @property
    def parameters(self) -> list[Tensor]:
        """What is trained along with the scores, by the same optimiser."""
        return []

    def removed(self) -> Mapping[str, int]:
        """At this step, by layer."""
        return self._removed

    def follow(self, of_rates: Mapping[str, float]) -> None:
        """Leave the gradients of a step in `parameters`."""

    def end_epoch(self) -> None:
        """After each epoch."""

    def found(self) -> Mapping[str, int]:
        """What each layer loses in the end."""
        return self._removed


GradientsAt = Callable[[Mapping[str, Tensor]], Gradients]


class Hydra(Pruner):
    """Train scores with the weights frozen; keep the top |score| of every layer.

    The forward pass uses the masked weights themselves, not a live mask, so that bounds stay
    right. Gradients pass the mask straight through, d loss / d|score| = d loss / d weight * w (as
    in their public code). The first scores are proportional to w, so training starts at layer-wise
    least weight magnitude.

    Attributes:
        epochs: passes over the training images.
        lr: of SGD with momentum on the scores, cosine to 0.
        momentum: of the same.
        score_decay: weight decay of the scores.
        augmentation: of the images, see `training_data.augment`.
        trains_norms: whether batch-norm's scales and shifts are trained along, with the same
            optimiser. The trained ones are dropped with the scores: fine-tuning begins with those
            of the parent.
    """

    name: ClassVar[str] = "hydra"
    criterion: ClassVar[str] = "least-importance-score"

    epochs: Annotated[int, Field(ge=1)] = 20
    lr: Annotated[float, Field(gt=0.0)] = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    score_decay: Annotated[float, Field(ge=0.0)] = 0.0
    augmentation: Augmentation = "none"
    trains_norms: bool = False

    @property
    def num_epochs(self) -> int:
        """Those of the scores."""
        return self.epochs

    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Masks of the top scores; the model is as before when it returns."""
        weights = prunable_weights(model)
        names = targets(list(weights), self.exempt)
        rates = self.rates(weights, names, keep_ratio, context.previous)
        original = {name: weights[name].detach().clone() for name in names}
        scores = {name: initial_score(weight) for name, weight in original.items()}
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        affine = _affine(model) if self.trains_norms else []
        groups: list[dict[str, Any]] = [
            {"params": list(scores.values()), "weight_decay": self.score_decay},
            {"params": affine},
            {"params": rates.parameters},
        ]
        optimiser = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs)

        def kept(of: Mapping[str, Tensor], removed: Mapping[str, int]) -> dict[str, Tensor]:
            return {
                name: top(of[name], removed[name], context.previous.get(name)) for name in names
            }

        def at(of: Mapping[str, Tensor], images: Tensor, labels_B: Tensor) -> Gradients:
            _write(weights, original, kept(of, rates.removed()))
            wanted = [*(weights[name] for name in names), *affine]
            found = torch.autograd.grad(context.loss(images, labels_B), wanted)
            of_masks = {
                name: gradient * original[name]
                for name, gradient in zip(names, found, strict=False)
            }
            return Gradients(
                {name: gradient * of[name].sign() for name, gradient in of_masks.items()},
                found[len(names) :],
                {name: float(gradient.sum()) for name, gradient in of_masks.items()},
            )

        try:
            for _ in range(self.epochs):
                for x_BCHW, labels_B in context.batches():
                    images = _augmented(x_BCHW, self.augmentation, context.generator)
                    found = self.gradients(scores, partial(at, images=images, labels_B=labels_B))
                    for name in names:
                        scores[name].grad = found.of_scores[name]
                    for parameter, gradient in zip(affine, found.of_norms, strict=True):
                        parameter.grad = gradient
                    rates.follow(found.of_rates)
                    optimiser.step()
                schedule.step()
                rates.end_epoch()
        finally:
            for parameter in affine:
                parameter.grad = None
            model.load_state_dict(before)
        return Masks(kept(scores, rates.found()))

    def rates(
        self, weights: Mapping[str, Tensor], names: list[str], keep_ratio: float, previous: Masks
    ) -> Rates:
        """How the kept weights are shared out; by default as `distribution` says, from the start.

        Args: as of :meth:`Pruner.num_removed`.
        """
        return Rates(self.num_removed(weights, names, keep_ratio, previous))

    def gradients(self, scores: Mapping[str, Tensor], at: GradientsAt) -> Gradients:
        """What one step of the scores follows; by default the gradients at the scores themselves.

        Args:
            scores: by layer.
            at: scores -> gradients of one batch's loss under the mask of these scores.
        """
        return at(scores)


def initial_score(weight: Tensor) -> Tensor:
    """sqrt(6 / fan_in) * W / max|W|: of a layer's usual spread, and in the order of |W|."""
    fan_in = weight[0].numel()
    return math.sqrt(6.0 / fan_in) * weight / weight.abs().max().clamp(min=1e-12)


def top(score: Tensor, count: int, previous: Tensor | None) -> Tensor:
    """Bool mask without the `count` least |score|, never bringing back what `previous` removed."""
    importance = score.detach().abs().cpu()
    if previous is not None:
        importance = importance.masked_fill(~previous.cpu(), -torch.inf)
    return least(importance, count)


def _affine(model: nn.Module) -> list[nn.Parameter]:
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
    return [parameter for norm in norms for parameter in norm.parameters()]


def _augmented(x_BCHW: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """With numbers of a generator on the images' device, seeded by the pruner's own."""
    if kind == "none":
        return x_BCHW
    seed = int(torch.randint(2**31, (), generator=generator))
    return augment(x_BCHW, kind, torch.Generator(x_BCHW.device).manual_seed(seed))


@torch.no_grad()
def _write(
    weights: Mapping[str, Tensor], original: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> None:
    for name, value in original.items():
        weights[name].copy_(value)
        if name in kept:
            weights[name].masked_fill_(~kept[name].to(value.device), 0.0)
