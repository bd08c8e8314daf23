"""`corobench render` and the table on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from leaderboard_factory import make_result, make_score, write_result
from rich.console import Console

from corobench.benchmark.errors import OutputError, ResultError
from corobench.leaderboard.cli import render
from corobench.leaderboard.terminal import terminal_table


def test_render_prints_what_it_wrote_and_the_path_to_open(tmp_path: Path) -> None:
    write_result(tmp_path / "results", make_result("lwm-10x"))
    quick = write_result(tmp_path / "results", make_result("fast", "fashion-mnist", n=100))
    (tmp_path / "results" / "other.json").write_text("{}")
    out = tmp_path / "site"
    command = [str(tmp_path / "results"), "--out", str(out)]
    run = CliRunner().invoke(render, [*command, "--quick"])
    assert run.exit_code == 0, run.output
    assert (out / "index.html").is_file()
    assert "1/16, 2/16" in run.stdout
    assert "quick, not ranked" in run.stdout
    assert "is not to be published" in run.stdout
    assert "other.json" in run.stdout
    quick.unlink()
    run = CliRunner().invoke(render, command)
    assert run.exit_code == 0, run.output
    assert run.stdout.rstrip().endswith(str(out / "index.html"))


def test_render_raises_what_the_front_door_turns_into_a_message(tmp_path: Path) -> None:
    run = CliRunner().invoke(render, [str(tmp_path), "--out", str(tmp_path / "site")])
    assert isinstance(run.exception, ResultError)
    assert not (tmp_path / "site").exists()
    path = write_result(tmp_path, make_result("lwm"))
    run = CliRunner().invoke(render, [str(path), "--out", str(path)])
    assert isinstance(run.exception, OutputError)
    assert run.exception.exit_code == 2


def test_help_has_examples_and_exit_codes() -> None:
    text = CliRunner().invoke(render, ["--help"]).output
    assert "corobench render leaderboard/results --out build/site" in text
    assert "Exit codes" in text


def shown(*results: object, width: int = 110) -> str:
    console = Console(width=width, record=True)
    with console.capture() as captured:
        console.print(terminal_table(list(results)))  # type: ignore[arg-type]
    return captured.get()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_table_fits_and_shows_the_bracket(width: int) -> None:
    name = "least-weight-magnitude-10x-seed-3"
    child = make_result(name, clean=456, submission={"parent": "dense"})
    text = shown(make_result("dense"), child, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "48.0–76.8" in text  # dense at 1/16: 240 certified, 384 of 500 unbroken
    assert "95.1/—" in text  # 365 of 384 after AutoAttack; the parent is not made to be verified
    assert "—/—" in text


def test_the_terminal_table_says_not_asked() -> None:
    score = make_score(certified=0) | {"certified_by": {"IBP": None, "cascade": None}}
    text = shown(make_result("lwm", epsilons={"1/16": score}))
    assert "?–76.0" in text
