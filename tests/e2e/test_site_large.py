"""A board with more lines than its page holds: the script adds the others, and a page has all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, facet
from leaderboard_factory import make_result, make_score, write_evidence, write_result

from corobench.leaderboard import board_rows
from corobench.leaderboard.build import build_site

BOARD = "boards/digits-1.0-n500-eps1-16.html"
WHOLE = "boards/digits-1.0-n500-eps1-16.all.html"
#: Entry -> proven; the last is known by no certifier.
PROVEN = {"a": 300, "b": 280, "c": 260, "d": 240, "e": 220, "open": 0}


def results(root: Path) -> Path:
    for place, (name, proven) in enumerate(PROVEN.items()):
        score = make_score(500, 480, proven, 100)
        unasked = dict.fromkeys(("CROWN", "alpha-CROWN", "BaB")) if name == "open" else {}
        score["certified_by"] |= unasked
        more = {"title": f"Entry {name} <b>&amp;", "method": method(name)}
        path = write_result(
            root,
            make_result(
                name,
                epsilons=dict.fromkeys(("1/16", "2/16"), score),
                not_asked=dict.fromkeys(unasked, "too many hidden units"),
                submission=more,
            ),
        )
        write_evidence(path, shift=place)
    return root


def method(name: str) -> dict[str, str]:
    kind = "ibp" if name in "ace" else "pgd-at"
    return {
        "name": "LWM 10x",
        "pipeline": "after",
        "pretrain_objective": kind,
        "finetune_objective": kind,
        "schedule": "one-shot",
        "structure": "unstructured",
        "scope": "layer-wise",
        "criterion": "least-weight-magnitude",
    }


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same results as one page, and as a page of two lines and the rest."""
    root = tmp_path_factory.mktemp("large")
    found = results(root / "results")
    small = build_site([found], root / "small").index.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board_rows, "MOST", 4)
        patch.setattr(board_rows, "FIRST", 2)
        large = build_site([found], root / "large").index.parent
    return {"small": small, "large": large}


@pytest.fixture(scope="module")
def site(sites: dict[str, Path]) -> Path:
    return sites["large"]


def body(page: Any) -> list[str]:
    """The text of every row, without the spaces."""
    found: list[str] = page.locator("#board tbody tr").all_inner_texts()
    return [" ".join(text.split()) for text in found]


def test_the_live_board_is_the_same_however_its_rows_travel(
    browser: Any, sites: dict[str, Path]
) -> None:
    seen = {}
    for name, folder in sites.items():
        tab = Tab(browser, folder, viewport={"width": 1280, "height": 900})
        page = tab.open(BOARD)
        found = [body(page), entries(page)]
        facet(page, "Trained with").get_by_text("ibp").click()
        found.append(entries(page))
        page = tab.open(f"{BOARD}#q=Entry+d")
        found.append(entries(page))
        page = tab.open(f"{BOARD}#e.n500")  # the address of one row
        found.append(page.locator("tr[data-entry=e]").count())
        page = tab.open(f"{BOARD}#sel=a.n500,e.n500")
        found.append(page.locator("a.go").get_attribute("href"))
        seen[name] = found
        tab.close()
    assert seen["large"] == seen["small"]
    assert seen["large"][1] == list(PROVEN)
    assert seen["large"][2] == ["a", "c", "e"]


def test_without_scripts_a_link_leads_to_every_row(browser: Any, sites: dict[str, Path]) -> None:
    tab = Tab(browser, sites["large"], java_script_enabled=False)
    page = tab.open(BOARD)
    assert page.locator("#board tbody tr[id]").count() == 2
    page.get_by_role("link", name=f"all {len(PROVEN)} are on one page").click()
    page.wait_for_url(f"**/{WHOLE}")
    rows = body(page)
    assert page.locator("#board tbody tr.parting").count() == 1
    assert page.locator("tr#open\\.n500").is_visible()
    page.locator("tr a[href^='#note-']").first.click()
    page.get_by_role("link", name="Plots, filters, search and export").click()
    page.wait_for_url(f"**/{BOARD}")
    tab.close()
    plain = Tab(browser, sites["small"], java_script_enabled=False)
    assert body(plain.open(BOARD)) == rows
    plain.close()


def test_the_page_of_all_rows_is_as_light_as_it_can_be(sites: dict[str, Path]) -> None:
    """Nothing is on it that a script alone would read; texts of entries stay escaped."""
    text = (sites["large"] / WHOLE).read_text("utf-8")
    assert "<script" not in text and "data-v" not in text and "data-config" not in text
    assert len(re.findall("Entry [a-z]+ &lt;b&gt;&amp;amp;", text)) >= len(PROVEN)
    assert not (sites["small"] / WHOLE).exists()


def test_a_board_whose_other_rows_do_not_arrive_stays_as_it_is(
    browser: Any, tmp_path: Path
) -> None:
    """It does not become a live table that lacks entries and does not say so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board_rows, "MOST", 4)
        patch.setattr(board_rows, "FIRST", 2)
        folder = build_site([results(tmp_path / "results")], tmp_path / "site").index.parent
    (folder / BOARD).with_suffix(".rows.js").unlink()
    tab = Tab(browser, folder)
    tab.page.goto((folder / BOARD).as_uri())
    tab.page.locator("table.plain").wait_for()
    assert tab.page.get_by_role("link", name="are on one page").is_visible()
    assert tab.page.locator("table.live").count() == 0
    tab.context.close()


def test_axe_finds_nothing_on_the_page_of_all_rows(browser: Any, site: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = Tab(browser, site)
    page = tab.context.new_page()
    page.goto((site / WHOLE).as_uri())
    assert [one["id"] for one in axe.run(page).response["violations"]] == []
    tab.context.close()
