"""The two ways to rank a board, and what a plot shows, in a real browser."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, location, menu
from leaderboard_factory import (
    make_compactness,
    make_result,
    make_score,
    write_evidence,
    write_result,
)

from corobench.leaderboard.build import build_site

BOARD = "boards/digits-1.0-n500-eps1-16.html"
#: Entry -> proven, broken, whether every certifier was asked, kept share of the parameters.
ENTRIES = {
    "proven": (300, 100, True, 0.1),
    "undecided": (0, 200, True, 0.1),
    "broken": (0, 480, False, 0.05),
    "open": (0, 10, False, 0.5),
}
BY_PROVEN = ["proven", "undecided", "broken", "open"]
BY_UNBROKEN = ["open", "proven", "undecided", "broken"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    for name, (proven, broken, asked, keep) in ENTRIES.items():
        score = make_score(500, 480, proven, broken)
        closing = ("CROWN", "alpha-CROWN", "BaB")
        if not asked:
            score["certified_by"] |= dict.fromkeys(closing)
        path = write_result(
            root / "results",
            make_result(
                name,
                epsilons=dict.fromkeys(("1/16", "2/16"), score),
                not_asked={} if asked else dict.fromkeys(closing, "too many hidden units"),
                compactness=make_compactness(keep_ratio=keep),
            ),
        )
        write_evidence(path)
    return build_site([root / "results"], root / "site").index.parent


def heads(page: Any) -> list[str]:
    found: list[str] = page.locator("#board thead th").all_inner_texts()
    return [" ".join(text.split()) for text in found]


def test_a_switch_ranks_by_proven_or_by_unbroken(tab: Tab) -> None:
    page = tab.open(BOARD)
    caption = page.locator("#board caption")
    assert entries(page) == BY_PROVEN
    assert "Ranked by proven" in caption.inner_text()
    assert "Ranked by unbroken" not in caption.inner_text()
    assert "Group" in heads(page) and "Group by unbroken" not in heads(page)
    page.get_by_role("group", name="Rank by").get_by_label("unbroken").check()
    assert entries(page) == BY_UNBROKEN
    assert "Ranked by unbroken" in caption.inner_text()
    assert "Ranked by proven" not in caption.inner_text()
    assert "Group by unbroken" in heads(page) and "Group" not in heads(page)
    groups = page.locator("#board td.c-group_unbroken").all_inner_texts()
    assert [text.split()[0] for text in groups] == ["1", "2", "3", "4"]
    address = location(page)
    assert "rank=unbroken" in address
    tab.go(address)
    assert entries(page) == BY_UNBROKEN
    assert page.get_by_role("group", name="Rank by").get_by_label("unbroken").is_checked()
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text("utf-8"))))
    assert [row["entry"] for row in rows] == BY_UNBROKEN
    assert [row["group_unbroken"] for row in rows] == ["1", "2", "3", "4"]


def test_what_is_not_known_stands_apart(tab: Tab) -> None:
    page = tab.open(BOARD)
    parting = page.locator("#board tr.parting")
    assert "Not known" in parting.inner_text()
    after = parting.evaluate("row => row.nextElementSibling.dataset.entry")
    assert after == "open"
    row = page.locator("tr[data-entry=open]")
    assert row.locator(".c-certified").inner_text().startswith("not known")
    assert (
        row.locator(".c-certified").evaluate("cell => getComputedStyle(cell).fontWeight") == "400"
    )
    assert page.locator("tr[data-entry=broken] .c-certified").inner_text().startswith("0.0")
    for way in ("descending", "ascending"):
        page.locator("th.c-certified").click()
        page.locator(f"th.c-certified[aria-sort={way}]").wait_for()
        assert entries(page)[-1] == "open"
        assert parting.count() == 0
    page.get_by_role("group", name="Rank by").get_by_label("unbroken").check()
    assert parting.count() == 0


def test_another_radius_keeps_the_view(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#rank=unbroken&q=e&sort=nonzero.asc&sel=open.n500")
    menu(page, "Columns").get_by_role("checkbox", name="Clean", exact=True).uncheck()
    before = (entries(page), heads(page), page.locator("tr.on").get_attribute("data-entry"))
    page.get_by_role("group", name="Radius").get_by_role("link").click()
    page.wait_for_url("**eps2-16**")
    page.locator("table.live").wait_for()
    assert (entries(page), heads(page), page.locator("tr.on").get_attribute("data-entry")) == before


def test_each_drawn_point_stands_at_its_entrys_size(tab: Tab) -> None:
    """Against the ticks of the axis as a reader sees them."""
    page = tab.open(BOARD)
    marks = page.locator("svg.size-nonzero").evaluate(
        """svg => ({
          ticks: [...svg.querySelectorAll("line.mark")].map(line =>
            [Number(line.getAttribute("x1")), line.nextElementSibling.textContent]),
          points: [...svg.querySelectorAll("a[data-i]")].map(link =>
            [Number(link.dataset.i), link.querySelector(".range").getAttribute("d")]),
        })"""
    )
    units = {"k": 1e3, "M": 1e6}
    ticks = [
        (at, math.log10(float(text.rstrip("kM")) * units.get(text[-1], 1)))
        for at, text in marks["ticks"]
    ]
    (first, low), (last, high) = ticks[0], ticks[-1]
    sizes = page.locator("#board tbody tr[id] .c-nonzero").evaluate_all(
        "cells => cells.map(cell => Number(cell.dataset.order))"
    )
    assert len(marks["points"]) == len(sizes) == len(ENTRIES)
    for index, path in marks["points"]:
        there = first + (last - first) * (math.log10(sizes[index]) - low) / (high - low)
        assert float(path[1:].split(" ")[0]) == pytest.approx(there, abs=0.05)


def test_compare_does_not_test_what_is_not_known(tab: Tab) -> None:
    page = tab.open("compare/digits-1.0-n500.html#e=open.n500,proven.n500,broken.n500&eps=1/16")
    page.locator("#num-differing").wait_for()
    row = page.locator("#compared tbody tr", has_text="Proven").first
    cells = row.locator("td").all_inner_texts()
    named = dict(zip(page.locator("#compared thead th").all_inner_texts()[1:4], cells, strict=True))
    assert named == {"open": "not known", "proven": "60.0 % · 300", "broken": "0.0 % · 0"}
    whole = page.locator("#compared table", has=page.locator("caption", has_text="McNemar"))
    tests = whole.locator("tbody th").all_inner_texts()
    assert len([test for test in tests if test.startswith("Unbroken")]) == 3
    (proven,) = [test for test in tests if test.startswith("Proven")]
    assert "open" not in proven


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board on which nothing is known as proven."""
    root = tmp_path_factory.mktemp("unknown")
    closing = dict.fromkeys(("CROWN", "alpha-CROWN", "BaB"))
    for shift, (name, broken) in enumerate({"most": 400, "least": 20, "some": 200}.items()):
        score = make_score(500, 480, 0, broken)
        score["certified_by"] |= closing
        path = write_result(
            root / "results",
            make_result(
                name,
                epsilons=dict.fromkeys(("1/16", "2/16"), score),
                not_asked=dict.fromkeys(closing, "too many hidden units"),
            ),
        )
        write_evidence(path, shift=shift)
    return build_site([root / "results"], root / "site").index.parent


