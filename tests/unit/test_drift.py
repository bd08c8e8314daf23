"""``corobench drift``: what moved between two evaluations, and a sample evaluated again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.evaluation.evaluate import Settings, evaluate
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.evaluation.pipeline import Evaluation
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.review import drift
from corobench.benchmark.review.drift import SCHEMA
from corobench.benchmark.review.replay import replay
from corobench.benchmark.scoring.result_writing import write_set

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "leaderboard" / "results" / "1.0" / "digits"
ENTRY = "digits-ibp-lwm-10x"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A copy of a published result, as another environment would have written it."""
    for path in PUBLISHED.glob(f"{ENTRY}.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / f"{ENTRY}.json"
    _rewrite(path, lambda table: table)
    return path


def _rewrite(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table, run = read_outcomes(beside(path, "outcomes.parquet"))
    run = run.model_copy(update={"versions": run.versions | {"torch": "9.9"}})
    write_set(path, change(table), run)


def _rows(table: pd.DataFrame, epsilon: str, outcome: str, num: int) -> pd.Index:
    return table[(table["epsilon"] == epsilon) & (table["outcome"] == outcome)].index[:num]


def test_nothing_moves_but_the_version(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["drift", str(PUBLISHED / other.name), str(other)]) == 0
    said = capsys.readouterr().out
    assert "500 of 500 images" in said and "→ 9.9" in said


def test_more_than_allowed_moved(
    other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CROWN loses 30 of 500 proofs that others hold: 6 %, and 5 % may move."""

    def lose(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[(table["epsilon"] == "2/16") & table["crown"].fillna(False) & table["ibp"]]
        table.loc[rows.index[:30], "crown"] = False
        return table

    _rewrite(other, lose)
    report = tmp_path / "drift.json"
    command = ["drift", str(PUBLISHED / other.name), str(other)]
    assert invoke([*command, "--json", str(report)]) == 1
    assert "too much drift: CROWN 2/16: 30 of 500 images changed" in capsys.readouterr().out
    assert invoke([*command, "--max-moved", "6"]) == 0
    content = json.loads(report.read_text())
    (moved,) = [one for one in content["stages"] if one["num_moved"]]
    assert (moved["name"], len(moved["lost"]), moved["won"]) == ("CROWN", 30, [])
    assert 0.06 < moved["at_most_rate"] < 0.09
    assert list(content["versions"]) == ["torch"]


def test_one_clean_prediction_is_too_much(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def flip(table: pd.DataFrame) -> pd.DataFrame:
        wrong = _rows(table, "1/16", "misclassified", 1)
        image = table.loc[wrong[0], "image"]
        rows = table["image"] == image
        table.loc[rows, "predicted"] = (table.loc[rows, "predicted"] + 1) % 10
        table.loc[rows & (table["predicted"] == table["label"]), "predicted"] = 11
        return table

    _rewrite(other, flip)
    command = ["drift", str(PUBLISHED / other.name), str(other), "--max-moved", "100"]
    assert invoke(command) == 1
    assert "too much drift: clean: 1 of 500" in capsys.readouterr().out


def test_a_proof_that_is_broken_elsewhere_is_a_contradiction(
    other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(table: pd.DataFrame) -> pd.DataFrame:
        row = _rows(table, "2/16", "certified", 1)
        table.loc[row, ["outcome", "decided_by"]] = ["attacked", "apgd-ce"]
        table.loc[row, ["ibp", "crown_ibp", "crown", "alpha_crown", "bab"]] = False
        table.loc[row, "autoattack"] = False
        table.loc[row, "adversarial"] = 0
        # The proof in the smaller ball is its own now.
        rest = (table["image"] == table.loc[row[0], "image"]) & (table["carried_from"] == "2/16")
        table.loc[rest, "carried_from"] = ""
        table.loc[rest, "margin"] = 0.5
        return table

    _rewrite(other, broken)
    assert invoke(["drift", str(PUBLISHED / other.name), str(other)]) == 3
    assert "(old), broken by apgd-ce (new)" in capsys.readouterr().err


def test_only_the_same_evaluation_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(PUBLISHED / f"{name}.json") for name in (ENTRY, "digits-ibp-dense")]
    assert invoke(["drift", *paths]) == 2
    assert "weights_sha256: expected" in capsys.readouterr().err


def test_margins_are_compared_where_the_same_bound_proved_the_image() -> None:
    table, _ = read_outcomes(PUBLISHED / f"{ENTRY}.outcomes.parquet")
    moved = table.copy()
    proven = (table["epsilon"] == "1/16") & (table["decided_by"] == "IBP")
    row = table[proven & table["margin"].notna()].index[0]
    moved.loc[row, "margin"] += np.float32(0.5)
    stages, margins, contradictions = drift.compare(table, moved)
    assert margins["1/16"] == pytest.approx(0.5) and margins["2/16"] == 0
    assert sum(stage.num_moved for stage in stages) == 0 and contradictions == ()
    moved.loc[row, "decided_by"] = "BaB"
    assert drift.compare(table, moved)[1]["1/16"] == 0


def test_what_only_one_answered_has_not_moved() -> None:
    table, _ = read_outcomes(PUBLISHED / f"{ENTRY}.outcomes.parquet")
    fewer = table.copy()
    fewer.loc[fewer["epsilon"] == "1/16", "bab"] = pd.NA
    stages, _, _ = drift.compare(table, fewer)
    (bab,) = [one for one in stages if (one.name, one.epsilon) == ("BaB", "1/16")]
    assert (bab.num_compared, bab.num_unanswered, bab.rate, bab.at_most_rate) == (0, 500, 0, 1)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh result on 120 images, with a short PGD in AutoAttack's place, for time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "autoattack", _short)
        settings = Settings(n=120, out=tmp_path_factory.mktemp("results"))
        return evaluate(ROOT / "submissions" / ENTRY, settings).path


def _short(self: Evaluation) -> PGD:
    attack = PGD(10, 1, 0.25)
    attack.name = "autoattack"
    return attack


@pytest.mark.parametrize("seed", [0, 1])
def test_under_the_same_versions_a_sample_gives_the_same_answers(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(Evaluation, "autoattack", _short)
    found = replay(evaluated, ROOT / "submissions" / ENTRY, num_images=30, seed=seed)
    assert (found.num_images, found.n, found.versions) == (30, 120, {})
    assert found.contradictions == () and found.no_longer_wrong == () and found.moved_too_much == ()
    for stage in found.stages:
        assert stage.num_compared == (120 if stage.name == "clean" else 30) or stage.name in (
            "alpha-CROWN",
            "BaB",
        )
        assert stage.num_moved == 0, stage
    assert all(change is None or change < 1e-5 for change in found.margin_change.values())
    assert found.logits is not None and len(found.logits) == 30
    assert drift.logit_change(found.logits, found.logits) == 0


def test_a_stored_image_that_fools_nobody_is_noticed(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluation, "autoattack", _short)
    for path in evaluated.parent.glob(f"{evaluated.stem}.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / evaluated.name
    forged = np.zeros_like(load_adversarial(path))
    write_set(path, *read_outcomes(beside(path, "outcomes.parquet")), forged)
    found = replay(path, ROOT / "submissions" / ENTRY, num_images=1)
    assert found.no_longer_wrong
    assert any("stored adversarial images" in reason for reason in found.moved_too_much)


def test_what_was_evaluated_by_other_rules_is_not_evaluated_again(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in evaluated.parent.glob(f"{evaluated.stem}.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / evaluated.name
    table, run = read_outcomes(beside(path, "outcomes.parquet"))
    write_set(path, table, run.model_copy(update={"settings": run.settings | {"pgd_steps": 7}}))
    assert invoke(["drift", str(path), str(ROOT / "submissions" / ENTRY)]) == 2
    assert "(pgd_steps)" in capsys.readouterr().err


def test_the_logits_of_an_earlier_report(
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Evaluation, "autoattack", _short)
    report = tmp_path / "report.json"
    entry = str(ROOT / "submissions" / ENTRY)
    command = ["drift", str(evaluated), entry, "--sample", "5"]
    assert invoke([*command, "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    first = next(iter(content["logits"]))
    content["logits"][first][0] += 0.25
    report.write_text(json.dumps(content))
    capsys.readouterr()
    assert invoke([*command, "--since", str(report)]) == 0
    assert "largest change of a clean logit: 0.25" in capsys.readouterr().out


def test_what_is_no_earlier_report_is_told_before_the_work(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    nowhere = str(tmp_path / "no-submission")
    for wrong in ({}, {"schema": SCHEMA, "entry": "another", "logits": {"1": [0.0]}}):
        report.write_text(json.dumps(wrong))
        assert invoke(["drift", str(evaluated), nowhere, "--since", str(report)]) == 2
        error = capsys.readouterr().err
        assert "expected a report of `corobench drift --json`" in error and ENTRY in error


@pytest.mark.parametrize(
    "row", [None, 3.0, "0.5", {}, [], [0.5] * 9, [0.5] * 9 + ["x"], [0.5] * 9 + [True]]
)
def test_logits_of_an_earlier_report_are_one_number_for_each_class(
    row: object, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    logits = {"3": [0.0] * 10, "1": row}
    report.write_text(json.dumps({"schema": SCHEMA, "entry": ENTRY, "logits": logits}))
    assert invoke(["drift", str(evaluated), "nowhere", "--since", str(report)]) == 2
    error = capsys.readouterr().err
    assert f"{report}: logits.1: expected 10 numbers" in error
