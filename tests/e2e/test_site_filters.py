"""Every filter of a board in a real browser: what it leaves, what its link shows again."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, facet, location, menu
from leaderboard_factory import (
    MIRROR,
    make_compactness,
    make_manifest,
    make_result,
    with_identity,
    write_result,
)

from corobench.leaderboard.build import build_site
from corobench.leaderboard.plot import MAX_LINKS

BOARD = "boards/digits-1.0-n500-eps2-16.html"
TIERS = (2, 4, 8, 10, 16, 20, 32, 100)
NO_PROOF = {"IBP": None, "CROWN-IBP": None, "CROWN": None, "cascade": None}


def entry(name: str, times: float = 1.0, **submission: Any) -> dict[str, Any]:
    """A result that is this many times smaller; keywords go into its manifest."""
    method = make_manifest(name, "digits")["method"]
    if times == 1.0:
        method |= {"pipeline": "none", "schedule": "none", "structure": "none", "scope": "none"}
        method |= {"criterion": "none", "finetune_objective": ""}
    method |= submission.pop("method", {})
    result = make_result(
        name,
        compactness=make_compactness(keep_ratio=1 / times),
        submission={"method": method, **submission},
    )
    return result.model_dump(mode="json", by_alias=True)


def unknown(name: str) -> dict[str, Any]:
    """A result of which no certifier was asked."""
    found = entry(name, 10)
    for score in found["epsilons"].values():
        score["counts"]["undecided"] += score["counts"]["certified"]
        score["counts"]["certified"] = 0
        score["certified_by"] = NO_PROOF
    return found


def all_entries() -> list[dict[str, Any]]:
    """One entry per value that a board can be filtered by."""
    found = [entry("dense"), *(entry(f"lwm-{times}x", times) for times in TIERS)]
    found.append(entry("between-13x", 13))
    found.append(entry("filters", 10, method={"structure": "structured", "criterion": "filter-l1"}))
    found.append(entry("large", 10, model={"architecture": "cnn-large"}))
    found.append(entry("before", 10, method={"pipeline": "before", "schedule": "iterative"}))
    found.append(entry("naive", 10, method={"finetune_objective": "natural", "scope": "global"}))
    found.append(entry("ibp", 10, method={"pretrain_objective": "ibp"}))
    training = {
        "data": "and more",
        "seed": 0,
        "extra_data": True,
        "extra_data_source": "drawn by hand",
    }
    found.append(entry("extra", 10, training=training))
    unproven, asked, flagged = unknown("unproven"), unknown("not-asked"), entry("flagged", 10)
    for score in unproven["epsilons"].values():
        score["certified_by"] = dict.fromkeys(NO_PROOF, 0)
    for score in flagged["epsilons"].values():
        score["flags"] = ["square-helps"]
    return [*found, unproven, asked, flagged]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("filters")
    for result in all_entries():
        write_result(root / "results", result)
    mirror = entry("of-a-mirror", 10)
    mirror["data"] = {"kind": "mirror", "fingerprint": MIRROR, "source": "a copy"}
    write_result(root / "results", with_identity(mirror))
    return build_site([root / "results"], root / "site").index.parent


def test_a_value_with_a_bar_is_one_value_in_the_link(browser: Any, tmp_path: Path) -> None:
    for name, criterion in (("one", "a|b"), ("two", "a"), ("three", "b")):
        result = entry(name, 10, method={"criterion": criterion})
        write_result(tmp_path / "results", result)
    tab = Tab(browser, build_site([tmp_path / "results"], tmp_path / "site").index.parent)
    page = tab.open(BOARD)
    facet(page, "Criterion").get_by_role("checkbox", name="a|b 1", exact=True).check()
    tab.go(location(page))
    assert entries(page) == ["one"]
    tab.open(f"{BOARD}#f.criterion=a|b&f.criterion=b")
    assert set(entries(page)) == {"one", "three"}
    tab.open(f"{BOARD}#f.scope=layer-wise|global")  # as older links have it
    assert len(entries(page)) == 3
    tab.close()


#: Filter -> some of its values -> the entries that are left.
CASES: dict[str, dict[str, set[str]]] = {
    "Pruned": {"not pruned": {"dense"}, "before training": {"before"}},
    "Criterion": {"filter-l1": {"filters"}},
    "Trained with": {"ibp": {"ibp"}},
    "Fine-tuned with": {"natural": {"naive"}},
    "Schedule": {"iterative": {"before"}},
    "Scope": {"global": {"naive"}},
    "Structure": {"structured": {"filters"}},
    "Architecture": {"cnn-large": {"large"}},
    "Times smaller": {
        **{f"{times}x": {f"lwm-{times}x"} for times in TIERS if times != 10},
        "dense": {"dense"},
        "other": {"between-13x"},
    },
    "Packed size": {
        "25 kB to 100 kB": {"lwm-2x", "lwm-4x", "lwm-8x"},
        "100 kB to 1 MB": {"dense"},
    },
    "Training data": {"extra data": {"extra"}},
    "Proof": {"nothing proven": {"unproven"}, "no proof asked": {"not-asked"}},
    "Flags": {"flagged": {"flagged"}},
}


@pytest.mark.parametrize("title", CASES)
def test_each_filter_and_its_link(tab: Tab, title: str) -> None:
    page = tab.open(BOARD)
    total = len(entries(page))
    assert total == len(all_entries())
    sheet = facet(page, title)
    for value, left in CASES[title].items():
        box = sheet.get_by_role("checkbox", name=f"{value} {len(left)}", exact=True)
        box.check()
        assert set(entries(page)) == left
        assert page.locator("#tools .count").inner_text() == f"{len(left)} of {total} entries"
        address = location(page)
        box.uncheck()
        assert len(entries(page)) == total
    tab.go(address)
    assert set(entries(page)) == left
    chip = page.get_by_role("button", name=f"Remove the filter {title}: {value}")
    chip.click()
    assert len(entries(page)) == total
    assert chip.count() == 0
    tab.go(address)
    page.get_by_role("button", name="Clear", exact=True).click()
    assert len(entries(page)) == total
    assert "#" not in location(page)


def test_values_of_one_filter_add_and_filters_cut(tab: Tab) -> None:
    page = tab.open(BOARD)
    facet(page, "Times smaller")
    page.get_by_role("checkbox", name="2x 1", exact=True).check()
    page.get_by_role("checkbox", name="100x 1", exact=True).check()
    assert set(entries(page)) == {"lwm-2x", "lwm-100x"}
    page.locator("#q").fill("lwm-100x")
    assert entries(page) == ["lwm-100x"]
    address = location(page)
    tab.go(address)
    assert entries(page) == ["lwm-100x"]
    assert page.locator("#q").input_value() == "lwm-100x"
    facet(page, "Proof").get_by_role("checkbox", name="no proof asked 1", exact=True).check()
    assert page.locator("#board tbody").inner_text().startswith("No matching")
    page.locator("h1").click()
    page.get_by_role("button", name="Clear filters").click()
    assert len(entries(page)) == len(all_entries())


def test_search_finds_methods_architectures_and_authors(tab: Tab) -> None:
    page = tab.open(BOARD)
    for text, left in (("cnn-large", {"large"}), ("between-13x", {"between-13x"})):
        page.locator("#q").fill(text)
        assert set(entries(page)) == left
    page.locator("#q").fill("interval bound propagation")
    assert set(entries(page)) == {"ibp"}
    page.locator("#q").fill("ada example")
    assert len(entries(page)) == len(all_entries())


@pytest.mark.parametrize(
    ("sort", "ordered"),
    [("nonzero.asc", ["lwm-100x", "lwm-32x", "lwm-20x"]), ("times.desc", ["lwm-100x", "lwm-32x"])],
)
def test_sorting_by_size(tab: Tab, sort: str, ordered: list[str]) -> None:
    page = tab.open(f"{BOARD}#sort={sort}")
    assert entries(page)[: len(ordered)] == ordered


def test_chosen_columns_stay_in_the_link_and_in_exports(tab: Tab) -> None:
    page = tab.open(BOARD)
    sheet = menu(page, "Columns")
    for title in ("ERA kept", "Date", "Protocol", "AutoAttack", "Packed", "Multiply-adds"):
        sheet.get_by_role("checkbox", name=title, exact=True).check()
    sheet.get_by_role("checkbox", name="Clean", exact=True).uncheck()
    heads = page.locator("#board thead").inner_text()
    assert "ERA kept" in heads and "\tClean\t" not in heads
    tab.go(location(page))
    assert page.locator("#board thead").inner_text() == heads
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name="CSV").click()
    (first, *_) = csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text("utf-8")))
    assert {"kept_pgd50", "date", "protocol", "autoattack", "packed", "macs"} <= first.keys()
    assert "clean" not in first
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name="JSON").click()
    record = json.loads(Path(waiting.value.path()).read_text("utf-8"))
    assert len(record["rows"]) == len(all_entries())
    assert record["view"] == location(page).partition("#")[2]


def test_from_canonical_to_mirror_data_and_back(tab: Tab) -> None:
    page = tab.open(BOARD)
    assert "of-a-mirror" not in entries(page)
    page.get_by_role("group", name="Data").get_by_role("link", name="mirror").click()
    page.locator("table.live").wait_for()
    assert entries(page) == ["of-a-mirror"]
    assert page.locator("#board th.c-group").count() == 0
    page.get_by_role("group", name="Data").get_by_role("link", name="canonical").click()
    page.locator("table.live").wait_for()
    assert len(entries(page)) == len(all_entries())


def test_what_another_board_lacks_is_kept_for_the_way_back(tab: Tab) -> None:
    """The mirror's board has one row, so neither that size nor those rows nor any filter."""
    chosen = "lwm-2x.n500,lwm-4x.n500"
    page = tab.open(f"{BOARD}#f.packed=25 kB to 100 kB&sel={chosen}")
    left = CASES["Packed size"]["25 kB to 100 kB"]
    data = page.get_by_role("group", name="Data")

    def go(kind: str) -> None:
        data.get_by_role("link", name=kind).click()
        page.locator("table.live").wait_for()

    go("mirror")
    assert entries(page) == ["of-a-mirror"]
    assert "1 entries" in page.locator("#tools .count").inner_text()
    assert page.locator(".chip").all_inner_texts() == ["Not applied here: 25 kB to 100 kB"]
    page.locator("#q").fill("mirror")  # whatever is done there
    go("canonical")
    page.locator("#q").fill("")
    assert set(entries(page)) == left
    assert page.locator("tr.on").count() == 2
    go("mirror")
    page.get_by_role("button", name="Clear", exact=True).click()
    go("canonical")
    assert len(entries(page)) == len(all_entries())
    assert page.locator("tr.on").count() == 0
    page = tab.open(f"{BOARD}#f.none={'x' * 300}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_link_to_columns_without_the_entry_shows_it_all_the_same(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#cols=clean")
    assert page.locator("#board thead").inner_text().split() == ["Select", "Entry", "Clean"]
    menu(page, "Export").get_by_role("button", name="LaTeX").click()
    assert "tabular" in page.locator("#cite[open] pre").inner_text()  # waits for the dialog


