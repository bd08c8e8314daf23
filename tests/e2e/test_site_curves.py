"""Security curves in a real browser: every circle stands at the share that its page names.

A card says the numbers of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from leaderboard_factory import make_result, make_score, write_evidence, write_result

from corobench.benchmark.records.curve import Curve, CurvePoint, curve_path
from corobench.leaderboard.build import build_site

#: As many as are compared at once; the first has a curve of more radii.
NAMES = ("one", "two", *(f"more-{place}" for place in range(6)))
POINTS = {
    "1/64": (400, 470),
    "1/32": (320, 450),
    "3/64": (310, 390),
    "3/32": (300, 380),
    "5/32": (20, 80),
    "3/16": (10, 60),
}
#: Radius -> proven and unbroken of 500, as drawn.
DRAWN = [
    (0, 480, 480),
    (1 / 64, 400, 470),
    (1 / 32, 320, 450),
    (3 / 64, 310, 390),
    (1 / 16, 300, 380),
    (3 / 32, 300, 380),
    (1 / 8, 300, 380),
    (5 / 32, 20, 80),
    (3 / 16, 10, 60),
]
READ = """(svg) => {
  const at = (node) => [Number(node.getAttribute("cx")), Number(node.getAttribute("cy"))];
  const lines = [...svg.querySelectorAll("line.grid")];
  const ticks = lines.map((line) => Number(line.getAttribute("y1")));
  return {
    proven: [...svg.querySelectorAll("circle.proven")].map(at),
    unbroken: [...svg.querySelectorAll("circle.unbroken")].map(at),
    cheap: svg.querySelectorAll("circle.cheap").length,
    zero: Math.max(...ticks), all: Math.min(...ticks),
  };
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curves")
    for name in NAMES:
        score = make_score(500, 480, 300, 100)
        result = make_result(name, epsilons=dict.fromkeys(("1/16", "2/16"), score))
        path = write_result(root / "results", result)
        write_evidence(path, shift=5 if name == "two" else 0)
        if name == "one":
            curve = Curve(
                schema=1,
                entry=name,
                track="digits",
                n=500,
                fingerprint=result.data.fingerprint,
                weights_sha256=result.weights_sha256,
                seed=0,
                certifiers=("IBP",),
                attack="pgd50",
                device="cpu",
                versions={"torch": "2.9.0"},
                points={
                    epsilon: CurvePoint(proven=proven, unbroken=unbroken)
                    for epsilon, (proven, unbroken) in POINTS.items()
                },
            )
            place = curve_path(path)
            place.parent.mkdir(parents=True)
            place.write_text(curve.model_dump_json(by_alias=True), encoding="utf-8")
    return build_site([root / "results"], root / "site").index.parent


def require_places(read: dict[str, Any], expected: list[tuple[float, int, int]]) -> None:
    """Circles at their shares, between the grid lines of 0 and 100 %; x in proportion."""
    first, last = read["unbroken"][0][0], read["unbroken"][-1][0]
    for place, (radius, proven, unbroken) in enumerate(expected):
        x = first + (last - first) * radius / expected[-1][0]
        for kind, count in (("proven", proven), ("unbroken", unbroken)):
            y = read["zero"] + (read["all"] - read["zero"]) * count / 500
            assert read[kind][place] == pytest.approx([x, y], abs=0.02)


def test_the_entry_page_draws_what_it_says(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/one.n500.html")
    read = page.locator("svg.security").evaluate(READ)
    require_places(read, DRAWN)
    assert read["cheap"] == 2 * len(POINTS)
    page.locator("section[aria-labelledby=security] summary").click()
    rows = page.locator("section[aria-labelledby=security] tbody tr").all_inner_texts()
    assert [row.split("\t")[:3] for row in rows] == [
        ["0", "96.0", "96.0"],
        ["1/64", "80.0", "94.0"],
        ["1/32", "64.0", "90.0"],
        ["3/64", "62.0", "78.0"],
        ["1/16", "60.0", "76.0"],
        ["3/32", "60.0", "76.0"],
        ["2/16", "60.0", "76.0"],
        ["5/32", "4.0", "16.0"],
        ["3/16", "2.0", "12.0"],
    ]
    assert "not ranked" in page.locator("section[aria-labelledby=security] p").inner_text()


def test_the_compare_page_draws_both(tab: Tab) -> None:
    page = tab.open("compare/digits-1.0-n500.html#e=one.n500,two.n500")
    page.locator("#num-differing").wait_for()
    first = page.locator("svg.security g.k0").evaluate(
        "(group) => group.querySelectorAll('circle.cheap').length"
    )
    assert first == 2 * len(POINTS)
    assert page.locator("svg.security g.k1 circle.unbroken").count() == 3
    whole = page.locator("svg.security").evaluate(READ)
    own = whole | {kind: whole[kind][: len(DRAWN)] for kind in ("proven", "unbroken")}
    require_places(own, DRAWN)


SAID = {
    "0": "without an attack",
    "1/64": "radius 1/64, measured cheaply",
    "1/32": "radius 1/32, measured cheaply",
    "3/64": "radius 3/64, measured cheaply",
    "1/16": "radius 1/16, measured for the board",
    "3/32": "radius 3/32, measured cheaply",
    "2/16": "radius 2/16, measured for the board",
    "5/32": "radius 5/32, measured cheaply",
    "3/16": "radius 3/16, measured cheaply",
}


def read_card(page: Any) -> list[str]:
    return [line.strip() for line in page.locator(".point-card").inner_text().splitlines() if line]


def test_the_card_says_the_numbers_of_every_point_pointed_at(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/one.n500.html")
    svg = page.locator("svg.security")
    svg.scroll_into_view_if_needed()
    for place, (_, proven, unbroken) in enumerate(DRAWN):
        for kind in ("proven", "unbroken"):
            box = svg.locator(f"circle.{kind}").nth(place).bounding_box()
            page.mouse.move(3, 3)
            assert not page.locator(".point-card").is_visible()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            found = read_card(page)
            assert found[:2] == ["one", list(SAID.values())[place]]
            assert found[3] == f"{100 * proven / 500:.1f} % {proven}"
            assert found[5] == f"{100 * unbroken / 500:.1f} % {unbroken}"


def test_a_click_on_a_compared_curve_holds_the_card_with_its_link(tab: Tab) -> None:
    page = tab.open("compare/digits-1.0-n500.html#e=one.n500,two.n500")
    page.locator("#num-differing").wait_for()
    box = page.locator("svg.security g.k0 circle.proven").nth(8)
    box.scroll_into_view_if_needed()
    box.click()
    card = page.locator(".point-card.pinned")
    link = card.get_by_role("link", name="one")
    assert link.get_attribute("href") == "../entries/1.0/digits/one.n500.html"
    page.keyboard.press("Escape")
    assert not page.locator(".point-card").is_visible()
    page.locator("svg.security g.k0 circle.unbroken").nth(4).click(force=True)  # under the other's
    assert "two: 60.0 % proven, 76.0 % unbroken" in read_card(page)


def test_the_keyboard_walks_along_a_curve_and_across_entries(tab: Tab) -> None:
    page = tab.open("compare/digits-1.0-n500.html#e=one.n500,two.n500")
    page.locator("#num-differing").wait_for()
    assert page.locator("svg.security [tabindex='0']").count() == 1
    page.locator("svg.security [tabindex='0']").focus()
    for words in SAID.values():
        assert read_card(page)[:2] == ["one", words]
        page.keyboard.press("ArrowRight")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert read_card(page)[:2] == ["two", SAID["1/16"]]
    said = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert said == "two, radius 1/16: 60.0 % proven, 76.0 % unbroken"


def test_eight_compared_entries_have_eight_colours(tab: Tab) -> None:
    page = tab.open("compare/digits-1.0-n500.html#e=" + ",".join(f"{name}.n500" for name in NAMES))
    page.locator("#num-differing").wait_for()
    lines = page.locator("svg.security polyline.unbroken").evaluate_all(
        "all => all.map((line) => getComputedStyle(line).stroke)"
    )
    dots = page.locator("figure .colours .dot").evaluate_all(
        "all => all.map((dot) => getComputedStyle(dot).backgroundColor)"
    )
    assert len(set(lines)) == len(NAMES)
    assert lines == dots


def test_a_curve_fits_a_phone(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    page = tab.open("entries/1.0/digits/one.n500.html")
    box = page.locator("svg.security").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.locator("svg.security circle.proven").nth(2).tap()
    card = page.locator(".point-card.pinned")
    assert "64.0 %" in card.inner_text()
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    tab.close()


PAGES = ("entries/1.0/digits/one.n500.html", "compare/digits-1.0-n500.html#e=one.n500,two.n500")


@pytest.mark.parametrize("name", PAGES)
def test_no_word_of_a_curve_is_cut_on_a_phone(browser: Any, site: Path, name: str) -> None:
    """Nor that of the last radius, at the right end where nothing more is measured."""
    tab = Tab(browser, site, viewport={"width": 390, "height": 844})
    page = tab.open(name.replace("one.", "more-0."))
    svg = page.locator("svg.security")
    svg.wait_for()
    plot = svg.bounding_box()
    for word in svg.locator("text").all():
        box = word.bounding_box()
        assert plot["x"] <= box["x"], word.text_content()
        assert box["x"] + box["width"] <= plot["x"] + plot["width"], word.text_content()
    tab.close()


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(browser: Any, site: Path, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = Tab(browser, site, color_scheme="dark")
    page = tab.open(name)
    page.locator("svg.security [tabindex='0']").focus()
    found = axe.run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    tab.context.close()
