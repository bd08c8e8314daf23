"""The leaderboard in a real browser: every control works, nothing complains, nothing is fetched."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, facet, location, menu

from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import OUTCOMES, beside
from corobench.benchmark.review.remeasure import remeasure
from corobench.benchmark.scoring.result_writing import write_set
from corobench.benchmark.scoring.statistics import mcnemar_exact
from corobench.leaderboard.build import build_site
from corobench.leaderboard.format import percent
from corobench.leaderboard.measures import Share

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results" / "1.0" / "digits"
SUBMISSIONS = Path(__file__).parents[2] / "submissions"
BOARD = "boards/digits-1.0-n500-eps2-16.html"
COMPARE = "compare/digits-1.0-n500.html"
ENTRY = "entries/1.0/digits/digits-adv-lwm-10x.n500.html"
PAGES = ("index.html", BOARD, COMPARE, ENTRY, "method.html", "submit.html", "changelog.html")
HOSTILE = """<img src=x onerror="document.title='broken'">=1+1"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published digits: one with a hostile title and method, two with weights measured now."""
    root = tmp_path_factory.mktemp("site")
    folder = root / "results" / "1.0" / "digits"
    shutil.copytree(RESULTS, folder)
    for name in ("digits-adv-dense", "digits-adv-lwm-10x"):
        remeasure(folder / f"{name}.json", SUBMISSIONS / name, write=True)
    path = folder / "digits-ibp-random-10x.json"
    table, run = read_outcomes(beside(path, OUTCOMES))
    method = run.submission.method.model_copy(update={"name": HOSTILE})
    manifest = run.submission.model_copy(update={"title": HOSTILE, "method": method})
    write_set(path, table, run.model_copy(update={"submission": manifest}))
    return build_site([root / "results"], root / "out").index.parent


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_from_a_file_in_silence(tab: Tab, name: str) -> None:
    page = tab.open(name)
    assert page.locator("h1").count() == 1
    assert page.title() != "broken"


def test_sorting_by_a_column_and_back(tab: Tab) -> None:
    page = tab.open(BOARD)
    ranked = entries(page)
    page.locator("th.c-clean").click()
    page.locator("th.c-clean[aria-sort=descending]").wait_for()
    by_clean = page.eval_on_selector_all(
        "#board tbody td.c-clean", "cells => cells.map(c => Number(c.dataset.order))"
    )
    assert by_clean == sorted(by_clean, reverse=True)
    page.locator("th.c-clean").click()
    page.locator("th.c-clean[aria-sort=ascending]").wait_for()
    assert entries(page) != ranked
    page.get_by_role("button", name="Clear", exact=True).click()
    assert entries(page) == ranked


