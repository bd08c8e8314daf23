"""Progress where the caller is: one line that renews itself in a notebook, a bar on a terminal."""

from __future__ import annotations

import html
import io
import sys
import time
from typing import Any

from corobench.benchmark.files.console import plain_console
from corobench.benchmark.files.progress import Reporter


def reporter(title: str, *, verbose: bool) -> Reporter:
    """The reporter for this place.

    Args:
        title: what is evaluated.
        verbose: False shows nothing.
    """
    if not verbose:
        return Reporter(title, plain_console(file=io.StringIO(), force_terminal=False, quiet=True))
    shell = notebook_shell()
    if shell is not None:
        return NotebookReporter(title)
    return Reporter(title)


def notebook_shell() -> object | None:
    """The shell of a Jupyter kernel that this code runs in; None anywhere else."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None else None
    return shell if shell is not None and hasattr(shell, "kernel") else None


class NotebookReporter(Reporter):
    """One line below the cell that renews itself; it is gone when the result is there.

    Args:
        title: what is evaluated.
        interval_s: least seconds between two renewals within a stage.
    """

    def __init__(self, title: str, interval_s: float = 0.3) -> None:
        super().__init__(title, plain_console(file=io.StringIO(), force_terminal=False), interval_s)
        self._handle: Any = None
        self._last_shown = 0.0

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        if self._handle is not None:
            self._handle.update(_Line(""))

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` images."""
        super().stage(name, total)
        self._show(f"{name}: 0 of {total} images")

    def advance(self, num_images: int, note: str = "") -> None:
        """Say that `num_images` more are done; `note` is what is known so far."""
        self._done += num_images
        done = f"{self._stage}: {self._done} of {self._total} images"
        self._show(f"{done}; {note}" if note else done, may_wait=self._done < self._total)

    def note(self, text: str) -> None:
        """What a long step does now."""
        done = f"{self._stage}: {self._done} of {self._total} images"
        self._show(f"{done}; {text}", may_wait=True)

    def say(self, text: str) -> None:
        """One line for people."""
        self._show(text)

    def _show(self, text: str, *, may_wait: bool = False) -> None:
        now = time.monotonic()
        if may_wait and now - self._last_shown < self.interval_s:
            return
        self._last_shown = now
        line = _Line(f"[{now - self._started:.0f} s] {self.title}: {text}")
        if self._handle is None:
            from IPython.display import display

            self._handle = display(line, display_id=True)
        else:
            self._handle.update(line)


class _Line:
    """A line of text as HTML, and as plain text where there is none."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f'<div role="status">{html.escape(self._text)}</div>' if self._text else ""
