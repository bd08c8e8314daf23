"""Where a training run keeps its files.

``DIR/<id>/`` is the submission. ``DIR/.train/<id>/`` holds, per stage, ``<stage>.pt`` (its
checkpoint) and ``<stage>.csv`` (its log), the picture ``curve.png`` and ``summary.json``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corobench.baselines.progress import EpochRow
from corobench.benchmark.files.atomic import prepare_folder, write_atomic

LOG_COLUMNS = ("epoch", "lr", "epsilon", "loss", "clean", "robust", "bound", "is_best", "seconds")


@dataclass(frozen=True)
class Workspace:
    """Paths of one entry.

    Attributes:
        root: the ``--out`` folder.
        entry: id of the entry.
    """

    root: Path
    entry: str

    @property
    def submission(self) -> Path:
        return self.root / self.entry

    @property
    def training(self) -> Path:
        return self.root / ".train" / self.entry

    def checkpoint(self, stage: str) -> Path:
        return self.training / f"{stage}.pt"

    def prepare(self) -> None:
        """Make the folders, so that a bad ``--out`` fails before hours of training.

        Raises:
            OutputError: they cannot be made or written.
        """
        for folder in (self.submission, self.training):
            prepare_folder(folder)

    def write_log(self, stage: str, history: Sequence[EpochRow]) -> None:
        """The stage's log, whole; one row per epoch."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(LOG_COLUMNS)
        for row in history:
            writer.writerow([_cell(getattr(row, column)) for column in LOG_COLUMNS])
        write_atomic(self.training / f"{stage}.csv", text.getvalue().encode())

    def write_curve(self, title: str, histories: Mapping[str, Sequence[EpochRow]]) -> None:
        """The picture of loss and held-out measures over all stages."""
        from corobench.baselines.curve import draw  # matplotlib takes a second to import

        write_atomic(self.training / "curve.png", draw(title, histories))


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value
