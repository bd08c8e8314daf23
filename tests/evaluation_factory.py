"""Evaluations of small networks in memory, without a submission folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.base import Attack
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.outcomes import outcome_table
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.evaluation.prepared import Prepared
from corobench.benchmark.evaluation.stages import Stages
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.tracks import TRACKS, Protocol, Track

FAST = Protocol(pgd_steps=50, pgd_restarts=1, square_queries=20)
SMALL_CHUNKS = replace(TRACKS["digits"], chunk_size=16)


def dense_net(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """Dense layers with many unstable neurons, trained for a moment: CROWN is loose on them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)
    )
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(digits[0]), digits[1]).backward()
        optimiser.step()
    return model.eval()


def use_attacks(monkeypatch: pytest.MonkeyPatch, **attacks: Attack) -> None:
    """Let evaluations use other attacks: `pgd`, `autoattack` or `fewer_steps`."""
    for name, attack in attacks.items():
        monkeypatch.setattr(Stages, name, lambda self, attack=attack: attack)


def shorten_suite(patch: pytest.MonkeyPatch) -> None:
    """AutoAttack with a tenth of its steps, for tests of what happens around it."""
    build = AutoAttackStandard.build

    def short(self: AutoAttackStandard, *args: object) -> Any:
        suite = build(self, *args)  # type: ignore[arg-type]
        for attack in (suite.apgd, suite.apgd_targeted, suite.fab):
            attack.n_iter = 10
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 4
        return suite

    patch.setattr(AutoAttackStandard, "build", short)


def make_evaluation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    folder: Path,
    *,
    protocol: Protocol = FAST,
    track: Track = SMALL_CHUNKS,
    prover: Any = None,
    not_asked: Mapping[str, str] | None = None,
) -> Evaluation:
    """An evaluation of images of digits, with seed 0.

    Args:
        model: in eval mode.
        x: float32 (n, 1, 8, 8).
        y: int64 (n,).
        folder: of finished chunks.
        protocol: a fast one by default.
        track: digits in chunks of 16 by default.
        prover: a `Prover`, or what stands in for one.
        not_asked: certifier -> why.
    """
    prepared = Prepared(
        model, x, y, track, protocol=protocol, prover=prover, not_asked=not_asked or {}
    )
    return Evaluation(
        prepared,
        epsilons=track.epsilons,
        seed=0,
        chunks=ChunkStore(folder, {"test": 1}),
        report=Reporter("test"),
    )


def table_of(facts: Facts, y: Tensor) -> pd.DataFrame:
    """The outcome table of images that are numbered as they come."""
    return outcome_table(facts, np.arange(len(y)), y.numpy())
