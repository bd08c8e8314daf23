"""Whatever a result file or its table holds, the referee and the pages say the same of it.

Two doors: the referee freezes a round (`corobench freeze`), the pages load and show one
(`corobench render`). Each variant is one that two readers could see differently.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.scoring import rounds, scored
from corobench.leaderboard.evidence import read_all
from corobench.leaderboard.loading import load_results

PUBLISHED = Path(__file__).parents[3] / "leaderboard" / "results" / "1.0" / "digits"
ENTRY = "digits-adv-lwm-10x"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A published result with the files beside it, at a result's place."""
    place = tmp_path / "results" / "1.0" / "digits"
    place.mkdir(parents=True)
    for path in PUBLISHED.glob(f"{ENTRY}.*"):
        shutil.copy(path, place)
    return place / f"{ENTRY}.json"


def _referee(path: Path) -> str:
    """What the referee says: nothing where it takes the result."""
    try:
        scored.read_scored(path)
    except ResultError as error:
        return error.message
    return ""


def _page(path: Path) -> str:
    """What the pages say."""
    try:
        loaded = load_results([path.parents[2]])
        read_all(loaded.results, loaded.paths)
    except ResultError as error:
        return error.message
    return ""


def _set(*keys: str, to: object) -> Callable[[Path], None]:
    """A key of the result file, to another value."""

    def change(path: Path) -> None:
        raw = json.loads(path.read_text())
        place: Any = raw
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        path.write_text(json.dumps(raw))

    return change


