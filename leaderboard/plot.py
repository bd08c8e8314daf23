"""Where everything goes in the plot of size against robustness; the template draws it.

Each entry is a vertical range at its number of non-zeros: from what is certified up to what was
not attacked. The true robust accuracy lies somewhere in the range. Why this is drawn by a
template and not by matplotlib: docs/decisions/0002-leaderboard-plots.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from leaderboard.boards import Row

WIDTH, HEIGHT = 580, 330
LEFT, RIGHT_EDGE, TOP, BOTTOM = 36, 446, 26, 282
STEP = 13.0  # between ranges drawn side by side, and between labels, in user units
MAX_LABELS = 16
LABEL_LENGTH = 22


@dataclass(frozen=True)
class Tick:
    """A tick of one axis: position in user units and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Range:
    """One entry: x of its line, y of both ends, and its label (empty where they are too many).

    Attributes:
        row: the entry.
        x: drawn position; ranges of nearly equal size stand side by side.
        low_y: of the certified share.
        high_y: of the not-attacked share.
        label_x: left end of the label.
        label_y: of the label.
    """

    row: Row
    x: float
    low_y: float
    high_y: float
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0


@dataclass(frozen=True)
class Plot:
    """All positions of one plot."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    ranges: tuple[Range, ...]


def plot(rows: Sequence[Row]) -> Plot:
    """Lay out the plot of one board.

    Args:
        rows: at least one; an entry without non-zeros is placed at 1.
    """
    sizes = [max(1, row.result.compactness.num_nonzero) for row in rows]
    low, high = _domain(min(sizes), max(sizes))

    def place(size: float) -> float:
        return LEFT + (RIGHT_EDGE - LEFT) * (math.log10(size) - low) / (high - low)

    ranges = [
        Range(row, place(size), y_of(row.bracket.low_rate), y_of(row.bracket.not_attacked.rate))
        for row, size in sorted(zip(rows, sizes, strict=True), key=lambda pair: pair[1])
    ]
    labelled = len(rows) <= MAX_LABELS
    placed = [item for cluster in _clusters(ranges) for item in _spread(cluster, labelled)]
    y_ticks = tuple(Tick(y_of(step / 5), str(20 * step)) for step in range(6))
    x_ticks = tuple(Tick(place(size), _tick_text(size)) for size in _log_ticks(low, high))
    return Plot(x_ticks, y_ticks, tuple(placed))


def y_of(rate: float) -> float:
    """Height of a rate in [0, 1] in user units; the axis always spans 0 to 100 %."""
    return BOTTOM - (BOTTOM - TOP) * rate


def _domain(smallest: int, largest: int) -> tuple[float, float]:
    """Ends of the log axis with room at both sides, at least half a decade."""
    low, high = math.log10(smallest), math.log10(largest)
    room = max(0.25, (high - low) * 0.12)
    return low - room, high + room


def _log_ticks(low: float, high: float) -> list[int]:
    """Round sizes inside the axis: powers of ten, with 2 and 5 between on a short axis."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    decades = range(max(0, math.floor(low)), math.ceil(high) + 1)
    sizes = [step * 10**decade for decade in decades for step in steps]
    return [size for size in sizes if low <= math.log10(size) <= high]


def _tick_text(size: int) -> str:
    """A round size without idle digits.

    >>> [_tick_text(size) for size in (500, 20_000, 5_000_000)]
    ['500', '20k', '5M']
    """
    for factor, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if size >= factor:
            return f"{size // factor}{unit}"
    return str(size)


def _clusters(ranges: Sequence[Range]) -> list[list[Range]]:
    """Runs of ranges so close in size that they would hide each other."""
    clusters: list[list[Range]] = []
    for item in ranges:
        if clusters and item.x - clusters[-1][-1].x < STEP:
            clusters[-1].append(item)
        else:
            clusters.append([item])
    return clusters


def _spread(cluster: list[Range], labelled: bool) -> list[Range]:
    """The ranges of one cluster side by side about its middle, labels one below the other."""
    middle = sum(item.x for item in cluster) / len(cluster)
    ordered = sorted(cluster, key=lambda item: (item.low_y, item.high_y, item.row.page))
    first = middle - STEP * (len(ordered) - 1) / 2
    moved = [replace(item, x=first + STEP * place) for place, item in enumerate(ordered)]
    if not labelled:
        return moved
    label_x = moved[-1].x + STEP
    heights = _apart([(item.low_y + item.high_y) / 2 for item in moved])
    return [
        replace(item, label=_shorten(item.row.result.entry), label_x=label_x, label_y=height)
        for item, height in zip(moved, heights, strict=True)
    ]


def _apart(wanted: Sequence[float]) -> list[float]:
    """Heights near the wanted ones, at least one step apart and inside the plot."""
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    heights = [0.0] * len(wanted)
    floor = float(TOP)
    for index in order:
        heights[index] = max(wanted[index], floor)
        floor = heights[index] + STEP
    ceiling = float(BOTTOM)
    for index in reversed(order):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - STEP
    return heights


def _shorten(text: str) -> str:
    return text if len(text) <= LABEL_LENGTH else f"{text[: LABEL_LENGTH - 1]}…"
