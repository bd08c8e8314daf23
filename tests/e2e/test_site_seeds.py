"""Seeds of one training are one line of a board, and a board shows many lines at once."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, facet, location, menu
from leaderboard_factory import (
    make_manifest,
    make_result,
    make_score,
    write_evidence,
    write_result,
)

from corobench.leaderboard.build import build_site

BOARD = "boards/digits-1.0-n500-eps1-16.html"
SEEDS = {"lwm": 300, "lwm-s1": 280, "lwm-s2": 320}
LINE = "seeds.lwm.n500"


def entry(name: str, proven: int, seed: int = 0, flags: tuple[str, ...] = (), **more: Any) -> Any:
    training = {"data": "the track's training set", "seed": seed}
    score = make_score(500, 480, proven, 100, flags=list(flags))
    submission = {"training": training, **more}
    return make_result(name, epsilons=dict.fromkeys(("1/16", "2/16"), score), submission=submission)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("seeds")
    found = [
        entry(name, proven, seed, ("zero-gradient",) if seed == 1 else ())
        for seed, (name, proven) in enumerate(SEEDS.items())
    ]
    for number in range(24):
        method = make_manifest("x", "digits")["method"] | {"criterion": f"rule-{number % 3}"}
        title = f"LWM 10x by rule {number}"
        found.append(entry(f"other-{number:02d}", 310 - number, title=title, method=method))
    for result in found:
        write_evidence(write_result(root / "results", result))
    return build_site([root / "results"], root / "site").index.parent


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site, viewport={"width": 1440, "height": 900})
    yield tab
    tab.close()


def line(page: Any) -> Any:
    return page.locator(f'[id="{LINE}"]')


def test_seeds_are_one_line_with_mean_and_range(tab: Tab) -> None:
    page = tab.open(BOARD)
    assert not set(SEEDS) & set(entries(page))
    text = line(page).inner_text()
    assert "3 seeds" in text and "seeds 0, 1, 2" in text and "zero-gradient 1/3" in text
    assert line(page).locator(".c-certified").inner_text().split() == ["60.0", "56.0–64.0"]
    assert page.locator("#tools .count").inner_text() == "27 entries"
    order = page.eval_on_selector_all(
        "#board tbody tr[id]",
        "rows => rows.map(row => Number(row.querySelector('.c-certified').dataset.order))",
    )
    assert order == sorted(order, reverse=True)


def test_a_line_of_seeds_unfolds_and_its_link_keeps_it_open(tab: Tab) -> None:
    page = tab.open(BOARD)
    button = line(page).get_by_role("button", name="3 seeds")
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    places = entries(page)
    at = places.index("lwm")
    assert places[at : at + 3] == list(SEEDS)
    assert page.locator("tr[data-entry=lwm-s1] a").first.inner_text().endswith(", seed 1")
    heads = page.locator("#board thead th:visible").count()
    assert page.locator("tr[data-entry=lwm-s1] > :visible").count() == heads
    menu(page, "Columns").get_by_role("checkbox", name="Clean", exact=True).uncheck()
    assert page.locator("tr[data-entry=lwm-s1] > :visible").count() == heads - 1
    tab.go(location(page))
    assert entries(page)[at : at + 3] == list(SEEDS)
    line(page).get_by_role("button", name="3 seeds").click()
    assert not set(SEEDS) & set(entries(page))


def test_a_link_to_one_seed_unfolds_its_line(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#lwm-s2.n500")
    assert page.locator('[id="lwm-s2.n500"]').is_visible()


def test_filters_and_search_look_at_every_seed(tab: Tab) -> None:
    page = tab.open(BOARD)
    page.locator("#q").fill("lwm-s2")
    assert page.locator("#tools .count").inner_text() == "3 of 27 entries"
    page.locator("#q").fill("")
    facet(page, "Flags").get_by_label("flagged").check()
    assert page.locator("#tools .count").inner_text() == "1 of 27 entries"
    page.keyboard.press("Escape")  # the filters lie over the board
    line(page).get_by_role("button", name="3 seeds").click()
    assert entries(page)[-1] == "lwm-s1"


def test_seeds_are_selected_together_and_exported_one_by_one(tab: Tab) -> None:
    page = tab.open(BOARD)
    line(page).get_by_role("checkbox").check()
    assert "3 selected" in page.locator("#tools .count").inner_text()
    link = page.get_by_role("link", name="Compare 3")
    assert all(f"{name}.n500" in link.get_attribute("href") for name in SEEDS)
    with page.expect_download() as waiting:
        menu(page, "Export").get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text("utf-8"))))
    found = {row["entry"]: (row["seed"], row["title"], row["certified"]) for row in rows}
    assert len(rows) == 27
    for seed, (name, proven) in enumerate(SEEDS.items()):
        assert found[name] == (str(seed), f"Least weight magnitude, 10x, seed {seed}", str(proven))


def test_the_seed_is_in_titles_and_citations(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/lwm-s1.n500.html")
    assert page.locator("h1").inner_text().endswith(", seed 1")
    assert "seed 1" in page.title()
    assert "seed 1" in page.locator("#bibtex").inner_text()
    assert "seed 1" in page.locator("#latex").inner_text()


def test_a_board_shows_many_lines_and_its_header_stays(tab: Tab) -> None:
    page = tab.open(BOARD)
    rows = page.locator("#board tbody tr[id]")
    heights = rows.evaluate_all("rows => rows.map(row => row.getBoundingClientRect().height)")
    assert max(heights) <= 50
    ends = rows.evaluate_all("rows => rows.map(row => row.getBoundingClientRect().bottom)")
    assert sum(end <= 900 for end in ends) >= 12
    assert "Method" not in page.locator("#board thead").inner_text()  # its title says it
    page.mouse.move(700, 600)
    page.mouse.wheel(0, 700)
    page.wait_for_function(
        "scrollY > 300 || document.querySelector('.scroll.board').scrollTop > 300"
    )
    page.wait_for_function(
        "(() => { const head = document.querySelector('th.c-clean').getBoundingClientRect();"
        " return head.top >= 0 && head.top < 200; })()"
    )


def test_a_phone_shows_entries_first(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    page = tab.open(BOARD)
    ends = page.locator("#board tbody tr[id]").evaluate_all(
        "rows => rows.map(row => row.getBoundingClientRect().bottom)"
    )
    assert sum(end <= 844 for end in ends) >= 3
    tab.close()
