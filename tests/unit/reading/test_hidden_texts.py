"""What a result says is shown, in pages, terminals and logs: nothing in it may do more than that.

Rounds that nobody knows and sizes that deny each other are here, too: all of it is refused by the
one reader of result files, before a board or a verdict is made of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leaderboard_factory import make_result, write_result
from rich.console import Console
from tables import make_run

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.gate.report import terminal_table
from corobench.benchmark.gate.rule import Rule
from corobench.benchmark.gate.run import compare_with_baseline
from corobench.benchmark.records.reading.result_file import read_result, read_scorecard
from corobench.benchmark.review.vnnlib_files import read_verdicts
from corobench.benchmark.scoring.result_writing import _on_one_line

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "leaderboard" / "results" / "1.1" / "digits"
SOURCE = DIGITS / "digits-ibp-lwm-10x.json"


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A published result file alone, changed."""
    said = json.loads(SOURCE.read_text("utf-8"))
    change(said)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(said), encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["\x1b[2J", "a\n::warning::b", "cpu\u202e", "a\u200bb", "\x00"])
@pytest.mark.parametrize(
    "change",
    [
        lambda said, text: said.update(device=text),
        lambda said, text: said["versions"].update(torch=text),
        lambda said, text: said["versions"].update({text: "1"}),
        lambda said, text: said["not_asked"].update(BaB=text),
        lambda said, text: said.update(errors=[text]),
        lambda said, text: said["data"].update(source=text),
        lambda said, text: said["compactness"]["layers"][0].update(name=text),
        lambda said, text: said.update(nobody={"reads": [text]}),
    ],
)
def test_a_text_that_hides_something_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any], str], object], text: str
) -> None:
    path = changed(tmp_path, lambda said: change(said, text))
    with pytest.raises(ResultError, match="text without control characters") as caught:
        read_scorecard(path)
    assert all(letter.isprintable() or letter == "\n" for letter in caught.value.message)


def test_a_description_may_have_lines(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda said: said["submission"].update(description="one\n\ttwo"))
    assert read_scorecard(path).submission.description == "one\n\ttwo"


def test_messages_of_libraries_are_written_on_one_line() -> None:
    run = make_run({"CROWN": "no:\nsee\x1b[1m"}).model_copy(update={"errors": ("1 image\nat",)})
    found = _on_one_line(run)
    assert found.not_asked == {"CROWN": "no:\\nsee\\x1b[1m"} and found.errors == ("1 image\\nat",)


@pytest.mark.parametrize("day", ["2025-99-99", "2025-02-30", "٢٠٢٦-١١-٢٩", "0000-01-01"])
def test_a_day_that_never_was_is_refused(tmp_path: Path, day: str) -> None:
    with pytest.raises(ResultError, match="date: "):
        read_scorecard(changed(tmp_path, lambda said: said.update(date=day)))