def test_points_of_a_crowded_plot_select_rows_too(browser: Any, tmp_path: Path) -> None:
    """With so many entries the ranges are no links; the nearest one is picked."""
    for number in range(MAX_LINKS + 5):
        write_result(tmp_path / "results", entry(f"lwm-{number}", 2 + number))
    write_result(tmp_path / "results", unknown("zz-not-asked"))
    tab = Tab(browser, build_site([tmp_path / "results"], tmp_path / "site").index.parent)
    page = tab.open(BOARD)
    place = MAX_LINKS  # one of the least compressed, which stand apart on the log axis
    range_ = page.locator("svg.size-nonzero .dense path").nth(place)
    range_.scroll_into_view_if_needed()
    box = range_.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)
    assert page.locator("tr.on").get_attribute("data-entry") == entries(page)[place]
    paths = page.locator("svg.size-nonzero .dense path")
    dots = paths.evaluate_all("all => all.map((path) => getComputedStyle(path).markerStart)")
    assert dots == ['url("#end-low")'] * (MAX_LINKS + 5) + ["none"]  # nothing is known of the last
    tab.close()


@pytest.fixture(scope="module")
def long_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long")
    for number in range(120):
        write_result(root / "results", entry(f"lwm-{number}", 2 + number))
    return build_site([root / "results"], root / "site").index.parent


