"""Every point of a plot can be found: by mouse, finger and keyboard; zoom, colours, families."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab, entries, location
from leaderboard_factory import make_compactness, make_result, make_score, write_result

from corobench.leaderboard.build import build_site

BOARD = "boards/digits-1.0-n500-eps2-16.html"
#: Entry -> proven, broken, kept share, parent, training, method.
FAMILY = {
    "dense": (300, 100, 1.0, None, "pgd-at", "dense"),
    **{
        f"lwm-{place}": (300 - 3 * place, 100, 0.1, "dense", "pgd-at", f"LWM {place + 2}x")
        for place in range(12)
    },
    "twin": (300, 100, 0.1, "dense", "pgd-at", "HYDRA 10x"),
    "shadow": (300, 100, 0.1, None, "ibp", "HYDRA 10x"),
    **{
        f"far-{place}": (200 - 40 * place, 150, 0.02 * (place + 1), None, "ibp", "SNIP 10x")
        for place in range(4)
    },
}
DOTS = """() => [...document.querySelectorAll("svg.size-nonzero a[data-i]")].map((node) => {
  const path = node.querySelector(".range").getAttribute("d");
  const [, x, low] = /^M([-\\d.]+) ([-\\d.]+)/.exec(path).map(Number);
  const at = new DOMPoint(x, low).matrixTransform(node.ownerSVGElement.getScreenCTM());
  return [node.getAttribute("aria-label").split(":")[0], at.x, at.y];
})"""

#: Until the browser has drawn, and with it corrected its scroll position.
SETTLED = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plots")
    for name, (proven, broken, keep, parent, training, method) in FAMILY.items():
        result = make_result(
            name,
            epsilons=dict.fromkeys(("1/16", "2/16"), make_score(500, 480, proven, broken)),
            compactness=make_compactness(keep_ratio=keep),
            submission={"parent": parent},
        )
        said = result.submission.method.model_copy(
            update={"name": method, "pretrain_objective": training, "finetune_objective": training}
        )
        manifest = result.submission.model_copy(update={"method": said, "title": f"Net {name}"})
        write_result(root / "results", result.model_copy(update={"submission": manifest}))
    return build_site([root / "results"], root / "site").index.parent


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site, viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
    yield tab
    tab.close()


def dots(page: Any) -> dict[str, tuple[float, float]]:
    """Where the dot of each entry is on the screen."""
    page.locator("#plots").evaluate("node => node.scrollIntoView()")
    page.evaluate(SETTLED)
    return {name: (x, y) for name, x, y in page.evaluate(DOTS)}


def test_every_point_can_be_pointed_at(tab: Tab) -> None:
    """Those that coincide are named together; whatever is selected stays."""
    page = tab.open(BOARD)
    card = page.locator(".point-card")
    found = dots(page)
    assert set(found) == set(FAMILY)
    for name, at in found.items():
        page.mouse.move(3, 3)
        assert not card.is_visible()
        page.mouse.move(*at)
        assert card.is_visible()
        assert name in card.inner_text().replace(":", " ").split(), name
    page.mouse.move(*found["lwm-11"])
    text = card.inner_text()
    assert "Net lwm-11" in text
    assert f"{100 * (300 - 33) / 500:.1f} %" in text and "76.0 %" in text and "96.0 %" in text


def test_a_family_stands_out(tab: Tab) -> None:
    page = tab.open(BOARD)
    page.mouse.move(*dots(page)["lwm-11"])
    kin = page.locator("svg.size-nonzero .kin").evaluate_all(
        "all => all.map((one) => one.getAttribute('aria-label').split(':')[0])"
    )
    assert set(kin) == {name for name in FAMILY if name.startswith("lwm")} | {"dense", "twin"}


def test_a_click_selects_in_place_and_a_second_one_goes_on(tab: Tab) -> None:
    page = tab.open(BOARD)
    found = dots(page)
    page.mouse.click(*found["lwm-11"])
    assert "sel=lwm-11.n500" in location(page)
    at = {name: (x, y) for name, x, y in page.evaluate(DOTS)}
    assert at["lwm-11"] == pytest.approx(found["lwm-11"], abs=0.5)
    assert page.locator(".chosen-points").inner_text().startswith("Selected:")
    card = page.locator(".point-card.pinned")
    assert card.get_by_role("link", name="Open").get_attribute("href").endswith("lwm-11.n500.html")
    card.get_by_role("button", name="Remove from the selection").click()
    assert "sel=" not in location(page)
    at = dots(page)["twin"]
    for _ in range(3):
        page.mouse.click(*at)
    chosen = location(page).partition("sel=")[2]
    assert "twin.n500" in chosen and "shadow.n500" in chosen
    page.keyboard.press("Escape")
    assert not page.locator(".point-card").is_visible()


def test_the_keyboard_walks_through_all_points(tab: Tab) -> None:
    page = tab.open(BOARD)
    stops = page.locator("svg.size-nonzero a[tabindex='0']")
    assert stops.count() == 1
    stops.focus()
    seen = []
    for _ in FAMILY:
        name = page.evaluate("document.activeElement.getAttribute('aria-label').split(':')[0]")
        assert f"Net {name}" in page.locator(".point-card").inner_text()
        seen.append(name)
        page.keyboard.press("ArrowRight")
    assert sorted(seen) == sorted(FAMILY)
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    assert f"sel={seen[0]}.n500" in location(page)


def test_every_point_can_be_tapped(browser: Any, site: Path) -> None:
    """Where the finger is, not where a browser moves the click: onto a link nearby."""
    phone: dict[str, Any] = {"width": 390, "height": 844}
    tab = Tab(browser, site, viewport=phone, has_touch=True, reduced_motion="reduce")
    page = tab.open(BOARD)
    page.locator("svg.size-nonzero").evaluate("node => node.scrollIntoView({block: 'center'})")
    page.evaluate(SETTLED)
    for name, x, y in page.evaluate(DOTS):
        for by in (0, 4):
            page.touchscreen.tap(5, y)
            assert not page.locator(".point-card").is_visible()
            page.touchscreen.tap(x - by, y)
            card = page.locator(".point-card").inner_text()
            assert name in card.replace(":", " ").split() or "more" in card, (name, by)
    tab.close()


def test_a_tap_shows_the_card_and_selects_nothing(browser: Any, site: Path) -> None:
    tab = Tab(
        browser,
        site,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        reduced_motion="reduce",
    )
    page = tab.open(BOARD)
    page.locator("svg.size-nonzero").evaluate("node => node.scrollIntoView({block: 'center'})")
    found = {name: (x, y) for name, x, y in page.evaluate(DOTS)}
    page.touchscreen.tap(*found["far-3"])
    card = page.locator(".point-card.pinned")
    assert "Net far-3" in card.inner_text()
    assert "sel=" not in location(page)
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    card.get_by_role("button", name="Select").click()
    assert "sel=far-3.n500" in location(page)
    tab.close()


def test_zoom_keeps_points_at_their_sizes(tab: Tab) -> None:
    """Against the ticks that are drawn then; and back again to the same picture."""
    page = tab.open(BOARD)
    before = dots(page)
    page.mouse.click(*before["far-3"])
    tools = page.get_by_role("group", name="Zoom").first
    for _ in range(2):
        tools.get_by_role("button", name="Zoom in").click()
    read = page.locator("svg.size-nonzero").evaluate(
        """svg => ({
          ticks: [...svg.querySelectorAll("line.mark")].map((line) =>
            [Number(line.getAttribute("x1")), line.nextElementSibling.textContent]),
          x: Number(/^M([-\\d.]+)/.exec(
            svg.querySelector("[data-i].on .range").getAttribute("d"))[1]),
        })"""
    )
    units = {"k": 1e3, "M": 1e6}
    ticks = [
        (at, math.log10(float(text.rstrip("kM")) * units.get(text[-1], 1)))
        for at, text in read["ticks"]
    ]
    (first, low), (last, high) = ticks[0], ticks[-1]
    size = math.log10(40_000 * FAMILY["far-3"][2])
    there = first + (last - first) * (size - low) / (high - low)
    assert read["x"] == pytest.approx(there, abs=2.5)  # texts of ticks have three digits
    tools.get_by_role("button", name="Show all").click()
    after = dots(page)
    assert {name: x for name, (x, _) in after.items()} == {
        name: pytest.approx(x, abs=0.5) for name, (x, _) in before.items()
    }


def test_dragging_over_an_area_enlarges_it(tab: Tab) -> None:
    page = tab.open(BOARD)
    x, y = dots(page)["far-1"]
    page.mouse.move(x - 40, y - 30)
    page.mouse.down()
    page.mouse.move(x, y, steps=3)
    page.mouse.move(x + 40, y + 30, steps=3)
    page.mouse.up()
    assert page.locator("svg.size-nonzero.zoomed").count() == 1
    assert "sel=" not in location(page)
    page.mouse.move(3, 3)
    at = {name: (left, top) for name, left, top in page.evaluate(DOTS)}["far-1"]
    page.mouse.move(*at)
    assert "Net far-1" in page.locator(".point-card").inner_text()


def test_colours_mean_training_or_method(tab: Tab) -> None:
    page = tab.open(BOARD)
    legend = page.locator(".by-training")
    assert legend.locator("li").all_inner_texts() == ["pgd-at", "ibp"]
    colour = "node => getComputedStyle(node.querySelector('circle.low')).fill"
    twin, shadow = (
        page.locator(f"svg.size-nonzero a[aria-label^='{name}:']") for name in ("twin", "shadow")
    )
    assert twin.evaluate(colour) != shadow.evaluate(colour)
    page.get_by_role("radio", name="method", exact=True).check()
    assert not legend.is_visible()
    assert page.locator(".by-method li").all_inner_texts() == ["LWM", "SNIP", "HYDRA", "dense"]
    assert twin.evaluate(colour) == shadow.evaluate(colour)
    page.locator(".by-method").get_by_role("button", name="SNIP").click()
    lit = page.locator("svg.size-nonzero .lit").count()
    assert lit == sum(name.startswith("far") for name in FAMILY)


def test_the_front_is_named(tab: Tab) -> None:
    """Of more than sixteen entries those that no smaller one is better than."""
    page = tab.open(BOARD)
    labels = page.locator("svg.size-nonzero text.label").all_text_contents()
    assert len(entries(page)) > 16
    assert "far-0" in labels and "far-3" not in labels
    assert {"twin", "shadow"} & set(labels) or "lwm-0" in labels
    assert len(labels) < len(FAMILY)