def test_what_is_absent_stays_last_both_ways(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#cols=entry,clean,kept_clean")
    for way in ("descending", "ascending"):
        page.locator("th.c-kept_clean").click()
        page.locator(f"th.c-kept_clean[aria-sort={way}]").wait_for()
        assert set(entries(page)[-2:]) == {"digits-adv-dense", "digits-ibp-dense"}


def test_filter_search_and_count(tab: Tab) -> None:
    page = tab.open(BOARD)
    facet(page, "Times smaller").get_by_label("10x").check()
    assert len(entries(page)) == 6
    assert page.locator("#tools .count").inner_text() == "6 of 8 entries"
    page.locator("#q").fill("IBP")
    assert all("ibp" in name for name in entries(page))
    page.locator("#q").fill("nothing like that")
    assert page.locator("#board tbody").inner_text().startswith("No matching")


def test_the_address_holds_the_exact_view(tab: Tab) -> None:
    page = tab.open(BOARD)
    facet(page, "Criterion").get_by_label("least-weight-magnitude").check()
    columns = menu(page, "Columns")
    columns.get_by_label("IBP", exact=True).check()
    columns.get_by_label("Method", exact=True).uncheck()
    page.locator("h1").click()
    page.locator("th.c-by_ibp").click()
    page.locator("th.c-by_ibp[aria-sort]").wait_for()
    page.locator("#board tbody input").nth(1).check()
    page.get_by_role("radio", name="packed bytes").check()

    def state() -> dict[str, Any]:
        return {
            "entries": entries(page),
            "head": page.locator("#board thead").inner_text(),
            "chosen": page.eval_on_selector_all("tr.on", "rows => rows.map(r => r.id)"),
            "plot": page.locator("svg.size-packed").is_visible(),
            "count": page.locator("#tools .count").inner_text(),
        }

    before, address = state(), location(page)
    assert "#" in address
    assert before["plot"]
    assert len(before["chosen"]) == 1
    tab.go(address)
    assert state() == before
    assert location(page) == address


def test_a_link_to_a_row_shows_it(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#digits-ibp-random-10x.n500")
    assert page.locator("#digits-ibp-random-10x\\.n500").is_visible()
    assert len(entries(page)) == 8


@pytest.mark.parametrize(
    "fragment",
    ["%E0%A4%A", "%", "=", "&&&", "q=%E0", "sort=clean.up", "page=1e99", "cols=,x", "sel=<b>,%00"],
)
def test_garbage_in_the_address_shows_the_whole_board(tab: Tab, fragment: str) -> None:
    page = tab.open(f"{BOARD}#{fragment}")
    page.locator("#tools .count", has_text="of 8" if "q=" in fragment else "8 entries").wait_for()
    assert page.locator("th.c-clean").is_visible()
    page = tab.open(f"{COMPARE}#{fragment}")
    assert "Choose two to 8" in page.locator("#compared").inner_text()


@pytest.mark.parametrize("n", [500, 1_000, 10_000])
def test_scripts_write_shares_as_the_pages_do(tab: Tab, n: int) -> None:
    page = tab.open(COMPARE)
    script = "n => [...Array(n + 1).keys()].map((count) => corobench.percent(count, n))"
    assert page.evaluate(script, n) == [percent(Share(count, n)) for count in range(n + 1)]


def test_exports_hold_the_view_as_counts(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#f.objective=ibp&sort=nonzero.asc")
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text("utf-8"))))
    assert [row["entry"] for row in rows] == entries(page)
    whole = list(csv.DictReader((tab.site / BOARD.replace(".html", ".csv")).open()))
    counts = {row["entry"]: row["certified"] for row in whole}
    assert all(row["certified"] == counts[row["entry"]] for row in rows)
    hostile = next(row for row in rows if row["entry"] == "digits-ibp-random-10x")
    assert hostile["title"] == HOSTILE
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name="JSON").click()
    record = json.loads(Path(waiting.value.path()).read_text("utf-8"))
    assert record["n"] == 500
    assert [row["entry"] for row in record["rows"]] == entries(page)
    assert isinstance(record["rows"][0]["certified"], int)


