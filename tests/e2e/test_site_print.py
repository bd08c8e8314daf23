"""A board on paper: every line of the chosen view, however many pages the screen has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import Tab, location
from leaderboard_factory import make_result, make_score, write_result

from corobench.leaderboard.build import build_site

#: More than the two pages of a screen.
NUM_ENTRIES = 215
BOARD = "boards/digits-1.0-n500-eps2-16.html"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("print")
    for place in range(NUM_ENTRIES):
        scores = [make_score(500, 480, 300 - place - step, 60) for step in (0, 20)]
        kind = "ibp" if place % 3 == 0 else "pgd-at"
        method = make_result().submission.method.model_dump(mode="json")
        write_result(
            root / "results",
            make_result(
                f"entry-{place}",
                epsilons=dict(zip(("1/16", "2/16"), scores, strict=True)),
                submission={
                    "title": f"Entry {place}",
                    "method": method | {"pretrain_objective": kind},
                },
            ),
        )
    return build_site([root / "results"], root / "site").index.parent


#: Lines in the table.
COUNT = "document.querySelectorAll('#board tbody tr[id]').length"


def print_media(page: Any, num_lines: int) -> None:
    """The media of paper, and wait until the page has noticed."""
    page.emulate_media(media="print")
    page.wait_for_function(f"{COUNT} === {num_lines}")


def shown(page: Any) -> list[str]:
    """Titles of the lines that can be seen."""
    titles: list[str] = page.eval_on_selector_all(
        "#board tbody tr[id]",
        "rows => rows.filter(row => row.getClientRects().length)"
        ".map(row => row.querySelector('th a').textContent)",
    )
    return titles


def test_paper_has_every_line_and_the_screen_its_page_again(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#page=1")
    on_screen = shown(page)
    assert on_screen[0] == "Entry 100" and len(on_screen) == 100
    print_media(page, NUM_ENTRIES)
    assert shown(page) == [f"Entry {place}" for place in range(NUM_ENTRIES)]
    assert page.locator(".radii").first.inner_text().strip().endswith("2/16")
    assert not page.locator(".dt-paging").is_visible()
    page.emulate_media(media="screen")
    page.wait_for_function(f"{COUNT} === 100")
    assert shown(page) == on_screen
    assert location(page).endswith("#page=1")


def test_paper_has_the_chosen_rows_and_says_what_was_chosen(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#f.objective=ibp&sort=certified.asc")
    expected = [f"Entry {place}" for place in range(0, NUM_ENTRIES, 3)]
    print_media(page, len(expected))
    assert shown(page) == expected[::-1]
    assert page.locator(".chips").inner_text().startswith("Trained with: ibp")
    assert page.locator("#tools .count").inner_text() == f"{len(expected)} of 215 entries"
    assert not page.locator("#q").is_visible()


def test_a_pdf_has_the_first_and_the_last_line(tab: Tab) -> None:
    """The browser's own printing, which tells the page of it by an event."""
    page = tab.open(BOARD)
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.seen = {COUNT}; }})")
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("window.seen") == NUM_ENTRIES
    page.wait_for_function(f"{COUNT} === 100")
    assert len(shown(page)) == 100


def test_without_a_script_paper_has_every_line(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, java_script_enabled=False)
    page = tab.open(BOARD)
    page.emulate_media(media="print")
    assert page.locator("#board tbody tr[id]:visible").count() == NUM_ENTRIES
    tab.close()
