"""``corobench check`` as a project uses it: green, red, bad input, reports, the pytest fixture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from reissue import reissue

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ContradictionError
from corobench.benchmark.gate.evaluation import threads_for
from corobench.benchmark.gate.rule import Rule
from corobench.benchmark.gate.run import compare_with_baseline
from corobench.pytest_plugin import Gate

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "leaderboard" / "results" / "1.0" / "digits"
PAPER, MISMATCH = (RESULTS / f"digits-adv-{arm}-10x.json" for arm in ("lwm", "mismatch"))
pytest_plugins = ["pytester"]


def test_a_result_against_itself_is_green(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["check", str(PAPER), "--baseline", str(PAPER)]) == 0
    assert "PASS (500 of 500 images" in capsys.readouterr().out


def test_the_mismatched_arm_is_red_against_the_papers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, report, junit = (tmp_path / name for name in ("summary.md", "gate.json", "gate.xml"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    options = ["--json", str(report), "--junit", str(junit)]
    assert invoke(["check", str(MISMATCH), "--baseline", str(PAPER), *options]) == 1
    assert "::error title=corobench::certified 2/16: 71.2 % to " in capsys.readouterr().out
    assert "FAIL" in summary.read_text() and "| certified 2/16 |" in summary.read_text()
    content = json.loads(report.read_text())
    assert content["verdict"] == "fail" and content["n"] == content["total"] == 500
    failing = {
        f"{m['metric']} {m['epsilon']}" for m in content["metrics"] if m["verdict"] == "fail"
    }
    assert {"certified 2/16", "autoattack 2/16"} <= failing
    suite = ElementTree.parse(junit).getroot()
    assert int(suite.attrib["failures"]) == len(failing)
    assert int(suite.attrib["tests"]) == len(content["metrics"]) + 1


def test_a_better_candidate_is_green(capsys: pytest.CaptureFixture[str]) -> None:
    """The other way round the paper's arm gains; only where it loses by chance it may warn."""
    assert invoke(["check", str(PAPER), "--baseline", str(MISMATCH)]) == 0


@pytest.mark.parametrize(
    ("candidate", "baseline", "said"),
    [
        ("missing", str(PAPER), "missing"),
        (str(PAPER), "nowhere.json", "nowhere.json: cannot be read"),
        (
            str(RESULTS.parent / "fashion-mnist" / "fashion-mnist-ibp-dense.json"),
            str(PAPER),
            "track: expected 'digits'",
        ),
    ],
)
def test_bad_input(
    candidate: str, baseline: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["check", candidate, "--baseline", baseline]) == 2
    assert said in capsys.readouterr().err


def test_a_result_without_its_table_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = shutil.copy(PAPER, tmp_path / "robustness.json")
    for command in (["check", str(alone), "--baseline", str(PAPER)], ["check", str(PAPER)]):
        more = [] if "--baseline" in command else ["--baseline", str(alone)]
        assert invoke([*command, *more]) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'robustness.outcomes.parquet'}: expected the outcome table" in said


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's arm as a result of the present protocol, with which a network is compared."""
    return reissue(PAPER, tmp_path_factory.mktemp("today"))


@pytest.fixture
def _no_autoattack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, for time."""
    from corobench.benchmark.attacks.pgd import PGD

    def weak(self: object) -> PGD:
        attack = PGD(10, 1, 0.25)
        attack.name = "autoattack"
        return attack

    monkeypatch.setattr("corobench.benchmark.evaluation.pipeline.Evaluation.autoattack", weak)


@pytest.mark.usefixtures("_no_autoattack")
def test_an_onnx_file_needs_no_folder(today: Path, tmp_path: Path) -> None:
    from corobench.benchmark.submission.converting import to_onnx

    file = to_onnx(ROOT / "submissions" / "digits-adv-mismatch-10x", tmp_path / "x").folder
    model = (file / "model.onnx").rename(tmp_path / "model.onnx")
    found = Gate().holds(model, today, isolate=False)
    assert not found and found.checked.n == 50 and found.checked.candidate == str(model)
    assert found.checked.size.candidate == found.checked.size.baseline
    failing = {one.paired.name for one in found.checked.judged if one.verdict == "fail"}
    assert "certified 2/16" in failing and "clean" not in failing


def test_a_damaged_onnx_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    assert invoke(["check", str(path), "--baseline", str(PAPER)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said and "onnx-damaged" in said


@pytest.mark.usefixtures("_no_autoattack")
def test_a_broken_proof_ends_the_check(today: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certifier that proves everything is caught by the audit: exit code 3."""
    from corobench.benchmark.certify import Proven, Prover

    def credulous(self: Prover, method: str, x: torch.Tensor, *rest: object) -> Proven:
        return Proven(torch.ones(len(x), dtype=torch.bool), torch.full((len(x),), 1000.0))

    monkeypatch.setattr(Prover, "prove", credulous)
    folder = ROOT / "submissions" / "digits-adv-mismatch-10x"
    with pytest.raises(ContradictionError, match="certified images were broken") as caught:
        compare_with_baseline(folder, today, Rule())
    assert caught.value.exit_code == 3


@pytest.mark.usefixtures("_no_autoattack")
def test_a_folder_is_evaluated_until_the_verdict_is_settled(today: Path) -> None:
    """The mismatched arm is red after the first tenth."""
    folder = ROOT / "submissions" / "digits-adv-mismatch-10x"
    found = Gate().holds(folder, today, isolate=False)
    assert not found
    assert found.checked.n < found.checked.total and found.checked.is_settled_early
    assert "certified 2/16" in repr(found) and "FAIL" in repr(found)
    same = Gate().holds(ROOT / "submissions" / "digits-adv-lwm-10x", today)
    assert same and "same weights as the baseline" in same.checked.notes[-1]


@pytest.mark.parametrize(("macs", "inside"), [(1_000_000, 1), (1_000_001, 2)])
def test_a_small_network_keeps_to_one_thread(macs: int, inside: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), threads_for(macs):
            assert torch.get_num_threads() == inside
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_fixture_in_a_projects_own_tests(pytester: pytest.Pytester) -> None:
    for path in RESULTS.glob("digits-adv-*-10x.*"):
        shutil.copy(path, pytester.path)
    pytester.makepyfile(
        """
        def test_green(corobench_gate):
            assert corobench_gate.holds("digits-adv-lwm-10x.json", "digits-adv-lwm-10x.json")

        def test_red(corobench_gate):
            baseline = "digits-adv-lwm-10x.json"
            assert corobench_gate.holds("digits-adv-mismatch-10x.json", baseline=baseline)
        """
    )
    found = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["*certified 2/16*71.2 %*fail*"])
