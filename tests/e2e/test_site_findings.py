"""The findings on the front page, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab

from corobench.leaderboard.build import build_site

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results" / "1.0"
FAMILIES = (
    "ibp-dense",
    "ibp-lwm-10x",
    "ibp-random-10x",
    "adv-dense",
    "adv-lwm-10x",
    "adv-hydra-10x",
)
#: Panel of the chart -> key of a result file's epsilon.
PANELS = {"vra": "certified_by", "autoattack": "autoattack"}

#: What the chart of a choice shows: ticks with their places, and per method a place and a number.
READ = """(scene, kind) => {
  const middle = (node) => {
    const box = node.getBoundingClientRect();
    return box.left + box.width / 2;
  };
  const heads = [...scene.querySelectorAll(".axis th:has(svg)")];
  const column = heads.findIndex((head) => head.classList.contains(`k-${kind}`));
  const texts = [...heads[column].querySelectorAll("text:not(.dense)")];
  const rows = [...scene.querySelectorAll("tbody tr")];
  const strip = (row) => row.querySelectorAll("td.s")[column];
  return {
    ticks: texts.map((text) => [middle(text), Number(text.textContent)]),
    marks: rows.map((row) => {
      const dot = strip(row).querySelector("circle");
      const link = strip(row).nextElementSibling.querySelector("a");
      return [link?.getAttribute("href"), dot && middle(dot)];
    }),
    dense: [
      heads[column].querySelector(".dense").textContent,
      middle(strip(rows[0]).querySelector(".d")),
    ],
  };
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fashion-MNIST in part, and digits."""
    files = [RESULTS / "fashion-mnist" / f"fashion-mnist-{name}.json" for name in FAMILIES]
    out = tmp_path_factory.mktemp("findings")
    return build_site([*files, RESULTS / "digits"], out / "site").index.parent


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    tab = Tab(browser, site, viewport={"width": 1440, "height": 900})
    yield tab
    tab.close()


def count(href: str, kind: str) -> tuple[int, int]:
    """What a result file says of an entry's page: right images and n, at the track's largest."""
    _, protocol, track, name = href.split("/")
    entry = name.split(".n")[0]
    raw = json.loads((RESULTS.parent / protocol / track / f"{entry}.json").read_text())
    score = raw["epsilons"][list(raw["epsilons"])[-1]][PANELS[kind]]
    return (score["cascade"] if kind == "vra" else score), raw["n"]


@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("number", [0, 1])
def test_every_dot_stands_at_the_share_of_its_entry(tab: Tab, number: int, kind: str) -> None:
    page = tab.open("index.html")
    page.locator(".scenes label").nth(number).click()
    scene = page.locator(f".scene.s{number}")
    read = scene.evaluate(READ, kind)
    (first, low), (last, high) = read["ticks"][0], read["ticks"][-1]

    def place(percent: float) -> float:
        return first + (last - first) * (percent - low) / (high - low)

    drawn = [(href, x) for href, x in read["marks"] if x is not None]
    assert len(drawn) >= 2
    for href, x in drawn:
        right, n = count(href, kind)
        assert x == pytest.approx(place(100 * right / n), abs=1.5)
    words, x = read["dense"]
    assert x == pytest.approx(place(float(words.removeprefix("dense "))), abs=1.5)


def test_one_choice_is_shown_and_the_rest_is_not(tab: Tab) -> None:
    page = tab.open("index.html")
    labels = page.locator(".scenes label").all_inner_texts()
    assert labels == ["Fashion-MNIST · cnn-small", "scikit-learn digits · cnn-small"]
    for number in (1, 0):
        page.locator(".scenes label").nth(number).click()
        shown = [scene.is_visible() for scene in page.locator(".scene").all()]
        assert shown == [place == number for place in range(2)]


def test_what_stands_first_on_the_front_page(tab: Tab) -> None:
    """The findings above the fold, how to read folded away, digits last."""
    page = tab.open("index.html")
    assert page.locator(".finding").first.bounding_box()["y"] < 500
    assert not page.locator("#how-to-read dl").is_visible()
    page.get_by_text("How to read the boards").click()
    assert page.locator("#how-to-read dl").is_visible()
    tracks = page.locator("section.track").evaluate_all("all => all.map((one) => one.id)")
    assert tracks == ["track-fashion-mnist", "track-digits"]


def test_a_tile_leads_to_the_best_row_of_its_size(tab: Tab) -> None:
    page = tab.open("index.html")
    for tile in page.locator(".scene.s0 .tile").all():
        limit = int(tile.get_attribute("data-limit"))
        sizes = {}
        for name in FAMILIES:
            path = RESULTS / "fashion-mnist" / f"fashion-mnist-{name}.json"
            raw = json.loads(path.read_text())
            if raw["compactness"]["bytes_packed"] < limit:
                sizes[name] = raw["epsilons"]["1/10"]["certified_by"]["cascade"]
        if not sizes:
            assert "No entry yet" in tile.inner_text()
            continue
        best = max(sizes, key=lambda name: sizes[name])
        assert f"fashion-mnist-{best}.n" in tile.locator("a").get_attribute("href")
        assert f"{sizes[best] / 10:.1f} % proven" in tile.inner_text()


def test_on_a_phone_the_strips_stay_wide(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, viewport={"width": 390, "height": 844})
    page = tab.open("index.html")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    row = page.locator(".scene.s0 tbody tr").first
    name, strip = row.locator("th").bounding_box(), row.locator("td.s").first.bounding_box()
    assert strip["width"] > 180
    assert strip["y"] >= name["y"] + name["height"] - 1
    tab.close()


@pytest.mark.parametrize("name", ["index.html", "findings.html"])
def test_axe_finds_nothing(browser: Any, site: Path, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        tab = Tab(browser, site, color_scheme=scheme)
        found = axe.run(tab.open(name)).response["violations"]
        faults = [(item["id"], [node["target"] for node in item["nodes"]][:3]) for item in found]
        assert faults == []
        tab.context.close()


def test_the_first_screen_says_who_wins_and_whether_the_claim_holds(
    browser: Any, site: Path
) -> None:
    """On a desktop and on a phone, without scrolling; and the words are those of the counts."""
    for width, height in ((1280, 900), (390, 844)):
        tab = Tab(browser, site, viewport={"width": width, "height": height})
        page = tab.open("index.html")
        lines = page.locator(".scene.s0 .winners li")
        assert lines.count() == 2
        for line in lines.all():
            box = line.bounding_box()
            assert box["y"] + box["height"] < height
        for (kind, words), line in zip(
            (("vra", "Proven right"), ("autoattack", "Right after AutoAttack")),
            lines.all_inner_texts(),
            strict=True,
        ):
            rights = {}
            for href, _ in page.locator(".scene.s0").evaluate(READ, kind)["marks"]:
                if href:
                    right, n = count(href, kind)
                    rights[href.split("/")[-1].split(".n")[0]] = 100 * right / n
            leader = max(rights, key=lambda name: rights[name])
            assert line.startswith(f"{words}: ")
            assert f"{rights[leader]:.1f}\xa0%" in line
            ours = next(rate for name, rate in rights.items() if "-lwm-10x" in name)
            assert f"{ours:.1f}\xa0%, at least its claim" in line
        tab.close()


def test_paper_names_the_images_of_every_chart(tab: Tab) -> None:
    page = tab.open("index.html")
    assert not page.locator(".winners h2").first.is_visible()
    page.emulate_media(media="print")
    heads = page.locator(".winners h2").all()
    assert [head.is_visible() for head in heads] == [True] * 2
    assert heads[1].inner_text().startswith("scikit-learn digits · cnn-small")


def test_a_newcomer_learns_what_it_is_which_paper_and_what_names_mean(tab: Tab) -> None:
    page = tab.open("index.html")
    assert "compares compressed image classifiers" in page.locator(".intro").inner_text()
    paper = page.locator(".intro").get_by_role("link", name="the paper")
    assert paper.get_attribute("href") == "https://arxiv.org/abs/1906.06110"
    note = page.locator(".scene.s0 .chart > p.sub").inner_text()
    for name in ("LWM least weight magnitude", "HYDRA pruning by learned scores"):
        assert name in note
    assert "AutoAttack are attacks" in note
