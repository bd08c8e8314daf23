"""The costly certifiers before AutoAttack: what they prove, refute, leave and give up."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest
import torch
from evaluation_factory import dense_net, make_evaluation, table_of, use_attacks
from torch import Tensor, nn

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import BranchResult, Proven, Prover
from corobench.benchmark.errors import NotCertifiable
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.tracks import Protocol

WEAK = Protocol(pgd_steps=1, pgd_restarts=1, closing_group=4)


class _Blind(PGD):
    """An attack that finds nothing, so that everything is left to the search."""

    def __init__(self, name: str) -> None:
        super().__init__(0, 0)
        self.name = name


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """Dense layers with many unstable neurons: CROWN is loose on it."""
    return dense_net(digits)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    use_attacks(
        monkeypatch,
        pgd=_Blind("pgd50"),
        autoattack=_Blind("autoattack"),
        fewer_steps=_Blind("pgd10"),
    )


@pytest.mark.usefixtures("blind")
def test_branch_and_bound_decides_both_ways(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:48] for part in digits)
    facts = make_evaluation(
        trained, x, y, tmp_path, protocol=WEAK, prover=Prover(trained, (1, 8, 8), 10)
    ).run()
    table = table_of(facts, y)
    by_search = table[table["decided_by"] == "BaB"]
    assert set(by_search["outcome"]) == {Outcome.CERTIFIED, Outcome.ATTACKED}
    attacked = table[table["outcome"] == Outcome.ATTACKED]
    for row in attacked.itertuples():
        image = torch.from_numpy(facts.adversarial[row.adversarial])[None]
        assert trained(image).argmax().item() != y[row.position]
        assert (image - x[row.position]).abs().max() <= float(Fraction(row.epsilon)) + 1e-9
    small, large = (rows.reset_index() for _, rows in table.groupby("epsilon", sort=True))
    assert (large.loc[small["outcome"] == Outcome.ATTACKED, "outcome"] == Outcome.ATTACKED).all()
    carried = large["outcome"] == Outcome.CERTIFIED
    assert (small.loc[carried, "outcome"] == Outcome.CERTIFIED).all()
    # What the search says agrees with a strong attack of its own.
    strong = PGD(50, 5)
    for epsilon, rows in table.groupby("epsilon"):
        proven = torch.from_numpy((rows["outcome"] == Outcome.CERTIFIED).to_numpy(dtype=bool))
        found = strong.run(trained, x[proven], y[proven], Fraction(str(epsilon)), seed=5)
        assert not found.broken_B.any()


class _Scripted:
    """Proves nothing by relaxation; branch and bound answers as told, and counts its images."""

    crown_macs = 0

    def __init__(self, status: str) -> None:
        self.status, self.asked = status, 0

    def prove(self, method: str, low: Tensor, *_: object) -> Proven:
        return Proven(torch.zeros(len(low), dtype=torch.bool), -torch.ones(len(low)))

    def search(self, certifier: str, low: Tensor, *_: object) -> list[BranchResult]:
        if certifier != "BaB":
            return [BranchResult("open", -torch.ones(9)) for _ in low]
        self.asked += len(low)
        if self.status == "refused":
            raise NotCertifiable("unsupported-operator", "planted")
        proposal = torch.full((1, 8, 8), 0.5) if self.status == "refuted" else None
        return [BranchResult(self.status, -torch.ones(9), proposal=proposal) for _ in low]


@pytest.mark.usefixtures("blind")
def test_a_group_without_a_decision_ends_the_search(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:48] for part in digits)
    scripted = _Scripted("open")
    facts = make_evaluation(trained, x, y, tmp_path, protocol=WEAK, prover=scripted).run()
    assert scripted.asked == 2 * WEAK.closing_group
    table = table_of(facts, y)
    undecided = table["outcome"] == Outcome.UNDECIDED
    assert (undecided.sum()) == 2 * int(facts.correct.sum())
    assert table.loc[undecided, "bab"].isna().sum() == undecided.sum() - scripted.asked
    assert not table.loc[~undecided, "bab"].isna().any()


@pytest.mark.usefixtures("blind")
def test_what_the_clock_ends_is_a_timeout(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:16] for part in digits)
    facts = make_evaluation(
        trained, x, y, tmp_path, protocol=WEAK, prover=_Scripted("stopped")
    ).run()
    counts = table_of(facts, y)["outcome"].value_counts()
    assert counts[Outcome.TIMEOUT] == 2 * WEAK.closing_group


@pytest.mark.usefixtures("blind")
def test_a_counterexample_is_measured_again(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """Grey images are no counterexamples once they are clipped to the ball."""
    x, y = (part[:16] for part in digits)
    facts = make_evaluation(
        trained, x, y, tmp_path, protocol=WEAK, prover=_Scripted("refuted")
    ).run()
    table = table_of(facts, y)
    for row in table[table["outcome"] == Outcome.ATTACKED].itertuples():
        image = torch.from_numpy(facts.adversarial[row.adversarial])[None]
        assert trained(image).argmax().item() != y[row.position]
    assert (table["outcome"] == Outcome.UNDECIDED).any()


@pytest.mark.usefixtures("blind")
def test_a_search_that_fails_its_check_counts_as_not_asked(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:16] for part in digits)
    facts = make_evaluation(
        trained, x, y, tmp_path, protocol=WEAK, prover=_Scripted("refused")
    ).run()
    assert set(facts.not_asked) == {"BaB"}
    table = table_of(facts, y)
    assert table["bab"].isna().all()
    assert table["alpha_crown"].notna().any()


@pytest.mark.usefixtures("blind")
def test_a_stopped_search_is_resumed(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = (part[:24] for part in digits)
    bounded = Prover(trained, (1, 8, 8), 10)
    whole = make_evaluation(trained, x, y, tmp_path / "whole", protocol=WEAK, prover=bounded).run()

    class _StopError(Exception):
        """Stands for a kill."""

    search, calls = Prover.search, 0

    def stop(self: Prover, *args: object, **kwargs: object) -> list[BranchResult]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise _StopError
        return search(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Prover, "search", stop)
        with pytest.raises(_StopError):
            make_evaluation(trained, x, y, tmp_path / "part", protocol=WEAK, prover=bounded).run()
    resumed = make_evaluation(trained, x, y, tmp_path / "part", protocol=WEAK, prover=bounded)
    facts = resumed.run()
    assert resumed.chunks.reused > 0
    pd.testing.assert_frame_equal(
        table_of(facts, y).drop(columns="seconds"), table_of(whole, y).drop(columns="seconds")
    )


def test_the_budget_of_the_user_makes_a_result_unranked() -> None:
    from corobench.benchmark.evaluation.evaluate import Settings

    assert Settings().protocol == Protocol()
    assert Settings(certify_budget_s=5).protocol == replace(Protocol(), certify_budget_s=5)
    assert Settings(max_subdomains=7).protocol == replace(Protocol(), max_subdomains=7)
    plain = Settings(plain_attacks=True).protocol
    assert plain.as_settings() == {**Protocol().as_settings(), "plain_attacks": True}
    assert "plain_attacks" not in Protocol().as_settings()
