"""Chromium for the tests of the pages, skipped where there is none; checkouts of a request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Tab

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"chromium does not start here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def tab(browser: Any, site: Path) -> Iterator[Tab]:
    """A desktop's window on the site that the test's module builds."""
    tab = Tab(browser, site, viewport={"width": 1280, "height": 900})
    yield tab
    tab.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """What the two checkouts leave: ``base`` and, with a branch for the request, ``request``."""
    from pull_requests import make_workspace

    return make_workspace(tmp_path)
