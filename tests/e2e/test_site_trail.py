"""What a reviewer follows: flags, files, how to load them, pictures, who decided; and comparing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import Tab

from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result import CERTIFIERS, Outcome
from corobench.leaderboard.build import build_site
from corobench.leaderboard.gallery import NUM_WRONG
from corobench.leaderboard.trail import MEANINGS, decisions

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "leaderboard" / "results" / "1.0" / "digits"
BOARD = "boards/digits-1.0-n500-eps2-16.html"
COMPARE = "compare/digits-1.0-n500.html"
NAMES = ("digits-adv-lwm-10x", "digits-ibp-dense", "digits-ibp-lwm-10x")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trail")
    shutil.copytree(RESULTS, root / "results" / "1.0" / "digits")
    return build_site([root / "results"], root / "site").index.parent


def flagged() -> tuple[str, str, str]:
    """A published entry with a flag, the radius, and the flag."""
    for path in sorted(RESULTS.glob("*.json")):
        result = read_result(path)
        for epsilon, score in result.epsilons.items():
            if score.flags:
                return result.entry, epsilon, score.flags[0]
    pytest.skip("no published result of digits has a flag")


def test_a_flag_leads_to_what_it_means(tab: Tab) -> None:
    entry, epsilon, flag = flagged()
    page = tab.open(f"boards/digits-1.0-n500-eps{epsilon.replace('/', '-')}.html")
    page.locator(f"tr[data-entry={entry}] b").get_by_role("link", name=flag).click()
    page.wait_for_url(f"**/health.html#{flag}")
    assert page.locator(f"h2#{flag}").is_visible()
    page = tab.open(f"entries/1.0/digits/{entry}.n500.html")
    why = page.locator(".flags").first
    assert MEANINGS[flag] in why.inner_text()
    why.get_by_role("link", name=flag).click()
    page.wait_for_url(f"**/health.html#{flag}")


def test_the_meanings_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "health.md").read_text("utf-8")
    table = dict(re.findall(r"^\| \[`([\w-]+)`\]\(#[\w-]+\) \|.*\| (.+) \|$", text, re.MULTILINE))
    assert table == MEANINGS


def test_an_entry_links_its_files_and_says_how_to_load_it(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/digits-ibp-lwm-10x.n500.html")
    places = page.locator(".places")
    place = tab.site / "entries/1.0/digits/digits-ibp-lwm-10x.n500"
    for words in ("Result", "Outcome table"):
        link = places.locator("li", has_text=words).first.get_by_role("link")
        target = (place.parent / link.get_attribute("href")).resolve()
        assert target.parent == place
        assert target.read_bytes() == (RESULTS / target.name).read_bytes()
    text = places.inner_text()
    assert "submissions/digits-ibp-lwm-10x" in text
    assert "baselines/recipes/digits/ibp-lwm-10x.toml" in text
    lines = page.locator("#loading").inner_text().splitlines()
    assert len(lines) == 3
    scope: dict[str, Any] = {}
    script = "\n".join(lines)
    script = script.replace('"submissions/', f'"{ROOT}/submissions/')
    exec(script.replace('"digits-ibp', f'"{place}/digits-ibp'), scope)
    assert scope["result"].n == 500
    assert not scope["model"].training


def test_the_gallery_names_attacks_and_certifiers(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/digits-adv-lwm-10x.n500.html")
    broken = page.locator("ul.gallery:not(.small) li").all_inner_texts()
    assert broken
    assert all(re.search(r"broken at \S+ by \S+", text) for text in broken)
    proven = page.locator("ul.gallery.small:not(.wrong) li").all_inner_texts()
    assert all(any(f"by {name}" in text for name in CERTIFIERS) for text in proven)


def test_the_gallery_names_predicted_classes_where_they_are_known(tab: Tab) -> None:
    page = tab.open("entries/1.0/digits/digits-adv-mismatch-10x.n500.html")
    broken = page.locator("ul.gallery:not(.small) li").all_inner_texts()
    assert broken and all("→ another class" in text for text in broken)
    table, _ = read_outcomes(RESULTS / "digits-adv-mismatch-10x.outcomes.parquet")
    first = table[table["epsilon"] == "1/16"]
    wrong = first[first["outcome"] == Outcome.MISCLASSIFIED]
    expected = [f"{row.label} → {row.predicted}\nimage {row.image}" for row in wrong.itertuples()]
    # Only those are shown whose clean image is kept beside the results.
    shown = page.locator("ul.gallery.wrong li p").all_inner_texts()
    assert 0 < len(shown) <= NUM_WRONG
    assert [text for text in expected if text in shown] == shown


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_proofs_are_told_from_counterexamples_as_the_table_has_them(path: Path) -> None:
    table, _ = read_outcomes(path.with_suffix(".outcomes.parquet"))
    for epsilon, score in read_result(path).epsilons.items():
        rows = table[table["epsilon"] == epsilon]
        for one in decisions(score):
            own = rows[rows["decided_by"] == one.name]["outcome"]
            assert one.proofs == (own == Outcome.CERTIFIED).sum()
            assert one.counterexamples == (own != Outcome.CERTIFIED).sum()


def test_compare_opens_with_what_was_selected(tab: Tab) -> None:
    page = tab.open(f"{BOARD}#sel={','.join(f'{name}.n500' for name in NAMES)}")
    page.get_by_role("link", name="Compare 3").click()
    page.locator("#num-differing").wait_for()
    assert page.locator("input[name=e]:checked").count() == 3
    assert page.locator("#chosen .chip").all_inner_texts() == sorted(
        NAMES, key=page.locator("#chosen").inner_text().index
    )
    page = tab.open(f"{BOARD}#sel={NAMES[0]}.n500")
    page.get_by_role("link", name="Compare 1").click()
    assert page.locator("#chosen .chip").all_inner_texts() == [NAMES[0]]
    assert "one more" in page.locator("#compared").inner_text()


def test_the_picker_searches_and_its_empty_state_clears(tab: Tab) -> None:
    page = tab.open(COMPARE)
    page.locator("#find").fill("IBP lwm-10x")
    shown = page.locator(".choices label:visible")
    assert [text for text in shown.all_inner_texts() if "ibp-lwm-10x" not in text] == []
    shown.first.click()
    page.locator("#find").fill("nothing like that")
    assert shown.count() == 0
    page.get_by_role("button", name="Clear search").click()
    assert shown.count() == 8
    assert page.locator("#chosen .chip").count() == 1
    page.get_by_role("button", name="Remove digits-ibp-lwm-10x").click()
    assert page.locator("#chosen .chip").count() == 0


def test_the_matrix_shows_each_image_by_entry(tab: Tab) -> None:
    chosen = ",".join(f"{name}.n500" for name in NAMES)
    page = tab.open(f"{COMPARE}#e={chosen}&eps=2/16")
    page.locator("#num-differing").wait_for()
    heads = page.locator(".matrix thead th").all_inner_texts()[1:]
    tables = [read_outcomes(RESULTS / f"{name}.outcomes.parquet")[0] for name in heads]
    known = [
        table[table["epsilon"] == "2/16"].set_index("image")["outcome"].to_dict()
        for table in tables
    ]
    num_differing = sum(len({one[image] for one in known}) > 1 for image in known[0])
    assert page.locator("#num-differing").inner_text().startswith(f"{num_differing} of 500")
    words = {"proven": "certified", "broken": "attacked"}
    for row in page.locator(".matrix tbody tr").all()[:20]:
        image = int(re.search(r"image (\d+)", row.locator("th").inner_text()).group(1))  # type: ignore[union-attr]
        said = [text.split()[0] for text in row.locator("td").all_inner_texts()]
        assert [words.get(word, word) for word in said] == [str(one[image]) for one in known]
    page.get_by_label("Show all images").check()
    page.get_by_role("button", name="Show more (452 left)").wait_for()


def test_two_entries_get_a_verdict_in_words(tab: Tab) -> None:
    page = tab.open(f"{COMPARE}#e={NAMES[1]}.n500,{NAMES[2]}.n500&eps=2/16")
    page.locator("#num-differing").wait_for()
    assert re.search(
        r"Unbroken: (no difference shown|\S+ is better)\.", page.locator("#verdict").inner_text()
    )


def test_compared_entries_show_their_flags_and_why(tab: Tab) -> None:
    entry, epsilon, flag = flagged()
    other = next(name for name in NAMES if name != entry)
    page = tab.open(f"{COMPARE}#e={entry}.n500,{other}.n500&eps={epsilon}")
    row = page.locator("#compared tr", has=page.get_by_role("rowheader", name="Flags"))
    heads = page.locator("#compared table").first.locator("thead th").all_inner_texts()
    row.locator("td").nth(heads.index(entry) - 1).get_by_role("link", name=flag).click()
    page.wait_for_url(f"**/{entry}.n500.html#flags-{epsilon.replace('/', '-')}")
    assert MEANINGS[flag] in page.locator(":target").inner_text()


def test_the_paired_tests_say_why_a_board_may_disagree(tab: Tab) -> None:
    page = tab.open(f"{COMPARE}#e={NAMES[1]}.n500,{NAMES[2]}.n500")
    said = page.locator("#compared p.sub", has_text="Exact McNemar").inner_text()
    assert "One training of each" in said
    assert "they may show no difference where this page shows one" in said


def test_a_phone_shows_every_verdict_without_scrolling_sideways(browser: Any, site: Path) -> None:
    tab = Tab(browser, site, viewport={"width": 390, "height": 844}, has_touch=True)
    page = tab.open(f"{COMPARE}#e={','.join(f'{name}.n500' for name in NAMES)}")
    page.locator("#num-differing").wait_for()
    cells = page.locator("table.paired tbody tr td:last-child")
    assert cells.count() == 9
    for cell in cells.all():
        area = cell.bounding_box()
        assert re.search("no difference shown|is better", cell.inner_text())
        assert area["x"] >= 0 and area["x"] + area["width"] <= 390
    tab.close()
