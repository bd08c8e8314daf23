"""Security curves in a real browser: every circle stands at the share that its page names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab
from leaderboard_factory import make_result, make_score, write_evidence, write_result

from corobench.benchmark.records.curve import Curve, CurvePoint, curve_path
from corobench.leaderboard.build import build_site

POINTS = {"1/32": (320, 450), "3/16": (10, 60)}
#: Radius -> proven and unbroken of 500, as drawn.
DRAWN = [(0, 480, 480), (1 / 32, 320, 450), (1 / 16, 300, 380), (1 / 8, 300, 380), (3 / 16, 10, 60)]
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
    for name in ("one", "two"):
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


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site, viewport={"width": 1280, "height": 900})
    yield tab
    tab.close()


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
        ["1/32", "64.0", "90.0"],
        ["1/16", "60.0", "76.0"],
        ["2/16", "60.0", "76.0"],
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


def test_axe_finds_nothing_serious(browser: Any, site: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = Tab(browser, site, color_scheme="dark")
    found = axe.run(tab.open("entries/1.0/digits/one.n500.html")).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    tab.context.close()
