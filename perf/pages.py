"""Every page of the leaderboard in a real Chromium: pictures for the docs, and what axe-core says.

    python perf/pages.py                      # of leaderboard/results
    python perf/pages.py --results DIR

Writes ``docs/images/page-*.webp`` and ``docs/accessibility.md``. The last line is the number of
serious and critical violations; exit code 1 where there are any, or where a page is wider than its
window.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from corobench.leaderboard.build import build_site

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
REPORT = ROOT / "docs" / "accessibility.md"
GROUP = "fashion-mnist-1.1-n1000"
ENTRY = "fashion-mnist-ibp-lwm-10x.n1000"
PAGES = {
    "index": "index.html",
    "findings": "findings.html",
    "board": f"boards/{GROUP}-eps1-10.html",
    "entry": f"entries/1.1/fashion-mnist/{ENTRY}.html",
    "compare": f"compare/{GROUP}.html#e=fashion-mnist-ibp-dense.n1000,{ENTRY}",
    "method": "method.html",
    "submit": "submit.html",
    "changelog": "changelog.html",
    "manifest": "manifest.html",
    "health": "health.html",
    "formats": "formats.html",
}
#: Those with a picture in docs/pages.md.
SHOWN = ("index", "board", "entry", "compare", "method", "submit", "changelog")
#: Width of the window -> its height, and the scheme that pictures are taken in.
WINDOWS = {1440: (900, None), 1280: (1500, "light"), 1024: (768, None), 390: (1300, "dark")}
SERIOUS = ("serious", "critical")
WAIT_MS = 180_000


@dataclass(frozen=True)
class Looked:
    """What was found on one page in one window."""

    name: str
    width: int
    scheme: str
    is_too_wide: bool
    axe: dict[str, Any]

    @property
    def serious(self) -> list[dict[str, Any]]:
        return [one for one in self.axe["violations"] if one["impact"] in SERIOUS]


def main() -> int:
    """Build, look, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "leaderboard" / "results")
    results = parser.parse_args().results
    with tempfile.TemporaryDirectory() as folder:
        site = build_site([results], Path(folder) / "site").index.parent
        found = list(look(site))
    REPORT.write_text(report(found), encoding="utf-8")
    wide = [one for one in found if one.is_too_wide]
    for one in wide:
        print(f"{one.name} is wider than {one.width} pixels")
    num_serious = sum(len(one.serious) for one in found)
    print(num_serious)
    return 1 if num_serious or wide else 0


def look(site: Path) -> Iterator[Looked]:
    """Open every page at every width in both schemes."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for width, (height, pictured) in WINDOWS.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    reduced_motion="reduce",
                )
                page.set_default_timeout(WAIT_MS)
                for name, address in PAGES.items():
                    open_page(page, site, address)
                    if name in SHOWN and scheme == pictured:
                        save(page.screenshot(), f"page-{name}-{width}")
                    weights = page.locator("svg.magnitudes")
                    if name == "entry" and scheme == pictured and weights.count():
                        save(weights.screenshot(), f"page-weights-{width}")
                    is_too_wide = page.evaluate("document.documentElement.scrollWidth") > width
                    yield Looked(name, width, scheme, is_too_wide, Axe().run(page).response)
                page.close()
        browser.close()


def open_page(page: Page, site: Path, address: str) -> None:
    """Open a page and wait until its scripts are done."""
    path, _, fragment = address.partition("#")
    page.goto("about:blank")
    page.goto((site / path).as_uri() + (f"#{fragment}" if fragment else ""))
    if path.startswith("boards/"):
        page.locator("table.live").wait_for()
    if path.startswith("compare/"):
        page.locator("#num-differing").wait_for()


def save(screenshot: bytes, name: str) -> None:
    """Keep a picture small: a few dozen kilobytes."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    picture.save(IMAGES / f"{name}.webp", quality=50, method=6)


def report(found: list[Looked]) -> str:
    """What axe-core says, as Markdown."""
    engine = found[0].axe["testEngine"]
    lines = [
        "# Accessibility of the pages",
        "",
        f"What {engine['name']} {engine['version']} finds on every page in headless Chromium, "
        "written by `python perf/pages.py`. Rules passed and violated are counted, not the places; "
        "*unsure* are rules that a person must judge, listed below. A serious or critical "
        "violation fails the command, and `tests/e2e/test_site.py`.",
        "",
        "| page | window | scheme | passed | serious or critical | moderate or minor | unsure |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        lighter = len(one.axe["violations"]) - len(one.serious)
        lines.append(
            f"| {one.name} | {one.width} | {one.scheme} | {len(one.axe['passes'])} | "
            f"{len(one.serious)} | {lighter} | {len(one.axe['incomplete'])} |"
        )
    for title, key in (("Violations", "violations"), ("Unsure", "incomplete")):
        lines += ["", f"## {title}", ""]
        rules = {item["id"]: item for one in found for item in one.axe[key]}
        for rule, item in sorted(rules.items()):
            pages = sorted({one.name for one in found if rule in ids(one, key)})
            places = {
                str(node["target"][-1])
                for one in found
                for same in one.axe[key]
                if same["id"] == rule
                for node in same["nodes"]
            }
            lines.append(
                f"- `{rule}` ({item['impact']}): {item['help']}. On {', '.join(pages)}; "
                f"for example `{min(places)}`."
            )
        if not rules:
            lines.append("None.")
    return "\n".join(lines) + "\n"


def ids(one: Looked, key: str) -> set[str]:
    """Rules under a key of axe-core's answer."""
    return {item["id"] for item in one.axe[key]}


if __name__ == "__main__":
    sys.exit(main())
