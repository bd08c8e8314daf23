"""How many clicks a reader needs for five questions, in a real Chromium.

    python perf/reader_tasks.py                         # of leaderboard/results
    python perf/reader_tasks.py --site build/old-site   # of a site that is there

Each question starts on the front page at 1280 x 900. A route that a site does not have is not
taken: the script looks for the shortest one first. Prints a table of clicks, and of screens that a
reader scrolls until the answer is in the window; the last line is the sum of clicks.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

from corobench.leaderboard.build import build_site

ROOT = Path(__file__).parents[1]
CIFAR = "boards/cifar10-1.0-n1000-mirror-f0921d2b-eps8-255.html"
FASHION = "boards/fashion-mnist-1.0-n1000-eps1-10.html"
COMPARE = "compare/fashion-mnist-1.0-n1000.html"
A, B = "fashion-mnist-ibp-lwm-10x.n1000", "fashion-mnist-adv-lwm-10x.n1000"
FLAGGED, FLAG = "fashion-mnist-adv-large-mismatch-10x", "zero-gradient"
CITED = "fashion-mnist-adv-lwm-32x"
HEIGHT = 900


@dataclass
class Reader:
    """A page, and what a reader did on it."""

    page: Page
    clicks: int = 0

    def click(self, place: str | Locator) -> None:
        """Click, as a reader does, on what can be seen."""
        target = self.page.locator(place).first if isinstance(place, str) else place
        target.click()
        self.clicks += 1
        if "/boards/" in self.page.url:
            self.page.locator("table.live").wait_for()

    def has(self, place: str) -> bool:
        """Whether the page has such a place that can be seen."""
        found = self.page.locator(place)
        return bool(found.count()) and found.first.is_visible()

    def follow(self, address: str) -> None:
        """Click a link to a page of the site."""
        self.click(f'a[href^="{address}"]:visible')

    def screens(self, answer: Locator) -> int:
        """Screens to scroll until the top of the answer is in the window."""
        answer.wait_for()
        top = float(answer.evaluate("node => node.getBoundingClientRect().top"))
        return max(0, math.ceil((top + 40 - HEIGHT) / HEIGHT))


def which_method(reader: Reader) -> Locator:
    """Which method wins at 10x on CIFAR-10?"""
    scene = reader.page.locator("fieldset.scenes label", has_text="CIFAR-10").first
    if scene.count():
        if not scene.locator("input").is_checked():
            reader.click(scene)
        return reader.page.locator("table.finding:visible tbody tr").first
    reader.follow(CIFAR)
    choose(reader, "Times smaller", "10x")
    return reader.page.locator("#board tbody tr[id]").first


def best_below(reader: Reader) -> Locator:
    """Which is the best network below 100 kB?"""
    if reader.has('.tile[data-limit="100000"]'):
        return reader.page.locator('.tile[data-limit="100000"] .best:visible').first
    reader.follow(FASHION)
    reader.click("summary:text-is('Columns')")
    reader.click(reader.page.get_by_role("checkbox", name="Packed", exact=True))
    return reader.page.locator("#board td.c-packed").first


def is_better(reader: Reader) -> Locator:
    """Is A better than B?"""
    reader.follow(COMPARE)
    for name in (A, B):
        reader.click(f'label:has(input[value="{name}"])')
    reader.page.locator("#num-differing").wait_for()
    verdict = reader.page.locator("#verdict")
    return verdict if verdict.count() else reader.page.locator("#compared .scroll").nth(1)


def why_flagged(reader: Reader) -> Locator:
    """Why is this row flagged?"""
    reader.follow(FASHION)
    badge = reader.page.locator(f"tr[data-entry={FLAGGED}] b", has_text=FLAG)
    if badge.locator("a").count():
        reader.click(badge.locator("a"))
        return reader.page.locator(f"#{FLAG}")
    reader.follow("../health.html")
    reader.click(f"nav.contents a[href='#{FLAG}']")
    return reader.page.locator(f"#{FLAG}")


def citation(reader: Reader) -> Locator:
    """Give me the citation of this entry."""
    reader.follow(FASHION)
    reader.click(f"tr[data-entry={CITED}] th a")
    jump = reader.page.locator("main .crumb a[href='#cite']")
    if jump.count():
        reader.click(jump)
        reader.page.wait_for_function("scrollY > 900")
    return reader.page.locator("#bibtex")


TASKS: tuple[Callable[[Reader], Locator], ...] = (
    which_method,
    best_below,
    is_better,
    why_flagged,
    citation,
)


def choose(reader: Reader, title: str, value: str) -> None:
    """Filter a board by one value."""
    single = f"summary:text-is('{title}')"
    reader.click(single if reader.has(single) else "summary:text-is('Filters')")
    group = reader.page.get_by_role("group", name=title, exact=True)
    reader.click(group.locator("label", has_text=value).first)


def main() -> int:
    """Answer every question and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "leaderboard" / "results")
    parser.add_argument("--site", type=Path, help="a site that is there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = asked.site or build_site([asked.results], Path(folder) / "site").index.parent
        program = shutil.which("chromium") or shutil.which("google-chrome")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            print("question | clicks | screens scrolled")
            total = 0
            for task in TASKS:
                page = browser.new_page(
                    viewport={"width": 1280, "height": HEIGHT}, reduced_motion="reduce"
                )
                page.set_default_timeout(180_000)
                page.goto((site / "index.html").resolve().as_uri())
                reader = Reader(page)
                screens = reader.screens(task(reader))
                total += reader.clicks
                print(f"{(task.__doc__ or '').strip()} | {reader.clicks} | {screens}", flush=True)
                page.close()
            browser.close()
    print(total)
    return 0


if __name__ == "__main__":
    sys.exit(main())
