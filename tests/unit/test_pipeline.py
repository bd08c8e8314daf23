"""The evaluation as a whole: closed form, sandwich, resume, monotone facts, contradictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_factory import FAST, make_evaluation, shorten_suite
from models import exact_linear_margin
from tables import make_run
from torch import Tensor, nn

from corobench.benchmark.certify import BoundedModel, BranchResult, Proven, Prover, prover
from corobench.benchmark.errors import NotCertifiable, ResultError
from corobench.benchmark.evaluation.facts import Facts
from corobench.benchmark.evaluation.outcomes import audit, drop_unused, outcome_table
from corobench.benchmark.files.chunks import ChunkStore
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, CERTIFIERS, Audit, Outcome
from corobench.benchmark.scoring.score import score


@pytest.fixture(scope="module", autouse=True)
def _short_attacks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten_suite(patch)
        yield


def _small_net() -> nn.Module:
    """A net with stable and unstable ReLUs: some images certified, some attacked, some open."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    ).eval()


def _run(model: nn.Module, x: Tensor, y: Tensor, folder: Path) -> tuple[Facts, pd.DataFrame]:
    facts = make_evaluation(model, x, y, folder, prover=Prover(model, (1, 8, 8), 10)).run()
    return facts, outcome_table(facts, np.arange(len(x)), y.numpy())


