"""Boards outside the browser: records for machines, the command, and the terminal's table."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from leaderboard_factory import (
    MIRROR,
    make_compactness,
    make_manifest,
    make_result,
    make_score,
    write_evidence,
    write_result,
)
from rich.console import Console

from corobench.benchmark.cli.main import cli
from corobench.leaderboard.boards import Board, group_results
from corobench.leaderboard.columns import columns
from corobench.leaderboard.exports import csv_bytes, records
from corobench.leaderboard.glossary import SHORT, used
from corobench.leaderboard.series import lines
from corobench.leaderboard.terminal import terminal_table


def seeds(*proven: int | None, **more: object) -> Board:
    """A board of one training with several seeds; None: nothing proven, and not all asked."""
    found = []
    for seed, count in enumerate(proven):
        score = make_score(500, 480, count or 0, 100)
        if count is None:
            score["certified_by"] |= {"CROWN": None, "cascade": 0}
        submission = {"training": {"data": "own", "seed": seed}, **more}
        found.append(make_result(f"e-{seed}", epsilons={"1/16": score}, submission=submission))
    return group_results(found)[0].boards[0]


def test_seeds_of_one_training_are_one_line_with_mean_and_range() -> None:
    (line,) = lines(seeds(100, 200, 300))
    cells = {one.key: line.cell(one) for one in columns(seeds(100, 200, 300))}
    assert (cells["certified"].text, cells["certified"].small) == ("40.0", "20.0–60.0")
    assert cells["certified"].value == 200
    assert cells["not_attacked"].text == "76.0" and cells["not_attacked"].small == ""
    assert line.seeds == "0, 1, 2"
    assert line.first.title.endswith(", seed 0") and not line.title.endswith("seed 0")


def test_a_line_with_an_unknown_seed_has_no_mean_of_what_is_proven() -> None:
    board = seeds(100, None)
    (line,) = lines(board)
    cell = line.cell(next(one for one in columns(board) if one.key == "certified"))
    assert (cell.text, cell.value) == ("not known", None)
    assert "at least one seed" in cell.reason


def test_what_differs_in_more_than_the_seed_stays_apart() -> None:
    def entry(name: str, seed: int | None, **more: object) -> object:
        training = {"data": "own", "seed": seed}
        return make_result(name, submission={"training": training, **more})

    found = [
        entry("a", 0),
        entry("b", 0),
        entry("c", 1, title="another"),
        entry("d", None),
        entry("child-0", 0, parent="a", title="child"),
        entry("child-1", 1, parent="c", title="child"),
    ]
    board = group_results(found)[0].boards[0]  # type: ignore[arg-type]
    assert all(not line.is_series for line in lines(board))
    assert all(not row.training for row in board.rows)


def test_parents_may_differ_in_their_seed_too() -> None:
    def entry(name: str, seed: int, **more: object) -> object:
        return make_result(name, submission={"training": {"data": "own", "seed": seed}, **more})

    found = [
        *(entry(f"dense-{seed}", seed, title="dense") for seed in (0, 1)),
        *(entry(f"child-{seed}", seed, title="child", parent=f"dense-{seed}") for seed in (0, 1)),
    ]
    board = group_results(found)[0].boards[0]  # type: ignore[arg-type]
    assert sorted(len(line.rows) for line in lines(board)) == [2, 2]


def test_records_have_intervals_seed_parent_and_title() -> None:
    board = seeds(100, 200, parent="dense")
    first, _ = records(board)
    assert first["title"] == "Least weight magnitude, 10x, seed 1"
    assert (first["seed"], first["parent"], first["certified"]) == (1, "dense", 200)
    assert first["certified_low"] == 0.358 and first["certified_high"] == 0.4435


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n@"])
def test_no_cell_of_a_csv_starts_a_formula(start: str) -> None:
    """Manifests with control characters are refused; an export does not lean on that."""
    told = {"title": f"{start}1+1\x00\u202e", "authors": (f"{start}a",), "parent": "dense"}
    plain = make_result("e")
    submission = plain.submission.model_copy(update=told)
    result = plain.model_copy(update={"submission": submission})
    text = csv_bytes(group_results([result])[0].boards[0]).decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["title"] == f"'{start.strip()}1+1"
    assert all(cell.isprintable() for cell in row.values())


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["leaderboard", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("boards")
    for name, title in (("a", "=1+1"), ("b", "B")):
        write_evidence(write_result(root, make_result(name, submission={"title": title})))
    write_result(root, make_result("c", "fashion-mnist", n=1000))
    return root


def test_the_command_prints_csv_and_json_of_every_board(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("--results", str(folder), "--csv"))))
    told = json.loads(run("--results", str(folder), "--json"))
    assert len(rows) == len(told) == 6  # three entries, two radii
    assert [(row["track"], row["entry"], row["epsilon"]) for row in rows] == [
        (one["track"], one["entry"], one["epsilon"]) for one in told
    ]
    assert next(row["title"] for row in rows if row["entry"] == "a") == "'=1+1"
    first = next(one for one in told if one["entry"] == "a")
    assert first["ranked"] is True and first["group"] == 1 and first["group_best"] == 1
    few = csv.DictReader(
        io.StringIO(run("digits", "--results", str(folder), "--epsilon", "1/8", "--csv"))
    )
    assert {(row["track"], row["epsilon"]) for row in few} == {("digits", "2/16")}


def test_the_command_says_what_is_missing(folder: Path) -> None:
    for arguments in (["svhn"], ["digits", "--n", "7"], ["digits", "--epsilon", "1/3", "--csv"]):
        asked = ["leaderboard", *arguments, "--results", str(folder)]
        done = CliRunner().invoke(cli, asked, standalone_mode=False)
        assert "expected results" in str(done.exception)


def test_the_terminals_table_fits_80_columns_and_cuts_no_number() -> None:
    size = make_compactness(138_000_000, 1.0) | {"bytes_packed": 552_000_000}
    full = make_score(10_000, 10_000, 10_000, 0)
    unasked = make_score(10_000, 9_999, 0, 1) | {
        "certified_by": dict.fromkeys(("IBP", "CROWN-IBP", "CROWN", "cascade"))
    }
    results = [
        make_result(
            name,
            "cifar10",
            n=10_000,
            clean=sum(score["counts"].values()) - score["counts"]["misclassified"],
            epsilons={"2/255": score, "8/255": score},
            compactness=size,
            data={"kind": "mirror", "fingerprint": MIRROR},
            submission=make_manifest(name, "cifar10"),
        )
        for name, score in (("a-very-long-name-of-an-entry" * 2, full), ("unasked", unasked))
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(terminal_table(results))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for number in ("138M", "552000", "n = 10000, mirror", "100.0–100.0", "?–>99.9", "2/255"):
        assert number in text
    assert not re.search(r"(?<![\d.])0\.0–", text)


def test_the_terminal_breaks_names_at_hyphens_and_says_what_is_in_one_table() -> None:
    names = ("fashion-mnist-ibp-lwm-exempt-10x-int8", "lwm")
    results = [make_result(name, "fashion-mnist", n=1000) for name in names]
    out = io.StringIO()
    Console(file=out, width=80).print(terminal_table([*results, make_result()]))
    text = out.getvalue()
    firsts = [line.split()[0] for line in text.splitlines() if line.strip()]
    place = firsts.index("fashion-mnist-")
    assert firsts[place : place + 3] == ["fashion-mnist-", "ibp-lwm-", "exempt-10x-int8"]
    for title in ("digits, n = 500, canonical", "fashion-mnist, n = 1000, canonical"):
        assert text.count(title) == 1
    assert text.count("AutoAttack/proven") == 1


def test_abbreviations_are_found_as_words_only() -> None:
    assert [short for short, _ in used(["LWM 10x, PGD adversarial training"])] == ["LWM", "PGD"]
    assert used(["FLWMX", "int88"]) == []
    assert all(long and long != short for short, long in SHORT.items())
