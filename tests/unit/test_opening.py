"""The page is opened where there is a browser with a window, and named where there is none."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from corobench.benchmark.cli import quickstart
from corobench.benchmark.cli.main import invoke
from corobench.benchmark.files.browser import open_page


class _Window(webbrowser.BackgroundBrowser):
    def __init__(self, works: bool = True) -> None:
        super().__init__("window")
        self.opened: list[str] = []
        self.works = works

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.opened.append(url)
        return self.works


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> _Window:
    browser = _Window()
    monkeypatch.setattr(webbrowser, "get", lambda *_: browser)
    return browser


def test_a_page_is_opened_by_its_address(window: _Window, tmp_path: Path) -> None:
    page = tmp_path / "a b.html"
    assert open_page(page) == f"opened {page}"
    assert window.opened == [page.as_uri()]
    window.works = False
    assert "no browser with a window" in open_page(page)


def test_without_a_window_the_page_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(*_: object) -> object:
        raise webbrowser.Error("none")

    monkeypatch.setattr(webbrowser, "get", none)
    assert str(tmp_path / "index.html") in open_page(tmp_path / "index.html")
    in_terminal = webbrowser.GenericBrowser("false")
    monkeypatch.setattr(webbrowser, "get", lambda *_: in_terminal)
    monkeypatch.setattr(in_terminal, "open", lambda *_: pytest.fail("took the terminal"))
    assert "no browser with a window" in open_page(tmp_path / "index.html")


def test_the_demo_renders_what_is_shipped(
    window: _Window, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["demo", "--out", str(tmp_path / "demo")]) == 0
    page = tmp_path / "demo" / "index.html"
    assert page.is_file() and window.opened == [page.as_uri()]
    assert str(page) in capsys.readouterr().out
    assert invoke(["demo", "--no-open", "--out", str(tmp_path / "demo")]) == 0
    assert len(window.opened) == 1


def test_the_quickstart_opens_its_page_if_asked(
    window: _Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "run", lambda out, **_: out / "site" / "index.html")
    assert invoke(["quickstart", "--out", str(tmp_path)]) == 0
    assert window.opened == []
    assert invoke(["quickstart", "--out", str(tmp_path), "--open"]) == 0
    assert window.opened == [(tmp_path / "site" / "index.html").as_uri()]
