"""Open images as questions to any verifier, and verdicts that change nothing."""

from __future__ import annotations

import csv
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ConfigError, OutputError, ResultError
from corobench.benchmark.evaluation.evidence import load_evidence
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.referee import threat
from corobench.benchmark.review.vnnlib_files import (
    decimal,
    export_vnnlib,
    question_2,
    read_verdicts,
    see_proofs,
)

ROOT = Path(__file__).parents[2]
ENTRY = "digits-adv-lwm-10x"
RESULT = ROOT / "leaderboard" / "results" / "1.1" / "digits" / f"{ENTRY}.json"
EPSILON = "2/16"

Box = tuple[np.ndarray, np.ndarray]


def parsed(text: str) -> tuple[Box, list[tuple[int, int]]]:
    """A strict reader of what VNN-LIB 1.0 allows here: the box, and pairs (larger, smaller)."""
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    declared: list[str] = []
    cases: list[tuple[int, int]] = []
    for line in text.splitlines():
        if line.startswith(";"):
            continue
        if found := re.fullmatch(r"\(declare-const ([XY]_\d+) Real\)", line):
            declared.append(found[1])
        elif found := re.fullmatch(r"\(assert \(([<>])= X_(\d+) (\d+\.\d+)\)\)", line):
            side = low if found[1] == ">" else high
            assert int(found[2]) not in side
            side[int(found[2])] = float(found[3])
        else:
            whole = re.fullmatch(r"\(assert \(or((?: \(and \(>= Y_\d+ Y_\d+\)\))+)\)\)", line)
            assert whole is not None and not cases, line
            cases = [(int(a), int(b)) for a, b in re.findall(r">= Y_(\d+) Y_(\d+)", whole[1])]
    assert declared == [f"X_{i}" for i in range(len(low))] + [f"Y_{i}" for i in range(10)]
    assert sorted(low) == sorted(high) == list(range(len(low)))
    order = range(len(low))
    return (np.array([low[i] for i in order]), np.array([high[i] for i in order])), cases


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vnnlib") / "questions"
    found = export_vnnlib(RESULT, ROOT / "submissions" / ENTRY, out, epsilon=EPSILON)
    counts = read_result(RESULT).epsilons[EPSILON].counts
    num_open = counts[Outcome.UNDECIDED] + counts[Outcome.TIMEOUT]
    assert num_open and found.num_files == {EPSILON: num_open}
    return out


def test_every_open_image_is_a_question_about_its_box(questions: Path) -> None:
    evidence = load_evidence(RESULT, ROOT / "submissions" / ENTRY)
    rows = evidence.table[evidence.table["epsilon"] == EPSILON]
    rows = rows[rows["outcome"].isin([Outcome.UNDECIDED, Outcome.TIMEOUT])]
    listed = list(csv.reader((questions / "instances.csv").open()))
    assert [line[0] for line in listed] == ["model.onnx"] * len(rows)
    assert {line[1] for line in listed} == {path.name for path in questions.glob("*.vnnlib")}
    for row in rows.itertuples():
        text = (questions / f"image-{row.image}-2_16.vnnlib").read_text()
        (low, high), cases = parsed(text)
        x = torch.from_numpy(evidence.dataset.take([row.image]))
        expected = threat.box(x, Fraction(EPSILON))
        assert np.array_equal(low, expected[0].double().numpy().ravel())
        assert np.array_equal(high, expected[1].double().numpy().ravel())
        assert cases == [(other, row.label) for other in range(10) if other != row.label]


