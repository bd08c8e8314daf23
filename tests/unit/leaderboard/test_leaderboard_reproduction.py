"""The report says what the outcome tables say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmark.cli import invoke
from benchmark.errors import ResultError
from leaderboard.reproduction import average, compare, find_families, report

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "leaderboard" / "results" / "1.0" / "digits"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "1.0" / "digits"
    folder.mkdir(parents=True)
    for entry in ("dense", "lwm-10x", "mismatch-10x", "random-10x"):
        for file in RESULTS.glob(f"digits-adv-{entry}.*"):
            shutil.copy(file, folder / file.name)
    return tmp_path


def test_families_are_children_beside_their_parent(results: Path) -> None:
    (family,) = find_families([results])
    assert family.name == "digits-adv-dense"
    assert [child.is_papers for child in family.children] == [True, False, False]
    assert all(child.times == pytest.approx(10, abs=0.1) for child in family.children)
    raw = json.loads((RESULTS / "digits-adv-lwm-10x.json").read_text())["epsilons"]["2/16"]
    dense = json.loads((RESULTS / "digits-adv-dense.json").read_text())["epsilons"]["2/16"]
    kept = family.children[0].kept["autoattack"]
    assert kept is not None
    assert kept.rate == pytest.approx(raw["autoattack"] / dense["autoattack"])
    assert kept.low < kept.rate < kept.high
    assert average([family], "autoattack") == kept
    assert average([family], "vra") is None, "this family is not trained to be verified"


def test_a_family_is_compared_at_the_radius_its_kind_is_trained_at() -> None:
    found = {one.name: one.epsilon for one in find_families([ROOT / "leaderboard" / "results"])}
    assert found["digits-ibp-dense"] == "2/16"
    assert found["fashion-mnist-adv-dense"] == "1/10"
    assert found["cifar10-ibp-dense"] == "2/255"


def test_every_claim_is_corrected_for_all_of_them(results: Path) -> None:
    comparisons = compare(find_families([results]))
    assert len(comparisons) == 4
    assert all(one.p_holm >= one.p_value for one in comparisons)
    assert sum(one.p_holm > one.p_value for one in comparisons) == 3
    mismatch = [one for one in comparisons if "natural" in one.rival]
    assert all(one.verdict == "the paper's method is better" for one in mismatch)


def test_the_command_prints_or_writes(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["report", str(results)]) == 0
    printed = capsys.readouterr().out
    assert invoke(["report", str(results), "--out", str(tmp_path / "r.md")]) == 0
    assert (tmp_path / "r.md").read_text("utf-8") == printed == report([results])
    assert "| LWM 10x (the paper's) | 1/9.99 |" in printed
    assert invoke(["report", str(results), "--out", str(tmp_path / "no" / "r.md")]) == 2


def test_what_is_missing_is_named(results: Path) -> None:
    table = results / "1.0" / "digits" / "digits-adv-lwm-10x.outcomes.parquet"
    table.unlink()
    with pytest.raises(ResultError, match=r"digits-adv-lwm-10x\.outcomes\.parquet"):
        report([results])
    only = results / "1.0" / "digits" / "digits-adv-random-10x.json"
    with pytest.raises(ResultError, match="beside the results of their parents"):
        report([only])


def test_text_of_a_submission_stays_text(results: Path) -> None:
    path = results / "1.0" / "digits" / "digits-adv-random-10x.json"
    raw = json.loads(path.read_text())
    raw["submission"]["method"]["name"] = "a|b <script> `x` [l](u)"
    path.write_text(json.dumps(raw))
    text = report([results])
    assert "a\\|b &lt;script&gt; \\`x\\` \\[l\\](u)" in text
    assert "<script>" not in text
