"""The protocol of a pruner: from a model and a kept share to masks.

A pruner is agnostic to the training objective (the paper's second insight). It sees the model
and, where it needs data, a loss on batches; what that loss is, it cannot know.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.schedules import num_removed
from corobench.baselines.settings import Registered
from corobench.benchmark.errors import ConfigError

Structure = Literal["unstructured", "structured"]
Scope = Literal["layer-wise", "global"]


@dataclass(frozen=True)
class PruneContext:
    """What a pruner may use beside the model.

    Attributes:
        previous: masks of earlier rounds; what they removed stays removed.
        generator: the only source of random numbers, on the CPU.
        loss: mean loss of the model being pruned on a batch, differentiable in its weights.
        batches: one pass over the training images in a seeded order.
    """

    previous: Masks
    generator: torch.Generator
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]


class Pruner(Registered):
    """A pruner; its fields are what a recipe may set.

    Attributes:
        criterion: what decides, for the manifest's taxonomy.
        structure: single weights, or whole channels.
        scope: the same share per layer, or one threshold for all.
        exempt: layers left dense; the others are pruned harder, so that the kept share of the
            whole network is still the recipe's.
    """

    criterion: ClassVar[str]
    structure: ClassVar[Structure] = "unstructured"
    scope: ClassVar[Scope] = "layer-wise"

    exempt: tuple[Literal["first", "last"], ...] = ()

    @property
    def num_epochs(self) -> int:
        """Passes over the training images that train something, for one pruning."""
        return 0

    @abstractmethod
    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Decide what stays; the model is not changed.

        Args:
            model: holds the weights to judge.
            keep_ratio: kept share of all convolution and linear weights, in (0, 1].
            context: earlier masks, data and random numbers.
        """


class ScorePruner(Pruner):
    """A pruner that scores each weight and removes the least."""

    @abstractmethod
    def scores(self, model: nn.Module, context: PruneContext) -> Mapping[str, Tensor]:
        """One score per prunable weight, larger is more important; keys as the parameters'."""

    def masks(self, model: nn.Module, keep_ratio: float, context: PruneContext) -> Masks:
        """Remove ``floor((1 - keep) * numel)`` weights, per layer or over all layers at once."""
        weights = prunable_weights(model)
        names = targets(list(weights), self.exempt)
        keep = keep_of_targets(weights, names, keep_ratio)
        scores = self.scores(model, context)
        ranked = {name: scores[name].detach().float().cpu() for name in names}
        for name in names:
            if name in context.previous:
                ranked[name] = ranked[name].masked_fill(~context.previous[name].cpu(), -torch.inf)
        return Masks(
            least_globally(ranked, keep)
            if self.scope == "global"
            else {
                name: least(score, num_removed(score.numel(), keep))
                for name, score in ranked.items()
            }
        )


def targets(names: list[str], exempt: tuple[str, ...]) -> list[str]:
    """Names in forward order without the exempt first and last."""
    kept_dense = {names[0]} if "first" in exempt else set()
    if "last" in exempt:
        kept_dense.add(names[-1])
    return [name for name in names if name not in kept_dense]


def keep_of_targets(weights: Mapping[str, Tensor], names: list[str], keep_ratio: float) -> Fraction:
    """Kept share within `names` that gives `keep_ratio` over all weights.

    Raises:
        ConfigError: the exempt layers alone are more than may be kept.
    """
    keep = Fraction(repr(keep_ratio))
    total = sum(weight.numel() for weight in weights.values())
    inside = sum(weights[name].numel() for name in names)
    allowed = keep * total - (total - inside)
    if allowed <= 0:
        raise ConfigError(
            f"[prune] keep_ratio {keep_ratio}: the exempt layers hold {total - inside} of "
            f"{total} weights, more than the kept share; keep more, or exempt fewer layers"
        )
    return allowed / inside


def least(score: Tensor, count: int) -> Tensor:
    """Bool mask that is false at the `count` smallest scores; ties go by position.

    >>> least(torch.tensor([3.0, 1.0, 2.0]), 2)
    tensor([ True, False, False])
    """
    kept = torch.ones(score.numel(), dtype=torch.bool)
    kept[torch.argsort(score.flatten(), stable=True)[:count]] = False
    return kept.view(score.shape)


def least_globally(scores: Mapping[str, Tensor], keep_ratio: Fraction | float) -> dict[str, Tensor]:
    """One threshold over all layers: masks that are false at the smallest scores overall."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = least(flat, num_removed(flat.numel(), keep_ratio))
    parts = kept.split([score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
