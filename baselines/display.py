"""Training progress for people: a live bar on a terminal, a line per stage everywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console

from corobench.baselines.progress import EpochRow, Progress, Trained
from corobench.benchmark.files.console import plain_console
from corobench.benchmark.files.progress import live_bars


class Display:
    """A callback for :func:`baselines.procedure.run` that shows loss and held-out measures.

    Without a terminal each stage ends in one line, and a long one says how far it is.

    Args:
        console: where to write; standard error by default.
        interval_s: seconds between lines of one stage without a terminal.
    """

    def __init__(self, console: Console | None = None, interval_s: float = 30.0) -> None:
        self.console = console or plain_console(file=sys.stderr, highlight=False)
        self.interval_s = interval_s
        self._last_line_s = time.monotonic()
        self._stage: tuple[str, str] | None = None
        self._bars = live_bars(self.console, "epochs", bar_width=20)
        self._task = self._bars.add_task("", total=None, visible=False, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one epoch, or that pruning is done."""
        label = f"{progress.entry}: {progress.stage}"
        row = progress.row
        if row is None:
            self._say(f"{label}: {100 * progress.sparsity:.1f} % of the weights are zero")
            return
        if self._stage != (progress.entry, progress.stage):
            self._stage = (progress.entry, progress.stage)
            self._bars.reset(
                self._task, description=label, total=progress.num_epochs, visible=True, note=""
            )
        self._bars.update(self._task, completed=row.epoch, note=describe(row))
        is_last = row.epoch == progress.num_epochs
        is_due = not self.console.is_terminal and (
            time.monotonic() - self._last_line_s > self.interval_s
        )
        if is_last or is_due:
            self._say(f"{label}: epoch {row.epoch}/{progress.num_epochs}, {describe(row)}")

    def finish(self, trained: Trained) -> None:
        """Say where the submission is, or how to go on."""
        if not trained.is_finished:
            self._say(
                f"{trained.entry}: paused in {trained.stage} after epoch {trained.epoch}; "
                "everything is saved. To continue, run the same command again"
            )
            return
        chosen = trained.selected
        note = f", selected epoch {chosen.epoch}: {describe(chosen)}" if chosen else ""
        self._say(f"{trained.entry}: done in {trained.seconds:.1f} s{note}")
        self._say(str(trained.folder))

    def _say(self, text: str) -> None:
        self._last_line_s = time.monotonic()
        self.console.print(text, markup=False, soft_wrap=True)


def describe(row: EpochRow) -> str:
    """Loss and held-out measures of one epoch, in percent."""
    bound = "–" if row.bound is None else f"{100 * row.bound:.1f} %"
    return (
        f"loss {row.loss:.3f}, held-out clean {100 * row.clean:.1f} %, "
        f"robust {100 * row.robust:.1f} %, bound {bound}"
    )
