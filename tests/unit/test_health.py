"""Checks of the attacks themselves: they fire on a planted fault, and not on honest networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_factory import make_evaluation, table_of, use_attacks
from models import Wrapped
from torch import Tensor, nn

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.evaluation import health
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.tracks import Protocol

BLIND = replace(Protocol(), pgd_restarts=1)


class _Far(Wrapped):
    """Away from the grid of the images' own values the logits are those of a constant network.

    The digits' pixels are sixteenths; a step of more than 0.08 from every one of them is not
    possible, but the random start of a larger ball leaves the region in which gradients exist.
    """

    def __init__(self, inner: nn.Module, centres: Tensor, radius: float) -> None:
        super().__init__(inner)
        self.centres, self.radius = centres.flatten(1), radius

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.flatten(1)[:, None] - self.centres[None]).abs().amax(dim=2).amin(dim=1)
        logits = self.inner(x)
        label = self.inner(self.centres[0].view(1, 1, 8, 8)) * 0
        near = (distance <= self.radius).to(x)[:, None]
        nearest = (x.detach().flatten(1)[:, None] - self.centres[None]).abs().amax(2).argmin(1)
        kept = self.inner(self.centres.view(-1, 1, 8, 8))[nearest].detach() * 50
        return near * logits + (1 - near) * (kept + label)


def test_a_network_without_gradients_far_away_is_flagged(
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = (part[:32] for part in digits)
    use_attacks(monkeypatch, autoattack=PGD(1, 1))
    model = _Far(linear, x, radius=1 / 16 + 1e-4)
    facts = make_evaluation(model, x, y, tmp_path, protocol=BLIND).run()
    assert health.NON_MONOTONE_EPSILON in facts.epsilons["2/16"].flags
    assert health.NON_MONOTONE_EPSILON not in facts.epsilons["1/16"].flags


def test_what_fewer_steps_break_is_counted_and_flagged(
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attack with fifty useless steps."""
    x, y = (part[:48] for part in digits)
    blind = PGD(0, 0)
    blind.name = "pgd50"
    use_attacks(monkeypatch, pgd=blind, autoattack=PGD(1, 1))
    facts = make_evaluation(linear, x, y, tmp_path, protocol=BLIND).run()
    assert health.NON_MONOTONE_STEPS in facts.epsilons["2/16"].flags
    table = table_of(facts, y)
    attacked = table[table["decided_by"] == "pgd10"]
    assert (attacked["outcome"] == Outcome.ATTACKED).all()
    assert (attacked["adversarial"] >= 0).all()
    assert len(attacked[attacked["epsilon"] == "2/16"]) > 2


def test_an_honest_network_raises_neither(
    linear: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = (part[:48] for part in digits)
    use_attacks(monkeypatch, autoattack=PGD(1, 1))
    facts = make_evaluation(linear, x, y, tmp_path, protocol=BLIND).run()
    flags = set().union(*(known.flags for known in facts.epsilons.values()))
    assert not flags & {health.NON_MONOTONE_EPSILON, health.NON_MONOTONE_STEPS}
