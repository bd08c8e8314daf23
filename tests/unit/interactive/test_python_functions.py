"""The functions on images of one's own, boards, export, the gate: values that can be checked."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import own_networks
import pytest
import torch
from models import NotANumber, Probabilities, exact_linear_margin
from torch import nn

import corobench
from corobench.benchmark.errors import ConfigError, CorobenchError, SubmissionError
from corobench.benchmark.submission.validate import find_submission_faults

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "leaderboard" / "results"
DENSE = RESULTS / "1.0" / "digits" / "digits-adv-dense.json"
Digits = tuple[torch.Tensor, torch.Tensor]
pytest_plugins = ["pytester"]


# ------------------------------------------------------------------------------- the names


def test_what_all_lists_is_there_and_documented() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    for name in corobench.__all__:
        assert getattr(corobench, name) is not None
        assert name == "__version__" or f"`{name}" in text, name
    with pytest.raises(AttributeError, match="evaluat"):
        _ = corobench.evaluat


@pytest.mark.parametrize(
    "first",
    [
        "import corobench",
        "import corobench.leaderboard.build, corobench",
        "import corobench.leaderboard; from corobench import leaderboard; import corobench",
        "import corobench; corobench.entries('digits'); import corobench.leaderboard.pages",
    ],
)
def test_leaderboard_is_package_and_function_in_any_order_of_imports(first: str) -> None:
    code = (
        f"{first}\nboard = corobench.leaderboard('digits', '1/16')\n"
        "import sys, corobench.leaderboard.columns, corobench.benchmark\n"
        "assert board.equals(corobench.leaderboard('digits', '1/16')) and len(board)\n"
        "assert corobench.benchmark.__version__ == corobench.__version__\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------- images of one's own


@pytest.mark.parametrize("epsilon", ["1/16", Fraction(1, 8)])
def test_certify_and_attack_meet_at_the_exact_margin(
    epsilon: str | Fraction, linear: nn.Module, digits: Digits
) -> None:
    x, y = digits[0][:12], digits[1][:12]
    exact = exact_linear_margin(linear, x, y, Fraction(epsilon)) > 0
    proven = corobench.certify(linear, x, y, epsilon)
    assert torch.equal(proven.certified, exact) and not proven.not_asked
    assert all(bool(by) == bool(held) for by, held in zip(proven.certified_by, exact, strict=True))
    found = corobench.attack(linear, x.numpy(), y.tolist(), epsilon, attack="pgd50")
    assert not (exact & found.broken).any() and not (found.broken & ~found.right).any()
    broken = found.adversarial[found.broken]
    assert len(broken) and float(broken.min()) >= 0 and float(broken.max()) <= 1
    assert not (linear(broken).argmax(dim=1) == y[found.broken]).any()
    distance = (broken.double() - x[found.broken].double()).abs().max()
    assert float(distance) <= float(Fraction(epsilon))
    assert f"{int(exact.sum())} of 12 images" in repr(proven)


def test_a_network_without_a_checker_is_not_asked(digits: Digits) -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(self.fc(x.flatten(1)))

    found = corobench.certify(Waves().eval(), digits[0][:3], digits[1][:3], "1/16")
    assert not found.certified.any() and set(found.not_asked) == set(found.not_asked)
    assert len(found.not_asked) == 5 and found.margin.isnan().all()


def test_measure_sees_through_masks(linear: nn.Module) -> None:
    model = own_networks.pruned_cnn(0.25)
    weighed = corobench.measure(model, "digits")
    assert weighed.sparsity == pytest.approx(0.75, abs=0.01)
    assert weighed == corobench.measure(model, shape=(1, 8, 8))
    entry = corobench.measure("digits-ibp-lwm-10x")
    stored = corobench.load_result(RESULTS / "1.1" / "digits" / "digits-ibp-lwm-10x.json")
    assert entry == stored.compactness


# ---------------------------------------------------------------------------------- errors


class _Uncopied(nn.Module):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.lock = threading.Lock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def _wrong(call: str, linear: nn.Module) -> object:
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    evaluate, certify = corobench.evaluate, corobench.certify
    more = {"verbose": False}
    calls = {
        "class": lambda: evaluate(nn.Linear, "digits"),  # type: ignore[arg-type]
        "number": lambda: evaluate(3, "digits"),  # type: ignore[arg-type]
        "nowhere": lambda: evaluate("no/such/folder"),
        "near": lambda: corobench.load_model("digits-ibp-dens"),
        "track": lambda: evaluate(linear, "digit", **more),
        "no track": lambda: evaluate(linear, **more),
        "n": lambda: evaluate(linear, "digits", 0, **more),
        "many": lambda: evaluate(linear, "digits", 501, **more),
        "out": lambda: evaluate(linear, "digits", out="x", **more),
        "float": lambda: certify(linear, x, y, 0.031),  # type: ignore[arg-type]
        "decimal": lambda: evaluate(linear, "digits", epsilons=["0.031"], **more),
        "bytes": lambda: certify(linear, x * 255, y, "1/16"),
        "double": lambda: certify(linear, x.double(), y, "1/16"),
        "labels": lambda: certify(linear, x, [0, 10], "1/16"),
        "certifier": lambda: certify(linear, x, y, "1/16", certifiers=["CRWN"]),
        "attack": lambda: corobench.attack(linear, x, y, "1/16", attack="pgd"),
        "training": lambda: evaluate(own_networks.small_cnn().train(), "digits", **more),
        "probabilities": lambda: evaluate(Probabilities(linear).eval(), "digits", 4, **more),
        "nan": lambda: evaluate(NotANumber(linear).eval(), "digits", 4, **more),
        "shape": lambda: evaluate(nn.Sequential(nn.Flatten()).eval(), "digits", 4, **more),
        "double model": lambda: evaluate(own_networks.small_cnn().double().eval(), "digits", 4),
        "uncopied": lambda: evaluate(_Uncopied().eval(), "digits", 4, **more),
        "result": lambda: corobench.load_result("nowhere.json"),
        "radius": lambda: corobench.leaderboard("digits", "8/255"),
        "board": lambda: corobench.leaderboard("digits", results="nowhere"),
        "measure": lambda: corobench.measure(linear),
        "candidate": lambda: corobench.check(
            3, RESULTS / "1.1" / "digits" / "digits-ibp-dense.json"
        ),  # type: ignore[arg-type]
    }
    return calls[call]()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("class", "expected a torch.nn.Module, but found the class Linear"),
        ("number", "found int"),
        ("nowhere", "no submission folder, no ONNX file"),
        ("near", "did you mean 'digits-ibp-dense'"),
        ("track", "did you mean 'digits'"),
        ("no track", "track: expected"),
        ("n", "n: expected at least 1"),
        ("many", "1 to 500 images"),
        ("out", "corobench.export"),
        ("float", "0.031 is not 8/255"),
        ("decimal", "0.031 is not 8/255"),
        ("bytes", "expected values in [0, 1]"),
        ("double", "expected float32"),
        ("labels", "0 to 9"),
        ("certifier", "did you mean 'CROWN'"),
        ("attack", "did you mean 'pgd50'"),
        ("training", "clause eval-mode"),
        ("probabilities", "clause logits"),
        ("nan", "clause finite"),
        ("shape", "clause output-shape"),
        ("double model", "clause runs"),
        ("uncopied", "copy.deepcopy"),
        ("result", "nothing is there"),
        ("radius", "expected results at 8/255"),
        ("board", "nowhere"),
        ("measure", "shape=(channels, height, width)"),
        ("candidate", "candidate: expected"),
    ],
)
def test_each_mistake_is_one_clear_error(call: str, said: str, linear: nn.Module) -> None:
    with pytest.raises(CorobenchError) as error:
        _wrong(call, linear)
    assert said in str(error.value)


# ---------------------------------------------------------------------------------- boards


def test_the_board_says_what_the_files_say() -> None:
    files = {}
    for path in sorted(RESULTS.glob("*/fashion-mnist/*.json")):  # later rounds come later
        content = json.loads(path.read_text())
        if content["n"] == 1000:
            files[content["entry"]] = content
    board = corobench.leaderboard("fashion-mnist", "1/10").set_index("entry")
    assert set(board.index) == set(files) and board.index.is_unique
    for entry, content in files.items():
        row, score = board.loc[entry], content["epsilons"]["1/10"]
        counts, n = score["counts"], content["n"]
        assert row["num_certified"] == counts["certified"]
        assert row["certified"] == pytest.approx(100 * counts["certified"] / n)
        assert row["num_unbroken"] == n - counts["misclassified"] - counts["attacked"]
        assert row["num_clean"] == content["clean"] and row["num_pgd50"] == score["pgd50"]
        assert row["bytes_packed"] == content["compactness"]["bytes_packed"]
        assert row["protocol"] == content["protocol"] and row["flags"] == ", ".join(score["flags"])
        assert row["method"] == content["submission"]["method"]["name"]
    rounds = board["protocol"].tolist()
    assert rounds == sorted(rounds, reverse=True)
    newest = board[board["protocol"] == rounds[0]]
    assert newest["certified"].is_monotonic_decreasing
    listed = corobench.entries("fashion-mnist")
    assert set(listed["entry"]) == set(files) and "certified" not in listed


def test_families_other_radii_and_other_sizes() -> None:
    board = corobench.leaderboard("digits", Fraction(1, 8)).set_index("entry")  # 2/16 in the files
    assert board.loc["digits-ibp-lwm-10x-int8", "family"] == "digits-ibp-dense"
    assert board.loc["digits-ibp-dense", "family"] == "digits-ibp-dense"
    whole = corobench.leaderboard("fashion-mnist", "1/20", n=10000)
    assert set(whole["n"]) == {10000} and len(whole) == 4


def test_results_of_ones_own_need_nothing_beside_them(tmp_path: Path) -> None:
    place = tmp_path / "1.1" / "digits"
    place.mkdir(parents=True)
    source = RESULTS / "1.1" / "digits" / "digits-ibp-dense.json"
    (place / source.name).write_bytes(source.read_bytes())
    board = corobench.leaderboard("digits", "1/16", results=tmp_path)
    assert board["entry"].tolist() == ["digits-ibp-dense"]


# ---------------------------------------------------------------------------------- export


def test_export_bakes_masks_and_keeps_the_logits(tmp_path: Path, digits: Digits) -> None:
    model = own_networks.pruned_cnn(0.5)
    made = corobench.export(model, tmp_path / "pruned", track="digits", authors=["me"])
    assert find_submission_faults(made.folder) == []
    reloaded = corobench.load_model(made.folder)
    with torch.no_grad():
        assert torch.allclose(reloaded(digits[0]), model(digits[0]), atol=1e-5)
    mine, theirs = corobench.measure(model, "digits"), corobench.measure(made.folder)
    assert (mine.num_nonzero, mine.num_parameters) == (theirs.num_nonzero, theirs.num_parameters)
    assert mine.sparsity == theirs.sparsity == made.sparsity
    assert corobench.measure(made.folder / "model.onnx").num_nonzero == mine.num_nonzero
    assert sorted(path.name for path in made.folder.iterdir()) == ["model.onnx", "submission.toml"]
    with pytest.raises(CorobenchError, match="already exists; expected a new folder"):
        corobench.export(model, made.folder, track="digits")


def test_export_of_what_cannot_be_written_says_the_rule(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="onnx-"):
        corobench.export(own_networks.TinyViT().eval(), tmp_path / "vit", track="digits")
    assert not (tmp_path / "vit").exists()
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 7)).eval()
    with pytest.raises(SubmissionError, match="output-shape"):
        corobench.export(wrong, tmp_path / "seven", track="digits")


# ------------------------------------------------------------------------------------ gate


def test_a_network_in_memory_is_compared_as_what_could_be_shipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    baseline = RESULTS / "1.1" / "digits" / "digits-ibp-dense.json"
    seen: list[Path] = []
    executors = importlib.import_module("corobench.benchmark.executors")
    compare = executors.run_check

    def run(candidate: Path, *more: object, **others: object) -> object:
        seen.append(candidate)
        assert candidate.suffix == ".onnx" and candidate.is_file()
        return compare(baseline, *more, **others)

    monkeypatch.setattr(executors, "run_check", run)
    model = corobench.load_model("digits-ibp-lwm-10x")
    found = corobench.check(model, baseline)
    assert found and found.verdict == "pass" and "a network in memory" in found.checked.candidate
    assert seen and not seen[0].exists()
    assert {"clean", "certified 2/16"} <= set(found.to_frame()["metric"])


def test_a_script_without_a_guard_is_not_run_again_in_the_process(tmp_path: Path) -> None:
    """The weights are the baseline's, so the process loads them and evaluates nothing."""
    script = tmp_path / "script.py"
    baseline = RESULTS / "1.1" / "digits" / "digits-ibp-dense.json"
    script.write_text(
        "import corobench\nprint('once')\n"
        f"print(corobench.check({str(ROOT / 'submissions' / 'digits-ibp-dense')!r}, "
        f"{str(baseline)!r}).verdict)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["once", "pass"], done.stderr


def test_a_failing_fixture_shows_its_table_whole(pytester: pytest.Pytester) -> None:
    arms = [
        str(RESULTS / "1.0" / "digits" / f"digits-adv-{a}-10x.json") for a in ("mismatch", "lwm")
    ]
    pytester.makepyfile(
        f"""
        def test_gate(corobench_gate):
            assert corobench_gate.holds({arms[0]!r}, baseline={arms[1]!r})

        def test_green(corobench_gate):
            assert corobench_gate.holds({arms[1]!r}, baseline={arms[1]!r})
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        ["E * assert <FAIL: *", "*corobench gate*", "*metric*baseline*verdict*", "*packed bytes*"]
    )
    rows = ("certified 1/16 ", "certified 2/16 ", "autoattack 1/16 ", "autoattack 2/16 ")
    table = [line for line in result.outlines if line.strip().startswith(rows)]
    assert len(table) == 4 and all(len(line) <= 80 and "fail" in line for line in table)
    assert "\\n" not in "".join(line for line in result.outlines if "packed bytes" in line)


# --------------------------------------------------------------------------------- showing


def test_a_result_shows_itself_in_80_columns_and_as_a_picture() -> None:
    import xml.etree.ElementTree as ElementTree

    path = RESULTS / "1.1" / "digits" / "digits-ibp-dense.json"
    result = corobench.load_result(path)
    text = repr(result)
    assert all(len(line) <= 80 for line in text.splitlines())
    content = json.loads(path.read_text())
    share = 100 * content["epsilons"]["2/16"]["counts"]["certified"] / content["n"]
    assert f"{share:.1f} %" in text
    page = result._repr_html_()
    assert "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "prefers-color-scheme: dark" in page and "<script" not in page
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    picture = ElementTree.fromstring(svg)
    assert picture.attrib["role"] == "img" and f"{share:.1f} %" in picture.attrib["aria-label"]
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(one.attrib["width"]) for one in picture.iter(f"{space}rect")]
    assert sum(widths) == pytest.approx(2 * 400, abs=1.0)  # each bar is whole


def test_names_of_networks_are_escaped_in_pictures() -> None:
    result = corobench.load_result(RESULTS / "1.1" / "digits" / "digits-ibp-dense.json")
    record = result.record
    titled = record.submission.model_copy(update={"title": "<script>x</script>"})
    hostile = corobench.EvaluationResult(record.model_copy(update={"submission": titled}))
    assert "<script" not in hostile._repr_html_()


def test_a_notebook_has_one_line_that_renews_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    from corobench.benchmark.interactive import progress

    shown: list[str] = []

    class Handle:
        def update(self, line: object) -> None:
            shown.append(repr(line))

    def display(line: object, display_id: bool) -> Handle:
        shown.append(repr(line))
        return Handle()

    python = types.ModuleType("IPython")
    python.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    python.display = types.ModuleType("IPython.display")  # type: ignore[attr-defined]
    python.display.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", python)
    monkeypatch.setitem(sys.modules, "IPython.display", python.display)  # type: ignore[attr-defined]
    with progress.reporter("net", verbose=True) as report:
        assert isinstance(report, progress.NotebookReporter)
        report.stage("clean", 4)
        report.advance(4, "50 %")
        report.finish("4 of 4 right")
    assert any("clean: 4 of 4 images; 50 %" in line for line in shown)
    assert "4 of 4 right" in shown[-2] and shown[-1] == ""


def test_silent_means_silent(linear: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    from corobench.benchmark.interactive.progress import reporter

    with reporter("net", verbose=False) as report:
        report.stage("clean", 4)
        report.say("something")
        report.finish("done")
    assert capfd.readouterr() == ("", "")


def test_numpy_and_lists_are_taken_and_checked(linear: nn.Module) -> None:
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    assert len(corobench.certify(linear, x, np.array([1, 2, 3]), "1/255").right) == 3
    with pytest.raises(ConfigError, match="one for each image"):
        corobench.certify(linear, x, [1, 2], "1/255")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: corobench.leaderboard(3), "track"),
        (lambda: corobench.leaderboard(["digits"]), "track"),
        (lambda: corobench.entries("digits", results=3), "results"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), track=3), "track"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), "digits", epsilons=3), "epsilons"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), "digits", data_root=3), "data_root"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), "digits", cache=3), "cache"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), "digits", name=3), "name"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), "digits", name="a" * 999), "name"),
        (lambda: corobench.evaluate(nn.Linear(1, 1).eval(), "digits", device="tpu"), "tpu"),
        (lambda: corobench.export(nn.Linear(1, 1).eval(), 3, track="digits"), "out"),
        (lambda: corobench.check(*[DENSE] * 2, alpha=2), "alpha"),
        (lambda: corobench.check(*[DENSE] * 2, max_drop=-1), "drop"),
        (lambda: corobench.check(*[DENSE] * 2, max_drop="a"), "drop"),
    ],
)
def test_a_value_of_another_kind_is_one_error_that_names_it(call, named: str) -> None:
    with pytest.raises(CorobenchError, match=named):
        call()