@pytest.mark.parametrize("protocol", ["2.0", "1.2", "99.0", "01.1", "1.01", "1"])
def test_a_round_that_nobody_knows_is_not_read(
    tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a row stood above the present round, whatever its settings were."""
    row = make_result("a", "digits", n=500, protocol=protocol, settings={"pgd_steps": 1})
    write_result(tmp_path / "results", row)
    assert invoke(["render", str(tmp_path / "results"), "--out", str(tmp_path / "site")]) == 2
    assert "protocol: expected one of 1.0, 1.1, found" in capsys.readouterr().err


def _contest(said: dict[str, Any], **keys: object) -> None:
    record = {"sha256": "0" * 64, "by": "a rival", "num_images": 3, "num_confirmed": 0}
    said["contests"] = [record | {"broken": {}} | keys]


def _earlier(said: dict[str, Any], **keys: object) -> None:
    record = {"protocol": "1.0", "identity": "0" * 64, "device": "cpu", "versions": {}}
    said["earlier"] = record | keys


def _layer(said: dict[str, Any], **keys: int) -> None:
    said["compactness"]["layers"][0].update(keys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: _layer(said, num_nonzero=10**6), "layers.0.num_nonzero: expected at most"),
        (lambda said: _layer(said, macs_nonzero=10**6), "layers.0.macs_nonzero: expected at most"),
        (
            lambda said: said["compactness"].update(macs_dense=1),
            "macs_dense: expected at least the",
        ),
        (lambda said: said["compactness"].update(sparsity=0.5), "sparsity: expected"),
        (
            lambda said: said["compactness"].update(bytes_dense=1),
            "bytes_dense: expected 4 for each of",
        ),
        (
            lambda said: said["compactness"].update(bytes_packed=1, bytes_coded=1),
            "bytes_packed: expected at least",
        ),
        (
            lambda said: said["compactness"].update(num_nonzero=1),
            "num_nonzero: expected at least the",
        ),
        (
            lambda said: said["compactness"].update(
                num_parameters=1, num_nonzero=1, bytes_dense=4, bytes_packed=4, bytes_coded=4
            ),
            "num_parameters: expected at least the",
        ),
        (lambda said: said["compactness"].update(num_live=10**30), "num_live: expected at most"),
        (lambda said: said["compactness"].update(bytes_coded=10**9), "bytes_coded: expected"),
        (lambda said: said["compactness"].update(peak_activation_bytes=10**30), "peak_act"),
        (
            lambda said: said["compactness"]["equivalent"].update(num_removed=10**6),
            "equivalent.num_removed: expected at most",
        ),
        (lambda said: said["recognition"].update(right=501), "recognition.right: expected at most"),
        (lambda said: said["recognition"].update(num_images=501), "recognition.num_images"),
        (lambda said: said["seconds"].update(clean=-5.0), "seconds.clean: expected at least 0"),
        (lambda said: said["seconds"].update(clean=1e300), "seconds.clean: expected at most"),
        (lambda said: said["submission"].update(parent=said["entry"]), "submission.parent"),
        (lambda said: said["audit"].update(num_images=10**9), "audit.num_images: expected at most"),
        (lambda said: said.update(errors=["500 images: boom"]), "errors: expected none"),
        (lambda said: said["files"].update({"other.bin": "0" * 64}), "files: expected"),
        (lambda said: _earlier(said, protocol="../../x"), "earlier.protocol: expected a version"),
        (lambda said: _contest(said, num_confirmed=4), "contests.0.num_confirmed: expected at"),
        (
            lambda said: _contest(said, broken={"1/16": 400}),
            "contests.0.broken.1/16: expected at most num_confirmed = 0, found 400",
        ),
        (lambda said: _contest(said, broken={"1/3": 0}), "'1/3' is no radius of the result"),
    ],
)
def test_numbers_that_deny_each_other_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    with pytest.raises(ResultError, match=words):
        read_scorecard(changed(tmp_path, change))


def test_all_published_results_are_read() -> None:
    paths = sorted((ROOT / "leaderboard" / "results").glob("1.*/*/*.json"))
    assert paths and all(read_scorecard(path) for path in paths)


def test_versions_are_shown_as_they_are_and_not_as_markup(tmp_path: Path) -> None:
    """A closing tag in a candidate's version ended `corobench check` with a traceback."""
    for path in DIGITS.glob("digits-ibp-lwm-10x.*"):
        shutil.copy(path, tmp_path)
    checked = compare_with_baseline(SOURCE, tmp_path / SOURCE.name, Rule())
    noted = type(checked)(**{**vars(checked), "notes": ("torch [/x] here, [red]2[/red] there",)})
    with (console := Console(width=80)).capture() as shown:
        console.print(terminal_table(noted))
    assert "torch [/x] here, [red]2[/red] there" in shown.get()
    assert read_result(SOURCE).versions


def test_a_field_without_end_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text("image-17-1_16.vnnlib,unsat\nimage-18-1_16.vnnlib," + "x" * 200_000)
    with pytest.raises(ResultError, match=r"verdicts\.csv: expected lines of file and verdict"):
        read_verdicts(path)