def _without_seconds(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seconds")


def test_a_linear_model_is_decided_exactly(
    linear: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = digits
    _, table = _run(linear, x, y, tmp_path)
    for epsilon, rows in table.groupby("epsilon"):
        worst = exact_linear_margin(linear, x, y, Fraction(str(epsilon))).numpy()
        right = (rows["outcome"] != Outcome.MISCLASSIFIED).to_numpy()
        outcome = rows["outcome"].to_numpy()
        assert (outcome[right & (worst > 1e-3)] == Outcome.CERTIFIED).all()
        assert (outcome[right & (worst < -1e-3)] == Outcome.ATTACKED).all()
        assert (rows["outcome"] == Outcome.UNDECIDED).sum() <= 1
        margin = rows["margin"].to_numpy(dtype=float, na_value=np.nan)
        asked = ~np.isnan(margin)
        assert margin[asked] == pytest.approx(worst[asked], abs=1e-4)


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> nn.Module:
    model = _small_net()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(digits[0]), digits[1]).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def evaluated(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Facts, pd.DataFrame]:
    x, y = digits
    return _run(trained, x[:48], y[:48], tmp_path_factory.mktemp("chunks"))


def test_sandwich_and_monotone_facts(
    evaluated: tuple[Facts, pd.DataFrame], trained: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    facts, table = evaluated
    assert set(table["outcome"]) >= {Outcome.CERTIFIED, Outcome.ATTACKED}
    small, large = (rows.reset_index() for _, rows in table.groupby("epsilon", sort=True))
    certified_large = large["outcome"] == Outcome.CERTIFIED
    assert (small.loc[certified_large, "outcome"] == Outcome.CERTIFIED).all()
    attacked_small = small["outcome"] == Outcome.ATTACKED
    assert (large.loc[attacked_small, "outcome"] == Outcome.ATTACKED).all()
    same = attacked_small & (large["decided_by"] == small["decided_by"])
    assert same.any()
    assert (large.loc[same, "carried_from"] == "1/16").all()
    # Every stored adversarial image fools the model and lies in its ball.
    x, y = digits
    for row in table[table["outcome"] == Outcome.ATTACKED].itertuples():
        image = torch.from_numpy(facts.adversarial[row.adversarial])[None]
        assert trained(image).argmax().item() != y[row.position]
        assert (image - x[row.position]).abs().max() <= float(Fraction(row.epsilon)) + 1e-9


def test_each_certifier_has_its_own_answers(evaluated: tuple[Facts, pd.DataFrame]) -> None:
    facts, table = evaluated
    for column in CERTIFIER_COLUMNS.values():
        assert table[column].notna().all()
    assert set(facts.epsilons["1/16"].certified) == set(CERTIFIERS)
    certified = table["outcome"] == Outcome.CERTIFIED
    assert (table["bab"] == certified).all()
    cheap = table[["ibp", "crown_ibp", "crown"]].any(axis=1)
    assert not (cheap & ~table["alpha_crown"]).any()
    assert not (table["alpha_crown"] & ~table["bab"]).any()


class _StopError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("survives", [0, 1, 4, 9])
def test_killed_and_resumed_gives_the_same_table(
    survives: int,
    evaluated: tuple[Facts, pd.DataFrame],
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = digits
    saved = 0
    save = ChunkStore.save

    def stop_after(self: ChunkStore, name: str, arrays: dict[str, object]) -> None:
        nonlocal saved
        if saved == survives:
            raise _StopError
        saved += 1
        save(self, name, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkStore, "save", stop_after)
        with pytest.raises(_StopError):
            _run(trained, x[:48], y[:48], tmp_path)
    bounded = Prover(trained, (1, 8, 8), 10)
    resumed = make_evaluation(trained, x[:48], y[:48], tmp_path, prover=bounded)
    facts = resumed.run()
    assert resumed.chunks.reused == survives
    table = outcome_table(facts, np.arange(48), y[:48].numpy())
    pd.testing.assert_frame_equal(_without_seconds(table), _without_seconds(evaluated[1]))
    assert all(map(np.array_equal, facts.adversarial, evaluated[0].adversarial))


class _Faulty:
    """Refuses whatever it is asked."""

    crown_macs = 0

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def prove(self, *_: object) -> Proven:
        raise NotCertifiable(self.rule, "planted")

    def search(self, *_: object) -> list[BranchResult]:
        raise NotCertifiable(self.rule, "planted")


def test_a_certifier_that_fails_its_check_counts_as_not_asked(
    trained: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = (part[:16] for part in digits)
    faulty, not_asked = _Faulty("unsupported-operator"), {"CROWN": "too-large: planted"}
    facts = make_evaluation(trained, x, y, tmp_path, prover=faulty, not_asked=not_asked).run()
    assert set(facts.not_asked) == set(CERTIFIERS)
    assert facts.not_asked["CROWN"] == "too-large: planted"
    assert not any("bounds-contradicted" in known.flags for known in facts.epsilons.values())
    table = outcome_table(facts, np.arange(16), digits[1][:16].numpy())
    assert table["ibp"].isna().all()
    assert (table["outcome"] != Outcome.CERTIFIED).all()


def test_a_checker_that_an_image_contradicts_proves_nothing_and_all_is_attacked(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounds a little too high prove some images before one is caught; those count no more."""
    real, num_checked = prover.margins, 0

    def generous(network: Any, low: Any, high: Any, labels: Any, method: str) -> Any:
        nonlocal num_checked
        num_checked += len(low)
        return real(network, low, high, labels, method) + (1e3 if method == "CROWN" else 0.0)

    x, y = (part[:16] for part in digits)
    planted = dict.fromkeys(CERTIFIERS, "planted")
    expected = make_evaluation(trained, x, y, tmp_path / "honest", not_asked=planted).run()
    monkeypatch.setattr(prover, "margins", generous)
    bounded = Prover(trained, (1, 8, 8), 10)
    facts = make_evaluation(trained, x, y, tmp_path / "contradicted", prover=bounded).run()
    assert num_checked
    assert set(facts.not_asked) == set(CERTIFIERS)
    assert all("bounds-contradicted" in reason for reason in facts.not_asked.values())
    for epsilon, known in facts.epsilons.items():
        assert "bounds-contradicted" in known.flags
        assert not known.proven.any() and not known.certified
        assert (known.broken_by == expected.epsilons[epsilon].broken_by).all()
    table = outcome_table(facts, np.arange(16), y.numpy())
    assert table["ibp"].isna().all() and table["bab"].isna().all()
    right = table["outcome"] != Outcome.MISCLASSIFIED
    assert table.loc[right, "autoattack"].notna().all()


def test_a_certifier_that_claims_too_much_is_not_believed(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the library claims, the outcomes are those of an honest library."""
    x, y = (part[:16] for part in digits)
    _, expected = _run(trained, x, y, tmp_path / "honest")

    def greedy(self: BoundedModel, method: str, low: Tensor, *_: Tensor) -> Tensor:
        return torch.full((len(low), 9), 1e9)

    monkeypatch.setattr(BoundedModel, "margins", greedy)
    _, table = _run(trained, x, y, tmp_path / "greedy")
    assert (table["outcome"] == expected["outcome"]).all()
    certified = table["outcome"] == Outcome.CERTIFIED
    assert certified.any() and not certified.all()


def test_an_attack_that_crashes_is_an_error_and_never_robust(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("corobench.benchmark.attacks.autoattack.AutoAttackStandard.build", crash)
    x, y = (part[:16] for part in digits)
    planted = dict.fromkeys(CERTIFIERS, "planted")
    facts = make_evaluation(trained, x, y, tmp_path, not_asked=planted).run()
    table = outcome_table(facts, np.arange(16), digits[1][:16].numpy())
    assert set(table["outcome"]) <= {Outcome.ERROR, Outcome.ATTACKED, Outcome.MISCLASSIFIED}
    assert (table["outcome"] == Outcome.ERROR).any()
    failed = table["outcome"] == Outcome.ERROR
    assert not table.loc[failed, "autoattack"].fillna(False).any()
    assert "attack-error" in facts.epsilons["1/16"].flags


def test_a_certifier_that_lies_is_caught_by_the_audit(
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # These are no published images, which a result's table must hold.
    monkeypatch.setattr("corobench.benchmark.scoring.score.require_belonging", lambda *given: None)

    class Liar:
        """Proves everything."""

        crown_macs = 0

        def prove(self, method: str, low: Tensor, *_: object) -> Proven:
            return Proven(torch.ones(len(low), dtype=torch.bool), torch.ones(len(low)))

    x, y = digits
    facts = make_evaluation(trained, x[:48], y[:48], tmp_path, prover=Liar()).run()
    images = np.arange(48) + 1000
    found = audit(facts, images)
    assert found.num_images == 48
    assert found.contradictions
    assert all("proven by IBP, broken by" in line for line in found.contradictions)
    table, _ = drop_unused(outcome_table(facts, images, y[:48].numpy()), facts.adversarial)
    run = make_run().model_copy(
        update={"n": 48, "epsilons": ("1/16", "2/16"), "audit": found, "not_asked": {}}
    )
    result = score(table, run)
    assert result.is_frozen
    assert result.epsilons["2/16"].counts[Outcome.ATTACKED] == len(found.contradictions)
    with pytest.raises(ResultError, match="proven image that is not certified"):
        score(table, run.model_copy(update={"audit": Audit()}))


def test_the_audit_takes_all_where_there_are_few(evaluated: tuple[Facts, pd.DataFrame]) -> None:
    facts, _ = evaluated
    small, large = facts.epsilons["1/16"], facts.epsilons["2/16"]
    expected_small = np.zeros(48, dtype=bool)
    for group in (FAST.certifiers, FAST.closing_certifiers):
        by_group = np.isin(small.proven_by.astype(str), group)
        expected_small |= by_group & ~np.isin(large.proven_by.astype(str), group)
    assert large.audited.any()
    assert (large.audited == large.proven).all()
    assert (small.audited == expected_small).all()


def test_the_audit_prefers_the_largest_epsilon(
    evaluated: tuple[Facts, pd.DataFrame],
    trained: nn.Module,
    digits: tuple[Tensor, Tensor],
    tmp_path: Path,
) -> None:
    facts, _ = evaluated
    num_large = int(facts.epsilons["2/16"].proven.sum())
    x, y = (part[:48] for part in digits)
    protocol = replace(FAST, audit_images=num_large + 2)
    evaluation = make_evaluation(trained, x, y, tmp_path, protocol=protocol)
    for epsilon, known in facts.epsilons.items():
        evaluation.facts.epsilons[epsilon].proven_by = known.proven_by
    evaluation.choose_audit(CERTIFIERS)
    audited = {e: known.audited for e, known in evaluation.facts.epsilons.items()}
    assert (audited["2/16"] == facts.epsilons["2/16"].proven).all()
    assert audited["1/16"].sum() == 2
    assert facts.epsilons["1/16"].proven[audited["1/16"]].all()
    assert not (audited["1/16"] & audited["2/16"]).any()
