"""A page on this machine, shown in the browser of whoever sits before it."""

from __future__ import annotations

import webbrowser
from pathlib import Path


def open_page(page: Path) -> str:
    """Open a page in a window of its own; a browser within the terminal is never started.

    Args:
        page: an HTML file.

    Returns:
        What was done, or what to do where there is no browser, as on a server.
    """
    try:
        browser = webbrowser.get()
        in_terminal = isinstance(browser, webbrowser.GenericBrowser) and not isinstance(
            browser, webbrowser.BackgroundBrowser
        )
        if not in_terminal and browser.open(page.resolve().as_uri()):
            return f"opened {page}"
    except webbrowser.Error:
        pass
    return (
        f"no browser with a window was found here; open {page} in yours, or copy the folder "
        f"{page.parent} to a machine that has one (the page needs no server)"
    )