def test_where_nothing_is_known_as_proven_a_board_says_so_and_ranks_by_unbroken(
    browser: Any, unknown: Path
) -> None:
    tab = Tab(browser, unknown, viewport={"width": 1440, "height": 900})
    for address in (BOARD, f"{BOARD}#rank=proven", f"{BOARD}#rank=unbroken"):
        page = tab.open(address)
        caption = page.locator("#board caption").inner_text()
        assert "Nothing is known as proven here" in caption
        assert "Ranked by unbroken" in caption and "by proven:" not in caption
        assert entries(page) == ["least", "some", "most"]
        assert "Group by unbroken" in heads(page) and "Group" not in heads(page)
        choice = page.get_by_role("group", name="Rank by")
        assert choice.get_by_label("unbroken").is_checked()
        assert choice.get_by_label("proven").is_disabled()
    page.locator("th.c-nonzero").click()
    page.locator("th.c-nonzero[aria-sort=ascending]").wait_for()
    assert "rank=" not in location(page)
    page = tab.open("index.html")
    assert "by proven" not in page.locator("table.top caption").first.inner_text()
    tab.close()
    plain = Tab(browser, unknown, java_script_enabled=False)
    caption = plain.open(BOARD).locator("#board caption").inner_text()
    assert "Ranked by unbroken" in caption and "by proven:" not in caption
    plain.close()
