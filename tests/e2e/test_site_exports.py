"""What leaves the pages: exports that agree, whole LaTeX tables, citations, nothing that runs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, menu
from leaderboard_factory import make_result, make_score, write_evidence, write_result

from corobench.leaderboard.build import build_site

BOARD = "boards/digits-1.0-n500-eps1-16.html"
FORMULA = "=HYPERLINK(0)"
#: As a manifest may have it. What is invisible is refused there, and dropped from exports all the
#: same (tests/unit/leaderboard/test_leaderboard_exports.py).
DIRTY = CLEAN = "@SUM(1)[2J abc -1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    told = {
        "hostile": {"title": DIRTY, "authors": [FORMULA], "parent": "dense"},
        "dense": {"title": "Dense, 100 % & more_"},
        "plain": {"parent": "dense"},
    }
    for place, (name, submission) in enumerate(told.items()):
        method = make_result("x").submission.method.model_dump()
        if name == "hostile":
            method |= {"name": FORMULA, "criterion": "+cmd"}
        scores = dict.fromkeys(("1/16", "2/16"), make_score(500, 480, 300 - place, 100))
        result = make_result(name, epsilons=scores, submission={"method": method, **submission})
        write_evidence(write_result(root / "results", result), shift=place)
    return build_site([root / "results"], root / "site").index.parent


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site, viewport={"width": 1440, "height": 900})
    yield tab
    tab.close()


def exported(page: Any, kind: str) -> str:
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name=kind).click()
    return Path(waiting.value.path()).read_text("utf-8")


def same(one: object, other: object) -> bool:
    try:
        return float(str(one)) == pytest.approx(float(str(other)), abs=1e-4)
    except ValueError:
        return one == other


def test_the_views_csv_and_json_say_what_the_boards_files_say(tab: Tab) -> None:
    page = tab.open(BOARD)
    menu(page, "Columns").get_by_role("button", name="All").click()
    path = tab.site / BOARD
    whole = {row["entry"]: row for row in csv.DictReader(path.with_suffix(".csv").open())}
    records = {one["entry"]: one for one in json.loads(path.with_suffix(".json").read_text())}
    view = list(csv.DictReader(io.StringIO(exported(page, "CSV"))))
    rows = json.loads(exported(page, "JSON"))["rows"]
    assert [row["entry"] for row in view] == [row["entry"] for row in rows] == entries(page)
    for line, record in zip(view, rows, strict=True):
        name = line["entry"]
        assert line.keys() == record.keys() == whole[name].keys() - {"weights_sha256"}
        for key in line:
            assert same(line[key], whole[name][key]), (name, key)
            assert same(record[key], records[name][key]), (name, key)
    first = records["hostile"]
    assert (first["certified"], first["certified_low"], first["certified_high"]) == (
        300,
        0.5565,
        0.642,
    )
    assert first["group_best"] == 1 and first["group_worst"] == 3
    assert (first["seed"], first["parent"]) == (0, "dense")


def test_nothing_in_an_export_runs_or_hides(tab: Tab) -> None:
    page = tab.open(BOARD)
    menu(page, "Columns").get_by_role("button", name="All").click()
    own = (tab.site / BOARD).with_suffix(".csv").read_text("utf-8")
    for text in (own, exported(page, "CSV")):
        row = next(row for row in csv.DictReader(io.StringIO(text)) if row["entry"] == "hostile")
        assert row["title"] == f"'{CLEAN}"
        assert row["method"] == row["authors"] == f"'{FORMULA}"
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
        assert not [cell for cell in cells if re.match(r"[=@+]|-\D", cell)]
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    for path in tab.site.rglob("*"):
        if path.suffix in (".html", ".js", ".xml", ".json") and path.parent.name[-5:] != ".n500":
            assert not re.search(r"[\x1b\u202e]", path.read_text("utf-8")), path


def test_latex_is_a_whole_tabular(tab: Tab) -> None:
    page = tab.open(BOARD)
    menu(page, "Export").get_by_role("button", name="LaTeX").click()
    text = page.locator("#cite[open] pre").inner_text().strip()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    assert text.endswith(r"\end{tabular}") and r"\toprule" in text and r"\bottomrule" in text
    columns = len(re.search(r"\{tabular\}\{([lr]+)\}", text).group(1))  # type: ignore[union-attr]
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + 3
    assert all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)
    assert r"Dense, 100 \% \& more\_" in text


def test_bibtex_cites_the_entry(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/plain.n500.html")
    text = page.locator("#bibtex").inner_text()
    assert text.startswith("@misc{corobench:1.0:digits:plain.n500,")
    assert "url =" not in text  # the paper's address is not the entry's
    assert "weights sha256" in text and "training seed 0" in text
    assert "refers to https://example.org/paper" in text


def test_bibtex_has_the_address_of_the_entrys_page(site: Path, tmp_path: Path) -> None:
    out = build_site(
        [site.parent / "results"], tmp_path / "site", "https://board.example/x"
    ).index.parent
    text = (out / "entries/1.0/digits/plain.n500.html").read_text("utf-8")
    address = "https://board.example/x/entries/1.0/digits/plain.n500.html"
    assert f"url = {{{address}}}" in text
    assert f'<meta property="og:url" content="{address}">' in text
    assert '<meta property="og:title" content="' in text
