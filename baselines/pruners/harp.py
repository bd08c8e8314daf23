"""HARP: what and how much a layer keeps is learned (Zhao and Wressnegger, ICLR 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from corobench.baselines.masks import Masks
from corobench.baselines.pruners.base import Scope, keep_of_targets
from corobench.baselines.pruners.distributions import shared_out
from corobench.baselines.pruners.hydra import Hydra, Rates
from corobench.baselines.schedules import num_removed

_INSIDE = 0.01
"""The first rates stay this far from the ends of the sigmoid, where it has no slope."""


class Harp(Hydra):
    """HYDRA's scores, and in every layer a rate, trained together on the robust loss.

    A layer keeps the top share k of its scores, k = m + (1 - m) * sigmoid(r), where m is the least
    rate. Its gradient is the sum of d loss / d mask over all weights of the layer, kept or not. To
    the loss is added gamma * (epoch + 1) * max(0, kept / allowed - 1); once an epoch ends within
    the budget, that weight stays. So robustness comes first, then the budget.

    In the end all rates are multiplied by one factor, so that the kept total is that of the recipe
    to the weight; the authors take the last rates as they are.

    Attributes:
        gamma: weight of the budget in the first epoch.
        least_rate: least rate of a layer, as a share of the recipe's.
        start_rate: rate of every layer at first; the recipe's if absent. The authors start at 0.1
            for a target of 0.01.
    """

    name: ClassVar[str] = "harp"
    criterion: ClassVar[str] = "least-importance-score (learned rates)"
    scope: ClassVar[Scope] = "global"

    gamma: Annotated[float, Field(ge=0.0)] = 0.01
    least_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    start_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None

    def rates(
        self, weights: Mapping[str, Tensor], names: list[str], keep_ratio: float, previous: Masks
    ) -> Rates:
        """Rates that are trained.

        Raises:
            ConfigError: the exempt layers alone are more than may be kept.
        """
        numel = {name: weights[name].numel() for name in names}
        alive = {
            name: int(previous[name].sum()) if name in previous else numel[name] for name in names
        }
        keep = keep_of_targets(weights, names, keep_ratio)
        start = float(keep) if self.start_rate is None else self.start_rate
        return LearnedRates(numel, alive, keep, start, self.least_rate, self.gamma)


class LearnedRates(Rates):
    """Rates of layers behind a sigmoid, and the price of keeping too much.

    Args:
        numel: weights by layer.
        alive: of these, those that earlier rounds did not remove.
        keep: kept share of all of them together, in the end.
        start: first rate of every layer.
        least_rate: of a layer, as a share of `keep`.
        gamma: weight of the price in the first epoch.
    """

    def __init__(
        self,
        numel: Mapping[str, int],
        alive: Mapping[str, int],
        keep: Fraction,
        start: float,
        least_rate: float,
        gamma: float,
    ) -> None:
        super().__init__({})
        self._numel, self._alive, self._keep, self._gamma = numel, alive, keep, gamma
        self._total = sum(numel.values())
        self._least = least_rate * float(keep)
        inner = min(max((start - self._least) / (1.0 - self._least), _INSIDE), 1.0 - _INSIDE)
        first = torch.tensor(math.log(inner / (1.0 - inner)), dtype=torch.float64)
        self._scores = {name: first.clone() for name in numel}
        self._epoch, self._is_settled = 0, False

    @property
    def parameters(self) -> list[Tensor]:
        """Numbers behind the sigmoid, float64, one of each layer."""
        return list(self._scores.values())

    def rate(self, name: str) -> float:
        """Share that a layer keeps now."""
        return self._least + (1.0 - self._least) * float(torch.sigmoid(self._scores[name]))

    def excess(self) -> float:
        """How much more than allowed is kept now, as a share of what is allowed; at least 0."""
        kept = sum(count * self.rate(name) for name, count in self._numel.items())
        return max(0.0, kept / (self._total * float(self._keep)) - 1.0)

    def removed(self) -> Mapping[str, int]:
        """At this step, by layer, rounded down."""
        return {
            name: max(int((1.0 - self.rate(name)) * count), count - self._alive[name])
            for name, count in self._numel.items()
        }

    def follow(self, of_rates: Mapping[str, float]) -> None:
        """Gradients of the loss and of the price."""
        price = self._gamma * (self._epoch + 1) if self.excess() > 0.0 else 0.0
        for name, score in self._scores.items():
            share = torch.sigmoid(score)
            slope = (1.0 - self._least) * share * (1.0 - share)
            of_price = price * self._numel[name] / (self._total * float(self._keep))
            score.grad = slope * (of_rates[name] + of_price)

    def end_epoch(self) -> None:
        """The price rises until an epoch ends within the budget, to four decimals as published."""
        self._is_settled = self._is_settled or round(self.excess(), 4) == 0.0
        self._epoch += not self._is_settled

    def found(self) -> Mapping[str, int]:
        """The learned rates times one factor, whole numbers that add up to the budget."""
        learned = {name: Fraction(self.rate(name)) * count for name, count in self._numel.items()}
        num_kept = self._total - num_removed(self._total, self._keep)
        kept = shared_out(learned, self._alive, num_kept)
        return {name: count - kept[name] for name, count in self._numel.items()}
