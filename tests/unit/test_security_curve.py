"""Security curves: measured cheaply beside a result, read strictly, drawn closed by monotony."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from leaderboard_factory import make_result, make_score, write_result

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.steps import Ended, Steps
from corobench.benchmark.records.curve import curve_path
from corobench.benchmark.records.reading.curve_file import MAX_BYTES, read_curve
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result
from corobench.benchmark.tracks import parse_epsilon
from corobench.leaderboard.build import build_site
from corobench.leaderboard.loading import load_results
from corobench.leaderboard.security import points

ROOT = Path(__file__).parents[2]
ENTRY = "digits-ibp-lwm-10x"
FOLDER = ROOT / "submissions" / ENTRY


@pytest.fixture
def result_path(tmp_path: Path) -> Path:
    """A copy of a published result."""
    folder = tmp_path / "results" / "1.0" / "digits"
    folder.mkdir(parents=True)
    for path in (ROOT / "leaderboard" / "results" / "1.0" / "digits").glob(f"{ENTRY}.*"):
        shutil.copy(path, folder)
    return folder / f"{ENTRY}.json"


def test_a_curve_is_measured_resumed_and_left_alone(
    result_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stopped run goes on from its chunks and writes the bytes of one that was not stopped."""
    from corobench.benchmark.records import curve as record
    from corobench.benchmark.review import curve as measuring

    monkeypatch.setattr(record, "GRID", (Fraction(1, 8),))
    before = {path: path.read_bytes() for path in result_path.parent.iterdir()}
    attack = measuring.CurveEvaluation.attack

    def stop(self: Any, attack: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring.CurveEvaluation, "attack", stop)
    with pytest.raises(KeyboardInterrupt):
        measuring.measure_curve(result_path, FOLDER)
    chunks = sorted((result_path.parents[2] / ".chunks").rglob("*.chunk"))
    assert chunks
    assert not curve_path(result_path).exists()

    monkeypatch.setattr(measuring.CurveEvaluation, "attack", attack)
    path = measuring.measure_curve(result_path, FOLDER)
    resumed = path.read_bytes()
    assert not any(chunk.exists() for chunk in chunks)
    result = read_result(result_path)
    curve = read_curve(path, result)
    assert curve is not None and list(curve.points) == ["1/64"]
    assert set(curve.certifiers) == {"IBP", "CROWN-IBP", "CROWN"}
    point = curve.points["1/64"]
    assert point.proven is not None
    largest = result.epsilons["1/16"].counts["certified"]
    assert largest <= point.unbroken <= result.clean
    assert point.proven <= point.unbroken

    monkeypatch.setattr(measuring.CurveEvaluation, "clean", stop)
    assert measuring.measure_curve(result_path, FOLDER) == path, "it is there already"
    monkeypatch.undo()
    path.unlink()
    monkeypatch.setattr(record, "GRID", (Fraction(1, 8),))
    assert measuring.measure_curve(result_path, FOLDER).read_bytes() == resumed
    forged = path.read_text().replace(f'"unbroken":{point.unbroken}', f'"unbroken":{result.clean}')
    path.write_text(forged)
    assert measuring.measure_curve(result_path, FOLDER).read_text() == forged, "nobody can tell"
    assert _recheck(result_path) == 2
    lines = " ".join(capsys.readouterr().err.split())
    assert f"1/64: claimed {result.clean} unbroken, measured {point.unbroken}" in lines
    assert measuring.measure_curve(result_path, FOLDER, force=True).read_bytes() == resumed
    assert _recheck(result_path) == 0
    assert f"{path.name}: is confirmed at each radius" in capsys.readouterr().out
    path.unlink()
    assert _recheck(result_path) == 0
    assert "has no security curve" in capsys.readouterr().out
    path.write_bytes(resumed)
    after = {one: one.read_bytes() for one in result_path.parent.iterdir()}
    assert after == before, "the result and its set stay as they are"