def test_latex_and_bibtex_of_selected_rows(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#sel=digits-adv-lwm-10x.n500")
    menu(page, "Export").get_by_role("button", name="BibTeX").click()
    text = page.locator("#cite[open] pre").inner_text()
    assert text.startswith("@misc{corobench:1.0:digits:digits-adv-lwm-10x.n500,")
    assert text.count("@misc") == 1
    page.keyboard.press("Escape")
    menu(page, "Export").get_by_role("button", name="LaTeX").click()
    assert page.locator("#cite[open] pre").inner_text().strip().endswith(r"\end{tabular}")


def test_picking_a_point_selects_its_row(tab: Tab) -> None:
    page = tab.open(BOARD)
    point = page.locator("svg.size-nonzero a[data-i='1']")
    point.locator(".touch").dispatch_event("click")
    assert page.locator("tr.on").count() == 1
    assert page.locator("tr.on").get_attribute("data-entry") == entries(page)[1]
    assert "sel=" in location(page)


def test_picking_a_point_of_a_curve_selects_its_row(tab: Tab) -> None:
    page = tab.open(BOARD)
    point = page.locator("svg.curves a").last
    index = int(point.get_attribute("data-i"))
    point.locator(".touch").dispatch_event("click")
    assert page.locator("tr.on").get_attribute("data-entry") == entries(page)[index]
    point.focus()
    page.keyboard.press("Enter")
    assert page.locator("tr.on").count() == 0


def test_compare_counts_as_the_reference_does(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#sel=digits-adv-lwm-10x.n500,digits-adv-random-10x.n500")
    page.get_by_role("link", name="Compare 2").click()
    page.locator("#num-differing").wait_for()
    cells = page.locator("#compared tr", has_text="Proven: digits-adv-lwm-10x against")
    first, second, shown = [
        cells.locator("td").nth(place).inner_text().strip() for place in range(3)
    ]
    expected = mcnemar_exact(int(first), int(second))
    assert shown == ("< 0.0001" if expected < 1e-4 else f"{expected:.4f}")
    for pair in ((0, 0), (0, 5), (3, 9), (40, 71), (300, 200)):
        value = page.evaluate("([a, b]) => corobench.mcnemar(a, b)", list(pair))
        assert value == pytest.approx(mcnemar_exact(*pair), rel=1e-9)
    assert page.locator(".matrix tbody tr").count() > 0
    assert page.locator(".matrix img").count() > 0
    assert page.locator("input[name=e]:checked").count() == 2
    address = location(page)
    tab.go(address)
    page.locator("#num-differing").wait_for()
    assert page.locator("input[name=e]:checked").count() == 2


def test_no_more_than_eight_are_compared(tab: Tab) -> None:
    page = tab.open(COMPARE)
    assert "Choose two to 8" in page.locator("#compared").inner_text()
    boxes = page.locator("input[name=e]")
    for place in range(4):
        boxes.nth(place).check()
    page.locator("#num-differing").wait_for()
    tests = page.locator("#compared table", has=page.locator("caption", has_text="McNemar"))
    assert tests.locator("tbody tr").count() == 3 * 6
    assert page.locator(".matrix thead th").count() == 1 + 4


def test_weights_are_a_picture_with_words_and_a_table(tab: Tab) -> None:
    page = tab.open(ENTRY)
    picture = page.get_by_role("img", name="Weights by magnitude")
    assert picture.is_visible()
    described = page.locator("#" + picture.get_attribute("aria-describedby")).inner_text()
    assert "digits-adv-lwm-10x, this entry: 2,226 kept, 20,022 zero" in described
    assert "digits-adv-dense, its dense parent: 22,248 kept, 0 zero" in described
    size = page.get_by_role("region", name="Size, measured on the")
    size.get_by_text("The same in numbers").click()
    cells = size.locator("table.narrow tbody tr td:last-child")
    assert cells.first.is_visible()
    counts = [int(text.replace(",", "")) for text in cells.all_inner_texts()]
    assert sum(counts) == 22_248


def test_hostile_text_shows_as_text(tab: Tab) -> None:
    for name in (BOARD, f"{COMPARE}#e=digits-ibp-random-10x.n500,digits-ibp-dense.n500"):
        page = tab.open(name)
        page.wait_for_function("t => document.body.innerText.includes(t)", arg=HOSTILE)
        assert page.title() != "broken"
        assert page.locator("img[src=x]").count() == 0


def test_without_scripts_the_board_is_complete(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, java_script_enabled=False)
    page = tab.open(BOARD)
    assert page.locator("#board tbody tr").count() == 8
    assert page.locator("#board thead th").count() > 20
    assert "need JavaScript" in page.locator("#tools").inner_text()
    tab.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_a_phone(browser: Any, site: Path, name: str) -> None:
    tab = Tab(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    page = tab.open(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.complaints == []
    tab.context.close()


def test_print_shows_the_table_without_controls(tab: Tab) -> None:
    page = tab.open(BOARD)
    page.emulate_media(media="print")
    assert page.locator("#tools :is(input, summary, a, button):visible").count() == 0
    assert page.locator("#board tbody tr").nth(7).is_visible()
    assert page.locator(".radii").first.inner_text().strip().endswith("2/16")
    assert page.locator(".radii a:visible").count() == 0
    assert page.pdf().startswith(b"%PDF")


def test_print_unfolds_what_is_folded(tab: Tab) -> None:
    page = tab.open(ENTRY)
    settings = page.get_by_text("autoattack_version")
    assert not settings.is_visible()
    page.emulate_media(media="print")
    assert settings.is_visible()
    assert not page.get_by_role("button", name="Copy").first.is_visible()


def test_the_keyboard_reaches_sorting_and_menus(tab: Tab) -> None:
    page = tab.open(BOARD)
    page.locator("#q").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("details.menu[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("details.menu[open]").count() == 0
    page.locator("th.c-clean [role=button], th.c-clean").last.focus()
    page.keyboard.press("Enter")
    page.locator("th.c-clean[aria-sort=descending]").wait_for()


def test_a_link_skips_the_plots_and_a_jump_keeps_the_view(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#q=ibp&sort=nonzero.asc")
    before = entries(page)
    page.get_by_role("link", name="Skip the plots").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#columns-title'")
    assert entries(page) == before
    assert page.locator("#q").input_value() == "ibp"


_DARK = [(name, "dark") for name in ("index.html", BOARD, COMPARE, "method.html")]
_LIGHT = [(name, "light") for name in ("index.html", COMPARE, ENTRY, "method.html", "submit.html")]


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        (BOARD, "light"),
        (ENTRY, "dark"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [*_DARK, *_LIGHT]),
    ],
)
def test_axe_finds_no_violation(browser: Any, site: Path, name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = Tab(browser, site, color_scheme=scheme)
    chosen = "#e=digits-ibp-lwm-10x.n500,digits-ibp-dense.n500" if name == COMPARE else ""
    page = tab.open(name + chosen)
    if chosen:
        page.locator("#num-differing").wait_for()
    found = axe.run(page).response["violations"]
    assert [(item["id"], [node["target"] for node in item["nodes"]][:3]) for item in found] == []
    tab.context.close()
