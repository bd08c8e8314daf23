"""A real browser's page that remembers complaints and requests, and hands on a board's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: A busy machine may need long for what takes a moment.
WAIT_MS = 180_000


class Tab:
    """A page that remembers what went wrong on it and what it asked for."""

    def __init__(self, browser: Any, site: Path, **options: Any) -> None:
        self.site = site
        self.is_scripted = options.get("java_script_enabled", True)
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, name: str) -> Any:
        path, _, fragment = name.partition("#")
        self.go((self.site / path).as_uri() + (f"#{fragment}" if fragment else ""))
        return self.page

    def go(self, address: str) -> None:
        """Open an address and wait until its script has made the page live."""
        self.page.goto("about:blank")
        self.page.goto(address)
        if "/boards/" in address and self.is_scripted:
            self.page.locator("table.live").wait_for()

    def close(self) -> None:
        """Close the page; it must not have complained, nor asked anybody for anything."""
        self.context.close()
        assert self.complaints == []
        local = ("file:", "data:", "about:", "blob:")
        assert [url for url in self.requests if not url.startswith(local)] == []


def location(page: Any) -> str:
    """Where the page is now; Playwright's own ``url`` follows a script's changes a moment later."""
    return str(page.evaluate("location.href"))


def entries(page: Any) -> list[str]:
    return page.eval_on_selector_all(
        "#board tbody tr[id]", "rows => rows.map(r => r.dataset.entry)"
    )


def menu(page: Any, title: str) -> Any:
    found = page.locator("details.menu").filter(has=page.locator(f"summary:text-is('{title}')"))
    found.locator("xpath=./summary").click()
    return found


def facet(page: Any, title: str) -> Any:
    """The choices of one filter, in the sheet of the button Filters."""
    sheet = page.locator("details.filters")
    if sheet.get_attribute("open") is None:
        sheet.locator("summary").click()
    return sheet.get_by_role("group", name=title, exact=True)