def _drop(*keys: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        raw = json.loads(path.read_text())
        place: Any = raw
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        path.write_text(json.dumps(raw))

    return change


def _text(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def _bytes(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(make(path.read_bytes())) and None  # type: ignore[func-returns-value]


def _move(folder: str, name: str) -> Callable[[Path], None]:
    """The result and its table elsewhere; the way there stays a result's."""

    def change(path: Path) -> None:
        place = path.parents[2] / folder
        place.mkdir(parents=True, exist_ok=True)
        for ending in ("json", "outcomes.parquet", "adversarial.npz"):
            beside(path, ending).rename(place / f"{name}.{ending}")

    return change


def _table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        outcomes = beside(path, "outcomes.parquet")
        table, run = read_outcomes(outcomes)
        outcomes.write_bytes(encode_outcomes(change(table), run))

    return rewrite


def _run(**more: object) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        outcomes = beside(path, "outcomes.parquet")
        table, run = read_outcomes(outcomes)
        outcomes.write_bytes(encode_outcomes(table, run.model_copy(update=more)))

    return rewrite


def _answer(column: str, outcome: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        row = table.index[table["outcome"] == outcome][0]
        table.loc[row, column] = value
        return table

    return change


def _other_result(path: Path) -> None:
    shutil.copy(PUBLISHED / "digits-adv-dense.outcomes.parquet", path.parent / "x")
    (path.parent / "x").rename(beside(path, "outcomes.parquet"))


EPSILON = ("epsilons", "1/16")
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (_bytes(lambda _: b""), "expected JSON"),
    "cut": (_bytes(lambda content: content[:-200]), "expected JSON"),
    "a mark of the byte order": (_bytes(lambda content: b"\xef\xbb\xbf" + content), "BOM"),
    "not UTF-8": (_bytes(lambda content: content.replace(b"digits", b"\xff", 1)), "UTF-8"),
    "UTF-16": (_bytes(lambda content: content.decode().encode("utf-16")), "UTF-8"),
    "trailing data": (_bytes(lambda content: content + b"{}"), "Extra data"),
    "a list": (_bytes(lambda content: b"[" + content + b"]"), "a JSON list"),
    "deep nesting": (_text('"errors": []', f'"errors": [], "x": {"[" * 70}{"]" * 70}'), "deeper"),
    "a key twice": (_text('"seed": 0', '"seed": 0, "seed": 0'), "listed twice"),
    "NaN": (_text('"seed": 0', '"seed": 0, "x": NaN'), "found NaN"),
    "infinity": (_text('"seed": 0', '"seed": 0, "x": -Infinity'), "found -Infinity"),
    "a number beyond float64": (_text('"seed": 0', '"seed": 0, "x": 1e999'), "found 1e999"),
    "an endless number": (_set("seed", to=10**40), "32 digits"),
    "a number of many digits": (_text('"seed": 0', f'"seed": {"9" * 5000}'), "32 digits"),
    "a huge count": (_set("compactness", "num_parameters", to=2**60), "num_parameters"),
    "a number as text": (_set("n", to="500"), "n: expected an integer"),
    "a number with a point": (_set("n", to=500.0), "n: "),
    "a number for yes": (_set("quick", to=0), "quick: expected true or false"),
    "null for a number": (_set("clean", to=None), "clean: expected an integer"),
    "no digest of weights": (_set("weights_sha256", to="as ever"), "weights_sha256: "),
    "no digest of data": (_set("data", "fingerprint", to="AB" * 32), "data.fingerprint: "),
    "no digest of an identity": (_set("identity", to="ab"), "identity: "),
    "another schema": (_set("schema", to=2), "schema: expected 1"),
    "no schema": (_drop("schema"), "schema: expected 1"),
    "yes as schema": (_set("schema", to=True), "schema: expected 1"),
    "a key missing": (_drop("weights_sha256"), "weights_sha256: missing key"),
    "an unknown key of the manifest": (_set("submission", "x", to=1), "submission.x: unknown key"),
    "a half character": (_text('"title": "', '"title": "\\ud800'), "not a valid result"),
    "an unknown track": (_set("track", to="digit"), "track: unknown track"),
    "another track": (_set("track", to="svhn"), "track: "),
    "another protocol": (_set("protocol", to="1.1"), "protocol: expected '1.0' as in the file"),
    "another entry": (_set("entry", to="other"), "entry: expected"),
    "another entry's manifest": (_set("submission", "id", to="other"), "submission.id"),
    "another n": (_set("n", to=499), "add up to n = 499"),
    "counts that do not add up": (_set(*EPSILON, "counts", "error", to=1), "add up to n"),
    "an unknown outcome": (_set(*EPSILON, "counts", "robust", to=0), "counts.robust"),
    "a negative count": (_set(*EPSILON, "counts", "error", to=-1), "at least 0"),
    "more proven than certified": (_set(*EPSILON, "certified_by", "IBP", to=480), "certified_by"),
    "an unknown certifier": (_set(*EPSILON, "certified_by", "me", to=1), "is not a certifier"),
    "fewer right than standing": (_set(*EPSILON, "autoattack", to=1), "autoattack: expected at"),
    "an epsilon as decimal": (_text('"1/16": {', '"0.0625": {'), "0.0625"),
    "no epsilon": (_set("epsilons", to={}), "at least one epsilon"),
    "a fingerprint of its own": (_set("data", "fingerprint", to="ab" * 32), "data.kind"),
    "a mirror of its own": (_set("data", "kind", to="mirror"), "data.kind"),
    "a folder of another protocol": (_move("1.1/digits", ENTRY), "protocol: expected '1.1'"),
    "a folder of another track": (_move("1.0/svhn", ENTRY), "track: expected 'svhn'"),
    "another name": (_move("1.0/digits", "better"), "entry: expected 'better'"),
    "another n in the name": (_move("1.0/digits", f"{ENTRY}@100"), "n: expected '100'"),
    "the standard n in the name": (_move("1.0/digits", f"{ENTRY}@500"), "the file's name"),
    "weights that the table has not": (_set("weights_sha256", to="ab" * 32), "weights_sha256"),
    "a seed that the table has not": (_set("seed", to=1), "seed: 1 in the result, 0 in the table"),
    "a table of another entry": (_other_result, "entry: 'digits-adv-lwm-10x' in the result"),
    "a table cut": (
        lambda path: _bytes(lambda content: content[:999])(beside(path, "outcomes.parquet")),
        "expected an outcome table",
    ),
    "a table without its run": (
        lambda path: (
            pd.read_parquet(beside(path, "outcomes.parquet"))
            .rename_axis("row")
            .pipe(lambda table: _without_run(table, beside(path, "outcomes.parquet")))
        ),
        "no run record inside",
    ),
    "a run of another n": (_run(n=100), "expected one row for each of 100 images"),
    "a run of another track": (_run(track="svhn"), "outcomes.parquet: "),
    "rows missing": (_table(lambda table: table.iloc[:-1]), "found 999 rows"),
    "rows twice": (_table(lambda table: pd.concat([table, table])), "found 2000 rows"),
    "rows in another order": (_table(lambda table: table.iloc[::-1]), "epsilon: expected rows 0"),
    "other images": (_table(lambda table: table.assign(image=table["image"] + 1)), "image: "),
    "other labels": (_table(lambda table: table.assign(label=3)), "label: expected"),
    "an outcome that is none": (_table(_answer("outcome", "undecided", "robust")), "outcome: "),
    "a judge that is none": (_table(_answer("decided_by", "attacked", "me")), "decided_by: "),
    "an epsilon that is none": (_table(_answer("epsilon", "attacked", "1/8")), "epsilon: "),
    "an answer that is missing": (
        _table(_answer("autoattack", "undecided", pd.NA)),
        "has no answer on",
    ),
    "an outcome that its columns deny": (
        _table(_answer("outcome", "undecided", "certified")),
        "no certifier proved",
    ),
    "one row that counts otherwise": (
        _table(_answer("autoattack", "attacked", True)),
        "autoattack",
    ),
    "images missing": (
        lambda path: _images(beside(path, "adversarial.npz")),
        "adversarial.npz: expected row",
    ),
}
TAKEN: dict[str, Callable[[Path], None]] = {
    "as published": lambda path: None,
    "a key of a later version": _set("added", to={"later": 1}),
    "keys in another order": lambda path: (
        path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True)) and None
    ),
    "no adversarial images beside": lambda path: beside(path, "adversarial.npz").unlink(),
}


def _without_run(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)


def _images(path: Path) -> None:
    import numpy as np

    np.savez(path, images=np.zeros((1, 1, 8, 8), dtype=np.float32))


def _results(path: Path) -> Path:
    """The result after a variant may have moved it."""
    found = sorted(path.parents[2].rglob("*.json"))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_it_for_the_same_reason(result: Path, name: str) -> None:
    change, message = REFUSED[name]
    change(result)
    path = _results(result)
    referee, page = _referee(path), _page(path)
    assert message in referee and message in page, (referee, page)
    assert referee == page
    assert str(path.parent) in referee
    assert rounds.faults_of(path, path.parent.parent.name)


@pytest.mark.parametrize("name", TAKEN)
def test_both_take_it(result: Path, name: str) -> None:
    TAKEN[name](result)
    assert (_referee(result), _page(result)) == ("", "")
    assert rounds.faults_of(result, "1.0") == []


def test_a_result_alone_is_shown_and_never_compared_or_frozen(result: Path) -> None:
    """The one difference, on purpose: a page needs no table to show counts, a verdict does."""
    beside(result, "outcomes.parquet").unlink()
    assert _page(result) == ""
    assert "expected the outcome table" in _referee(result)
    assert "expected the outcome table" in rounds.faults_of(result, "1.0")[0]
