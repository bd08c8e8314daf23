"""Large networks: CROWN after PGD-50, about images that stand, within a budget of arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_factory import FAST, dense_net, make_evaluation, table_of, use_attacks
from torch import Tensor, nn

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import BranchResult, Prover
from corobench.benchmark.evaluation.closing import too_large
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.prepared import certifier_stages
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.tracks import Protocol

LATE = replace(FAST, crown_early_macs=0, max_subdomains=20)
NUM = 24


@pytest.fixture(scope="module", autouse=True)
def _short_attacks() -> Iterator[None]:
    """PGD-50 as it is; behind it an attack that finds nothing."""
    nothing = [PGD(0, 0), PGD(0, 0)]
    for attack, name in zip(nothing, ("autoattack", "pgd10"), strict=True):
        attack.name = name
    with pytest.MonkeyPatch.context() as patch:
        use_attacks(patch, autoattack=nothing[0], fewer_steps=nothing[1])
        yield


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """Dense layers with many open neurons: CROWN proves more than IBP, and not all."""
    return dense_net(digits)


def run(
    model: nn.Module, images: tuple[Tensor, Tensor], folder: Path, protocol: Protocol
) -> tuple[Facts, pd.DataFrame]:
    x, y = (part[:NUM] for part in images)
    bounded = Prover(model, (1, 8, 8), 10)
    facts = make_evaluation(model, x, y, folder, protocol=protocol, prover=bounded).run()
    return facts, table_of(facts, y)


@pytest.fixture(scope="module")
def both(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Facts, pd.DataFrame]]:
    """The same evaluation with CROWN before PGD-50, and after it."""
    early = replace(LATE, crown_early_macs=10**12)
    return [
        run(trained, digits, tmp_path_factory.mktemp("chunks"), protocol)
        for protocol in (early, LATE)
    ]


def test_a_large_network_asks_crown_among_the_costly_certifiers(trained: nn.Module) -> None:
    prover = Prover(trained, (1, 8, 8), 10)
    assert prover.crown_macs > 0
    small = replace(FAST, crown_early_macs=prover.crown_macs)
    assert certifier_stages(prover, small) == (FAST.certifiers, FAST.closing_certifiers)
    assert certifier_stages(prover, LATE) == (
        ("IBP", "CROWN-IBP"),
        ("CROWN", *FAST.closing_certifiers),
    )
    assert certifier_stages(None, LATE) == (FAST.certifiers, FAST.closing_certifiers)


def test_what_crown_proves_does_not_depend_on_when_it_is_asked(
    both: list[tuple[Facts, pd.DataFrame]],
) -> None:
    (_, early), (_, late) = both
    for column in ("image", "epsilon", "outcome", "decided_by", "ibp", "crown_ibp", "pgd50"):
        assert early[column].equals(late[column]), column
    assert (early["decided_by"] == "CROWN").any()
    assert early["crown"].equals(late["crown"])


def test_images_that_pgd_broke_are_not_asked(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    both: list[tuple[Facts, pd.DataFrame]],
) -> None:
    x = digits[0][:NUM]
    asked: dict[str, set[int]] = {}
    search = Prover.search

    def noted(self: Prover, certifier: str, low: Tensor, high: Tensor, *more: object) -> list:
        near = [(x - (a + b) / 2).abs().flatten(1).amax(1) for a, b in zip(low, high, strict=True)]
        asked.setdefault(certifier, set()).update(int(one.argmin()) for one in near)
        return search(self, certifier, low, high, *more)

    monkeypatch.setattr(Prover, "search", noted)
    facts, table = run(trained, digits, tmp_path, LATE)
    small = facts.epsilons["1/16"]
    broken = np.flatnonzero(small.broken["pgd50"])
    proven = np.flatnonzero(np.isin(facts.epsilons["2/16"].proven_by.astype(str), ("IBP",)))
    assert len(broken) and asked["CROWN"]
    assert not asked["CROWN"] & {*broken.tolist(), *proven.tolist()}
    assert table["outcome"].equals(both[1][1]["outcome"])


def test_its_proofs_are_audited_with_those_that_survived_pgd(
    both: list[tuple[Facts, pd.DataFrame]],
) -> None:
    facts = both[1][0]
    for known in facts.epsilons.values():
        by_crown = known.proven_by == "CROWN"
        assert not known.attacked[by_crown].any()
    assert any(known.audited[known.proven_by == "CROWN"].any() for known in facts.epsilons.values())


def test_images_that_cost_too_much_are_not_answered(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    protocol = replace(LATE, crown_max_macs=0)
    facts, table = run(trained, digits, tmp_path, protocol)
    for certifier in ("CROWN", *FAST.closing_certifiers):
        assert facts.not_asked[certifier] == too_large(protocol, certifier)
    assert table["crown"].isna().all() and table["bab"].isna().all()
    assert not table["ibp"].isna().any()
    assert (table["outcome"] == Outcome.UNDECIDED).any()


def test_a_budget_between_answers_some(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:NUM] for part in digits)

    class Sparing(Prover):
        """Tells that every second box would cost too much."""

        def search(self, certifier, low, *more):  # type: ignore[no-untyped-def]
            found = super().search(certifier, low, *more)
            costly = BranchResult("too-costly", torch.full((9,), -torch.inf))
            return [costly if place % 2 else one for place, one in enumerate(found)]

    facts = make_evaluation(
        trained, x, y, tmp_path, protocol=LATE, prover=Sparing(trained, (1, 8, 8), 10)
    ).run()
    assert "CROWN" not in facts.not_asked
    table = table_of(facts, y)
    left = table["crown"].isna()
    assert left.any() and not left.all()
    assert not table.loc[left, "outcome"].isin([Outcome.MISCLASSIFIED]).any()
    assert table["margin"].notna().any()
    assert np.isfinite(table["margin"].dropna().to_numpy(dtype=float)).all()


def test_a_stopped_run_goes_on_where_it_was(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    both: list[tuple[Facts, pd.DataFrame]],
) -> None:
    class _StopError(Exception):
        """Stands for a kill."""

    save = ChunkStore.save

    def stop(self: ChunkStore, name: str, arrays: dict[str, object]) -> None:
        if name.startswith("certify-alpha"):
            raise _StopError
        save(self, name, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkStore, "save", stop)
        with pytest.raises(_StopError):
            run(trained, digits, tmp_path, LATE)
    _, table = run(trained, digits, tmp_path, LATE)
    pd.testing.assert_frame_equal(table.drop(columns="seconds"), both[1][1].drop(columns="seconds"))
