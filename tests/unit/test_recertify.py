"""A stored result with today's certificates: the same as a new evaluation, without its attacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_factory import use_attacks

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evaluate import evaluate
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.evaluation.jobs import Arrays, Job
from corobench.benchmark.evaluation.outcomes import drop_unused
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.evaluation.workbench import Workbench
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.review import recheck, reprove
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.scoring.score import score

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "submissions" / "digits-adv-lwm-10x"
EPSILONS = ("1/16", "2/16")
#: What an evaluation finds; the seconds differ each time.
FOUND = ["image", "label", "predicted", "epsilon", "outcome", "pgd50", "autoattack", "crown", "bab"]


def _shorten(patch: pytest.MonkeyPatch) -> None:
    suite = AutoAttackStandard(10, batch_size=8, square_queries=50)
    use_attacks(patch, pgd=PGD(50, 1, 0.1), autoattack=suite)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch)
        settings = Settings(n=16, out=tmp_path_factory.mktemp("fresh"))
        return evaluate(ENTRY, settings)


@pytest.fixture(autouse=True)
def _short_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    _shorten(monkeypatch)


def _again(earlier: Path, out: Path) -> tuple[Evaluated, pd.DataFrame]:
    done = evaluate(ENTRY, Settings(out=out, earlier=earlier))
    table, _ = read_outcomes(beside(done.path, "outcomes.parquet"))
    return done, table


def _called_certified(table: pd.DataFrame, carried_from: str | None = "") -> None:
    """Every row that was broken, in place; None carries it from itself.

    What is proven is proven in every smaller ball: there, rows that nothing broke are carried.
    """
    broken = table["outcome"] == Outcome.ATTACKED
    assert broken.any()
    proven = table["image"].isin(table.loc[broken, "image"])
    table.loc[proven, ["outcome", "decided_by", "carried_from", "adversarial", "margin"]] = [
        Outcome.CERTIFIED.value,
        "IBP",
        EPSILONS[-1],
        -1,
        1.0,
    ]
    table.loc[proven, ["ibp", "crown_ibp", "crown", "alpha_crown", "bab"]] = True
    table.loc[proven, ["pgd50", "autoattack"]] = True
    own = table.loc[broken, "epsilon"]
    table.loc[broken, "carried_from"] = own if carried_from is None else carried_from


def _forged(fresh: Evaluated, folder: Path) -> Path:
    """The result with every image that was broken called certified."""
    source = fresh.path
    table, run = read_outcomes(beside(source, "outcomes.parquet"))
    _called_certified(table)
    path = folder / source.parent.parent.name / source.parent.name / source.name
    path.parent.mkdir(parents=True)
    images = np.zeros((0, 1, 8, 8), dtype=np.float32)
    write_set(path, table, run, images)
    return path


def test_it_finds_what_a_new_evaluation_finds_without_attacking(
    fresh: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked = []
    whole = Workbench.compute

    def counted(self: Workbench, job: Job) -> Arrays:
        # The health checks have attacks of their own.
        if job.kind == "attack" and not job.name.startswith("health"):
            attacked.extend(job.rows)
        return whole(self, job)

    monkeypatch.setattr(Workbench, "compute", counted)
    done, table = _again(fresh.path, tmp_path)
    before, _ = read_outcomes(beside(fresh.path, "outcomes.parquet"))
    pd.testing.assert_frame_equal(table[FOUND], before[FOUND])
    assert attacked == []
    assert done.result.earlier is not None
    assert done.result.earlier.identity == fresh.result.identity
    assert done.result.identity != fresh.result.identity
    images, stored = (load_adversarial(path) for path in (done.path, fresh.path))
    assert {image.tobytes() for image in images} == {image.tobytes() for image in stored}


def test_what_was_falsely_certified_is_attacked(fresh: Evaluated, tmp_path: Path) -> None:
    done, table = _again(_forged(fresh, tmp_path / "forged"), tmp_path / "new")
    before, _ = read_outcomes(beside(fresh.path, "outcomes.parquet"))
    # Later parts of AutoAttack draw other random numbers; few queries feel that.
    kept = [column for column in FOUND if column != "autoattack"]
    pd.testing.assert_frame_equal(table[kept], before[kept])
    assert done.result.epsilons["2/16"].counts == fresh.result.epsilons["2/16"].counts


def test_a_certificate_that_does_not_follow_is_named(
    fresh: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recheck.recheck(fresh.path, ENTRY)
    assert whole.num_proofs == sum(
        score.counts[Outcome.CERTIFIED] for score in fresh.result.epsilons.values()
    )
    assert whole.num_proofs > 0 and whole.unproven == () and whole.failures == ()
    forged = _forged(fresh, tmp_path / "forged")
    found = recheck.recheck(forged, ENTRY)
    assert len(found.unproven) == sum(
        score.counts[Outcome.ATTACKED] for score in fresh.result.epsilons.values()
    )
    assert all("its proof by IBP is not confirmed" in line for line in found.unproven)
    assert recheck.recheck(forged, ENTRY, proofs=False).num_proofs is None
    assert invoke(["recheck", str(forged), "--submission", str(ENTRY), "--no-isolate"]) == 2
    assert "certificates are not confirmed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("carried_from", [None, "1/16", "2/16"])
def test_a_proof_that_is_carried_from_nowhere_is_checked_where_it_stands(
    fresh: Evaluated, carried_from: str | None
) -> None:
    """No reader takes such a table; if one did, each row would be checked where it stands."""
    table, run = read_outcomes(beside(fresh.path, "outcomes.parquet"))
    broken = table["outcome"] == Outcome.ATTACKED
    _called_certified(table, carried_from)
    with pytest.raises(ResultError, match="carried_from at"):
        score(drop_unused(table, [])[0], run)
    assert set(table.index[broken]) <= set(reprove.to_check(table).index)


def test_a_prediction_that_the_network_does_not_give_is_named(
    fresh: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, run = read_outcomes(beside(fresh.path, "outcomes.parquet"))
    image = table.loc[table["outcome"] == Outcome.CERTIFIED, "image"].iloc[0]
    rows = table["image"] == image
    table.loc[rows, "predicted"] = (table.loc[rows, "label"] + 1) % 10
    table.loc[rows, ["outcome", "decided_by", "carried_from"]] = ["misclassified", "clean", ""]
    table.loc[rows, ["ibp", "crown_ibp", "crown", "alpha_crown", "bab"]] = pd.NA
    table.loc[rows, ["pgd50", "autoattack"]] = False
    table.loc[rows, "margin"] = pd.NA
    table.loc[rows, "adversarial"] = -1
    forged = tmp_path / fresh.path.parent.parent.name / "digits" / fresh.path.name
    forged.parent.mkdir(parents=True)
    write_set(forged, table, run, load_adversarial(fresh.path))
    assert recheck.recheck(forged, ENTRY).moved == (f"image {image}: the model gets it right",)
    assert invoke(["recheck", str(forged), "--submission", str(ENTRY), "--no-isolate"]) == 2
    assert "1 predictions are not confirmed" in " ".join(capsys.readouterr().err.split())


def test_a_network_that_the_checker_does_not_know_is_one_clear_error(
    fresh: Evaluated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*_: object) -> None:
        raise UncheckableError("the layer Softsign")

    monkeypatch.setattr(reprove, "read_network", unknown)
    assert invoke(["recheck", str(fresh.path), "--submission", str(ENTRY), "--no-isolate"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the checker does not know the layer Softsign" in said and "Traceback" not in said


def test_a_stored_image_or_prediction_that_does_not_hold_is_refused(
    fresh: Evaluated, tmp_path: Path
) -> None:
    table, run = read_outcomes(beside(fresh.path, "outcomes.parquet"))
    images = load_adversarial(fresh.path)
    place = Path(fresh.path.parent.parent.name) / fresh.path.parent.name / fresh.path.name
    moved = tmp_path / "moved" / place
    moved.parent.mkdir(parents=True)
    write_set(moved, table, run, np.zeros_like(images))
    with pytest.raises(ResultError, match="adversarial image at position"):
        _again(moved, tmp_path / "new")


def test_attacks_that_were_set_otherwise_are_not_taken_over(
    fresh: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corobench.benchmark.evaluation import recertify
    from corobench.benchmark.tracks import Protocol

    monkeypatch.setattr(recertify, "Protocol", lambda: replace(Protocol(), pgd_steps=51))
    with pytest.raises(ResultError, match="pgd_steps"):
        _again(fresh.path, tmp_path)


@pytest.mark.slow
def test_a_published_row_keeps_its_evidence(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    old = ROOT / "leaderboard" / "results" / "1.0" / "digits" / "digits-ibp-lwm-10x.json"
    assert invoke(["recertify", str(old), "--out", str(tmp_path)]) == 0
    new = read_result(tmp_path / "1.1" / "digits" / old.name)
    then = read_result(old)
    for epsilon, found in new.epsilons.items():
        assert abs(found.counts["certified"] - then.epsilons[epsilon].counts["certified"]) <= 2
        assert found.pgd50 == then.epsilons[epsilon].pgd50