def test_a_long_board_has_pages_and_its_link_holds_the_page(browser: Any, long_site: Path) -> None:
    tab = Tab(browser, long_site)
    page = tab.open(BOARD)
    first = entries(page)
    assert len(first) == 100
    page.locator(".dt-paging .next").click()
    rest = entries(page)
    assert len(rest) == 20
    assert sorted(first + rest) == sorted(f"lwm-{number}" for number in range(120))
    tab.go(location(page))
    assert entries(page) == rest
    page.locator("th.c-nonzero").click()
    page.locator("th.c-nonzero[aria-sort=ascending]").wait_for()
    assert entries(page)[0] == "lwm-119"
    tab.go(location(page))
    assert entries(page)[0] == "lwm-119"
    tab.close()


@pytest.mark.parametrize("missing", ["scripts", "unpacking"])
def test_a_long_board_is_complete_without(browser: Any, long_site: Path, missing: str) -> None:
    """No script at all, or a browser that cannot unpack the table's library."""
    tab = Tab(browser, long_site, java_script_enabled=missing != "scripts")
    if missing == "unpacking":
        tab.page.add_init_script("delete window.DecompressionStream")
    tab.page.goto((long_site / BOARD).as_uri())
    if missing == "unpacking":
        tab.page.locator("table.plain").wait_for()
    rows = tab.page.locator("#board tbody tr")
    assert rows.count() == 120
    assert rows.nth(119).is_visible()
    tab.close()