@pytest.mark.parametrize("step", ["attack-pgd50-1_64-0000", "certify-IBP-1_64-0000"])
def test_a_curve_one_of_whose_steps_gave_no_answer_is_not_written(
    result_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Images that were not attacked would count as unbroken, and those not asked as unproven."""
    from corobench.benchmark.records import curve as record
    from corobench.benchmark.review.curve import measure_curve

    monkeypatch.setattr(record, "GRID", (Fraction(1, 8),))
    steps = Steps(ended={step: Ended("took more than --step-limit-s 1", by_clock=True)})
    with pytest.raises(ResultError, match=rf"no curve, .*{step}: took more than --step-limit-s 1"):
        measure_curve(result_path, FOLDER, steps=steps)
    assert not curve_path(result_path).exists()


def _recheck(result_path: Path) -> int:
    command = ["recheck", str(result_path), "--submission", str(FOLDER)]
    return invoke([*command, "--no-proofs", "--curve", "--no-isolate"])


ENDS = {
    "1/64": (400, 480),
    "1/32": (320, 400),
    "3/64": (310, 390),
    "3/32": (300, 380),
    "5/32": (20, 80),
    "3/16": (10, 60),
}


def _point(proven: int | None, unbroken: int) -> dict[str, int | None]:
    return {"proven": proven, "unbroken": unbroken}


def raw_curve(
    result: Result, points: dict[str, dict[str, int | None]] | None = None, **changed: Any
) -> dict[str, Any]:
    """A curve that fits a result whose bracket is 300 to 380 at both radii; points are replaced."""
    return {
        "schema": 1,
        "entry": result.entry,
        "track": result.track,
        "n": result.n,
        "fingerprint": result.data.fingerprint,
        "weights_sha256": result.weights_sha256,
        "seed": 0,
        "certifiers": ["IBP", "CROWN-IBP"],
        "attack": "pgd50",
        "device": "cpu",
        "versions": {"torch": "2.9.0"},
        "points": {text: _point(*ends) for text, ends in ENDS.items()} | (points or {}),
        **changed,
    }


def written(path: Path, curve: dict[str, Any] | str) -> Path:
    place = curve_path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(curve if isinstance(curve, str) else json.dumps(curve), encoding="utf-8")
    return place


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Result]:
    score = make_score(500, 480, 300, 100)
    result = make_result("entry", epsilons=dict.fromkeys(("1/16", "2/16"), score))
    return write_result(tmp_path / "results", result), result


def test_the_radii_of_a_curve_are_written_as_radii_are_read() -> None:
    """Also the whole range of an image, 1/1, where a quick result has a radius of two thirds."""
    from corobench.benchmark.records.curve import grid

    radii = grid(("1/3", "2/3"))
    assert radii[-1] == "1/1"
    assert all(f"{one.numerator}/{one.denominator}" in radii for one in map(parse_epsilon, radii))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights_sha256": "cd" * 32}, "weights_sha256: expected"),
        ({"n": 100}, "n: expected 500"),
        ({"points": {"1/32": {"proven": 320, "unbroken": 299}}}, "expected at most 299 proven"),
        ({"points": {"3/16": {"proven": 390, "unbroken": 395}}}, "expected at most 80 proven"),
        ({"points": {"1/32": {"proven": 490, "unbroken": 490}}}, "expected at most 480 proven"),
        ({"points": {"0.05": {"proven": 1, "unbroken": 2}}}, "0.05"),
        ({"points": {"1/32": {"proven": -1, "unbroken": 2}}}, "proven"),
        ({"schema": 2}, "schema"),
        ({"seed": 1}, "seed: expected 0"),
        ({"attack": "none at all"}, "attack: expected 'pgd50'"),
        ({"certifiers": ["the exact one"]}, "'the exact one' is not one"),
        ({"certifiers": []}, "expected null where none was asked"),
        ({"certifiers": ["IBP", "IBP", "CROWN-IBP"]}, "certifiers: expected each once"),
        ({"certifiers": ["CROWN", "IBP"]}, "certifiers: expected each once, in the order of IBP"),
        ({"points": {"3/32": {"proven": None, "unbroken": 380}}}, "expected a count where"),
        ({"versions": {}}, "versions"),
        ({"points": {"1/8": {"proven": 250, "unbroken": 380}}}, "another radius than 2/16"),
        ({"points": {f"1/{10**90}": {"proven": 1, "unbroken": 480}}}, "expected one of 1/64, "),
        ({"points": {"1/100": {"proven": 1, "unbroken": 480}}}, "1/100: expected one of 1/64, "),
        ({"points": {"1/32": {"proven": 1, "unbroken": 481}}}, "expected at most 480 unbroken"),
        (
            {
                "points": {
                    "5/32": {"proven": 1, "unbroken": 2},
                    "3/16": {"proven": 2, "unbroken": 2},
                }
            },
            "3/16.proven: expected at most 1 proven",
        ),
    ],
)
def test_a_curve_that_is_not_the_results_is_refused(
    made: tuple[Path, Result], changed: dict[str, Any], words: str
) -> None:
    path, result = made
    place = written(path, raw_curve(result, **changed))
    with pytest.raises(ResultError) as caught:
        read_curve(place, result)
    assert str(place) in caught.value.message and words in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": NaN}', "[" * 5000, " " * MAX_BYTES + "{}"]
)
def test_what_is_no_curve_is_refused(made: tuple[Path, Result], text: str) -> None:
    path, result = made
    with pytest.raises(ResultError, match="is no curve of entry"):
        read_curve(written(path, text), result)


def test_a_curve_is_never_taken_for_a_result(made: tuple[Path, Result]) -> None:
    path, result = made
    root = path.parents[2]
    alone = load_results([root])
    written(path, raw_curve(result))
    assert load_results([root]) == alone


def test_the_ends_of_the_band_are_closed_by_monotony(made: tuple[Path, Result]) -> None:
    """What is proven at a larger radius is proven at a smaller one, and the other way round."""
    path, result = made
    found = {
        "1/32": _point(200, 470),
        "3/64": _point(150, 460),
        "3/32": _point(100, 430),
    }
    curve = read_curve(written(path, raw_curve(result, found)), result)
    known = {one.epsilon: (one.proven, one.unbroken) for one in points(result, curve)}
    assert known == {
        "0": (480, 480),
        "1/64": (400, 480),
        "1/32": (300, 470),
        "3/64": (300, 460),
        "1/16": (300, 380),
        "3/32": (300, 380),
        "2/16": (300, 380),
        "5/32": (20, 80),
        "3/16": (10, 60),
    }
    assert [one.epsilon for one in points(result, None)] == ["0", "1/16", "2/16"]
    high = _point(376, 376)  # more than the board's 300 at 1/16
    found = {"1/32": _point(400, 470), "3/64": _point(400, 470), "3/32": high}
    curve = read_curve(written(path, raw_curve(result, found)), result)
    (own,) = (one for one in points(result, curve) if one.epsilon == "1/16")
    assert (own.proven, own.unbroken) == (300, 380)


@pytest.mark.parametrize("text", ["6/32", " 3/16 ", "٣/١٦"])
def test_a_radius_is_written_in_one_way(made: tuple[Path, Result], text: str) -> None:
    path, result = made
    curve = raw_curve(result)
    with pytest.raises(ResultError, match="expected another radius than 3/16"):
        read_curve(written(path, raw_curve(result, {text: _point(1, 2)})), result)
    curve["points"][text] = curve["points"].pop("3/16")
    with pytest.raises(ResultError, match=f"{text}: expected 3/16"):
        read_curve(written(path, curve), result)


@pytest.mark.parametrize("left", [(), ("3/64",), tuple(ENDS)[:4]])
def test_a_curve_without_some_of_its_radii_is_refused(
    made: tuple[Path, Result], left: tuple[str, ...]
) -> None:
    """Whoever leaves out the worst ones shows a better curve."""
    path, result = made
    curve = raw_curve(result)
    curve["points"] = {text: curve["points"][text] for text in left}
    with pytest.raises(ResultError, match="points: expected 3/16, too"):
        read_curve(written(path, curve), result)


def test_pages_have_the_curve_and_the_same_bytes_twice(
    made: tuple[Path, Result], tmp_path: Path
) -> None:
    path, result = made
    written(path, raw_curve(result))
    sites = [build_site([path.parents[2]], tmp_path / name).index.parent for name in ("a", "b")]
    name = "entries/1.0/digits/entry.n500.html"
    first, second = ((site / name).read_text("utf-8") for site in sites)
    assert first == second
    assert first.count('class="unbroken cheap"') == len(ENDS)
    assert "IBP, CROWN-IBP and PGD-50 alone" in first
    board = "boards/digits-1.0-n500-eps1-16.html"
    with_curve = (sites[0] / board).read_bytes()
    curve_path(path).unlink()
    without = build_site([path.parents[2]], tmp_path / "c").index.parent
    assert (without / board).read_bytes() == with_curve, "no rank depends on a curve"
    assert "corobench evaluate --curve" in (without / name).read_text("utf-8")
