"""What stays readable where there is little room: flags of a row, and the list of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import Tab, menu
from leaderboard_factory import make_result, make_score, write_evidence, write_result

from corobench.leaderboard.build import build_site

BOARD = "boards/digits-1.0-n500-eps1-16.html"
FLAGS = ("better-than-on-training", "non-monotone-steps", "zero-gradient")
#: Entry -> its flags; names as long as those of published entries.
ENTRIES = {
    "digits-adv-mismatch-hydra-iterative-10x": FLAGS,
    "digits-adv-mismatch-hydra-global-10x": FLAGS[:2],
    "digits-adv-mismatch-hydra-10x": FLAGS[:1],
    "plain": (),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("density")
    for shift, (name, flags) in enumerate(ENTRIES.items()):
        score = make_score(500, 480, 300 - shift, 100, flags=list(flags))
        more = {"title": f"CNN-small, LWM 10x, {name}, with a very long title"}
        path = write_result(
            root / "results",
            make_result(name, epsilons=dict.fromkeys(("1/16", "2/16"), score), submission=more),
        )
        write_evidence(path, shift=shift)
    return build_site([root / "results"], root / "site").index.parent


def shown_flags(page: Any, entry: str) -> list[str]:
    """The flags of a row that can be read: those wholly inside their cell."""
    found: list[str] = page.locator(f"tr[data-entry='{entry}'] th").evaluate(
        """th => {
          const cell = th.getBoundingClientRect();
          return [...th.querySelectorAll("b")].filter((flag) => {
            const box = flag.getBoundingClientRect();
            return box.width && box.left >= cell.left && box.right <= cell.right + 0.5;
          }).map((flag) => flag.innerText.replace(/\\n.*/s, "").replace(/ flags.*/s, ""));
        }"""
    )
    return found


@pytest.mark.parametrize("width", [1024, 1280, 1440])
def test_the_first_flag_is_named_and_the_others_are_counted(
    browser: Any, site: Path, width: int
) -> None:
    tab = Tab(browser, site, viewport={"width": width, "height": 900})
    page = tab.open(BOARD)
    for entry, flags in ENTRIES.items():
        found = shown_flags(page, entry)
        named = [flag for flag in found if flag in flags]
        counted = sum(int(flag) for flag in found if flag.startswith("+"))
        assert named[:1] == list(flags[:1]), (entry, found)
        assert len(named) + counted == len(flags), (entry, found)
        height = page.locator(f"tr[data-entry='{entry}']").bounding_box()["height"]
        assert height < 48, "two lines of text"
    more = page.locator(f"tr[data-entry='{next(iter(ENTRIES))}'] b.more")
    assert FLAGS[1] in more.get_attribute("title") and FLAGS[2] in more.get_attribute("title")
    link = more.get_by_role("link", name=f"+2 flags: {FLAGS[1]}, {FLAGS[2]}")
    link.click()
    page.wait_for_url("**/entries/**#flags-1-16")
    assert page.locator("#flags-1-16 li").count() == 3
    tab.close()


def test_on_a_phone_and_on_paper_every_flag_is_named(browser: Any, site: Path) -> None:
    entry = next(iter(ENTRIES))
    tab = Tab(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    page = tab.open(BOARD)
    assert shown_flags(page, entry) == list(FLAGS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()
    paper = Tab(browser, site, viewport={"width": 1440, "height": 900})
    page = paper.open(BOARD)
    page.emulate_media(media="print")
    assert shown_flags(page, entry) == list(FLAGS)
    paper.close()


def test_the_columns_are_in_groups_that_a_phone_folds(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    page = tab.open(BOARD)
    sheet = menu(page, "Columns").locator(".sheet")
    area = sheet.bounding_box()
    assert area["height"] < 500 and area["x"] > 8 and area["x"] + area["width"] < 382
    assert sheet.evaluate("box => box.scrollHeight <= box.clientHeight + 1"), "no scrolling in it"
    groups = sheet.locator("details")
    assert groups.count() >= 6
    assert groups.evaluate_all("all => all.filter((one) => one.open).length") == 0
    size = groups.filter(has=page.get_by_text("Size", exact=False)).first
    assert "1 of" in size.locator("summary").inner_text()
    size.locator("summary").tap()
    size.get_by_role("checkbox", name="Packed", exact=True).tap()
    assert "2 of" in size.locator("summary").inner_text()
    assert page.locator("td.c-packed").first.is_visible()
    page.keyboard.press("Escape")
    assert not sheet.is_visible()
    tab.close()


def test_a_desktop_shows_every_column_at_once(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, viewport={"width": 1280, "height": 900})
    page = tab.open(BOARD)
    sheet = menu(page, "Columns").locator(".sheet")
    boxes = sheet.get_by_role("checkbox")
    num = page.evaluate(
        "JSON.parse(document.querySelector('#board').dataset.config).columns.length"
    )
    assert boxes.count() == num
    assert all(box.is_visible() for box in boxes.all())
    area = sheet.bounding_box()
    assert area["x"] >= 0 and area["x"] + area["width"] <= 1280
    assert sheet.evaluate("box => box.scrollWidth <= box.clientWidth + 1")
    assert sheet.evaluate("box => box.scrollHeight <= box.clientHeight + 1"), "no scrolling in it"
    tab.close()


def test_a_small_desktop_shows_the_first_columns_without_scrolling(
    browser: Any, site: Path
) -> None:
    tab = Tab(browser, site, viewport={"width": 1024, "height": 768})
    page = tab.open(BOARD)
    assert page.locator("#board").evaluate(
        "table => table.scrollWidth <= table.parentElement.clientWidth + 1"
    )
    tab.close()


@pytest.mark.parametrize("width", [1000, 1280, 1500])
def test_an_arrow_stands_beside_the_last_word_of_its_heading(
    browser: Any, site: Path, width: int
) -> None:
    """On a line of its own it would lift the heading above its neighbours."""
    tab = Tab(browser, site, viewport={"width": width, "height": 900})
    page = tab.open(BOARD)
    gaps = page.locator("#board thead th:not(.pick)").evaluate_all("""all => all.map((head) => {
      const box = (part) => head.querySelector(`.dt-column-${part}`).getBoundingClientRect();
      return box("order").bottom - box("title").bottom;
    })""")
    assert len(gaps) > 5
    assert max(map(abs, gaps)) < 8, gaps
    tab.close()
