"""The protocol of a pruner: from a model and a kept share to masks.

A pruner is agnostic to the training objective (the paper's second insight). It sees the model
and, where it needs data, a loss on batches; what that loss is, it cannot know.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import field_validator
from torch import Tensor, nn

from corobench.baselines.masks import Masks, prunable_weights
from corobench.baselines.pruners.distributions import erdos_renyi_kernel
from corobench.baselines.schedules import num_removed
from corobench.baselines.settings import LATER, Registered
from corobench.benchmark.errors import ConfigError

Structure = Literal["unstructured", "structured"]
Scope = Literal["layer-wise", "global"]
Distribution = Literal["uniform", "erk"]


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
        reads_weights_alone: whether the present weights decide, without data or chance.
        exempt: layers left dense; the others are pruned harder, so that the kept share of the
            whole network is still the recipe's.
        takes_distribution: whether `distribution` may be set.
        distribution: how a layer-wise pruner shares the kept weights out. "uniform" removes the
            same share of every layer, rounded down there. "erk" lets a layer keep in proportion to
            the sum of its weight's sides (Evci et al. 2020); the total is exact.
    """

    criterion: ClassVar[str]
    structure: ClassVar[Structure] = "unstructured"
    scope: ClassVar[Scope] = "layer-wise"
    reads_weights_alone: ClassVar[bool] = False
    takes_distribution: ClassVar[bool] = True

    exempt: tuple[Literal["first", "last"], ...] = ()
    distribution: Annotated[Distribution, LATER] = "uniform"

    @field_validator("distribution")
    @classmethod
    def _distribution_fits(cls, value: Distribution) -> Distribution:
        if value != "uniform" and (cls.scope == "global" or not cls.takes_distribution):
            raise ValueError(f"{cls.name!r} decides itself how much each layer keeps; leave it out")
        return value

    @property
    def num_epochs(self) -> int:
        """Passes over the training images that train something, for one pruning."""
        return 0

    def num_removed(
        self, weights: Mapping[str, Tensor], names: list[str], keep_ratio: float, previous: Masks
    ) -> dict[str, int]:
        """How many weights each layer loses in all, by `distribution`.

        Args:
            weights: of all layers.
            names: of the layers that are pruned.
            keep_ratio: kept share of all weights.
            previous: masks of earlier rounds; no layer is asked to keep what they removed.

        Raises:
            ConfigError: the exempt layers alone are more than may be kept.
        """
        keep = keep_of_targets(weights, names, keep_ratio)
        numel = {name: weights[name].numel() for name in names}
        if self.distribution == "uniform":
            return {name: num_removed(numel[name], keep) for name in names}
        alive = {
            name: int(previous[name].sum()) if name in previous else numel[name] for name in names
        }
        total = sum(numel.values())
        shapes = {name: tuple(weights[name].shape) for name in names}
        kept = erdos_renyi_kernel(shapes, alive, total - num_removed(total, keep))
        return {name: numel[name] - kept[name] for name in names}

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
        scores = self.scores(model, context)
        ranked = {name: scores[name].detach().float().cpu() for name in names}
        for name in names:
            if name in context.previous:
                ranked[name] = ranked[name].masked_fill(~context.previous[name].cpu(), -torch.inf)
        if self.scope == "global":
            return Masks(least_globally(ranked, keep_of_targets(weights, names, keep_ratio)))
        counts = self.num_removed(weights, names, keep_ratio, context.previous)
        return Masks({name: least(score, counts[name]) for name, score in ranked.items()})


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