def test_the_network_is_the_submitted_one(questions: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    evidence = load_evidence(RESULT, ROOT / "submissions" / ENTRY)
    session = runtime.InferenceSession(
        (questions / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    x = evidence.dataset.take(range(8))
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.no_grad():
        logits = evidence.submission.model.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_the_newer_format_is_what_its_parser_reads() -> None:
    vnnlib = pytest.importorskip("vnnlib")
    low, high = np.zeros((1, 2, 2), np.float32), np.full((1, 2, 2), 2.0**-7, np.float32)
    query = vnnlib.parse_query_string(question_2(low, high, 1, 3, "a title"))
    told = [re.sub(r"\s", "", str(one)) for one in query.assertions]
    assert len(told) == 2 * 4 + 1
    assert told[1] == "(assert(<=X[0,0,0,0]0.0078125))"
    assert told[-1] == "(assert(or(>=Y[0,0]Y[0,1])(>=Y[0,2]Y[0,1])))"


def test_decimals_are_exact_and_have_no_exponent() -> None:
    draw = np.random.default_rng(0)
    for value in np.concatenate([draw.random(50), 2.0 ** -draw.integers(1, 60, 50)]):
        text = decimal(np.float32(value))
        assert Fraction(text) == Fraction(float(np.float32(value)))
        assert re.fullmatch(r"\d+\.\d+", text)


def test_what_is_refused(questions: Path, tmp_path: Path) -> None:
    folder = ROOT / "submissions" / ENTRY
    with pytest.raises(OutputError, match="already exists"):
        export_vnnlib(RESULT, folder, questions)
    with pytest.raises(ConfigError, match="expected one of 1/16, 2/16"):
        export_vnnlib(RESULT, folder, tmp_path / "new", epsilon="1/8")
    with pytest.raises(ConfigError, match="VNN-LIB version"):
        export_vnnlib(RESULT, folder, tmp_path / "new", version="3.0")
    with pytest.raises(ResultError, match="does not belong to the weights"):
        export_vnnlib(RESULT, ROOT / "submissions" / "digits-adv-dense", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def verdicts(tmp_path: Path, **of: str) -> Path:
    """A verdict on the first image of each outcome."""
    table, _ = read_outcomes(RESULT.with_suffix(".outcomes.parquet"))
    table = table[table["epsilon"] == EPSILON]
    path = tmp_path / "verdicts.csv"
    lines = []
    for outcome, verdict in of.items():
        image = table.loc[table["outcome"] == outcome, "image"].iloc[0]
        lines.append(f"questions/image-{image}-2_16.vnnlib,{verdict},12.5\n")
    path.write_text("".join(lines))
    return path


def test_verdicts_are_shown_and_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in RESULT.parent.glob(f"{ENTRY}*")}
    path = verdicts(tmp_path, undecided="unsat", attacked="unsat", certified="sat")
    found = see_proofs(RESULT, path)
    assert found.seen == {"1/16": {}, EPSILON: {"unsat": 1, "decided": 2}}
    assert found.num_unknown == 0
    assert ["unsat, but it is attacked" in one for one in found.against].count(True) == 1
    assert ["sat, but it is certified" in one for one in found.against].count(True) == 1
    assert invoke(["contest", str(RESULT), "--proof", str(path)]) == 0
    told = capsys.readouterr().out
    assert "for who believes this verifier" in told
    assert "corobench believes only its own checker" in told
    assert {path: path.read_bytes() for path in RESULT.parent.glob(f"{ENTRY}*")} == before


@pytest.mark.parametrize("more", [["--write"], ["--by", "A. Rival"], ["found.npz"]])
def test_verdicts_are_never_written(
    tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = verdicts(tmp_path, undecided="unsat")
    given = ["contest", str(RESULT), *more, "--proof", str(path)]
    assert invoke(given) == 2
    assert "--proof" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "image-1-2_16.vnnlib",
        "image-1-2_16.vnnlib,proven",
        "../../secret,unsat",
        "image-1-2_16.vnnlib,unsat\nimage-1-2_16.vnnlib,sat",
        "image-1-2_16.txt,unsat",
    ],
)
def test_verdicts_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"verdicts\.csv"):
        read_verdicts(path)


def test_verdicts_on_other_images_and_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text("image-999999-2_16.vnnlib,unsat\n")
    with pytest.raises(ResultError, match="no verdict is about an image"):
        see_proofs(RESULT, path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultError, match="UTF-8"):
        read_verdicts(path)
    with pytest.raises(ResultError, match="expected a file"):
        read_verdicts(tmp_path / "none.csv")
