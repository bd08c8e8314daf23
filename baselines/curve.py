"""The picture of a training run: loss and held-out measures over the epochs of all stages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from corobench.baselines.progress import EpochRow

#: Held-out measure -> (label, colour); readable with the usual colour blindnesses.
MEASURES = {
    "clean": ("clean", "#0072b2"),
    "robust": ("quick robust", "#d55e00"),
    "bound": ("IBP bound", "#009e73"),
}


def draw(title: str, histories: Mapping[str, Sequence[EpochRow]]) -> bytes:
    """PNG of a run.

    Args:
        title: above the picture.
        histories: training stage -> its rows, in order.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, shares = figure.subplots(2, 1, sharex=True)
    offset = 0
    for stage, history in histories.items():
        epochs = [offset + row.epoch for row in history]
        losses.plot(epochs, [row.loss for row in history], color="#555555")
        for name, (label, colour) in MEASURES.items():
            values = [getattr(row, name) for row in history]
            if None not in values:
                shares.plot(epochs, values, color=colour, label=None if offset else label)
        selected = [row.epoch for row in history if row.is_best]
        if selected:
            shares.axvline(offset + selected[-1], color="#999999", linestyle=":", linewidth=1)
        for axes in (losses, shares):
            axes.axvline(offset + 0.5, color="#cccccc", linewidth=1)
        # The layout must not make room for a name that is wider than a short stage.
        losses.annotate(
            stage, (offset + 0.7, 0.97), xycoords=("data", "axes fraction"), va="top"
        ).set_in_layout(False)
        offset += len(history)
    losses.set_ylabel("loss")
    losses.set_title(title)
    shares.set_ylabel("held-out images")
    shares.set_ylim(0, 1)
    shares.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    shares.set_xlabel("epoch (dotted: the one selected)")
    shares.legend(loc="lower right")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
