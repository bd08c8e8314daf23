"""The picture of an entry's weights: magnitudes that were kept, beside those of its dense parent.

One panel each on one axis, so that a reader sees what a pruner took away and what training did
with the rest. The template draws it; a table beside it says the same in numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from corobench.benchmark.records.result import Magnitudes
from corobench.leaderboard.boards import Row
from corobench.leaderboard.format import coordinate
from corobench.leaderboard.plot import Tick

WIDTH, LEFT, RIGHT = 400, 44, 396
PANEL, GAP, TOP = 84, 34, 22
#: Share of a panel's weights that may lie below or above what is drawn.
TAIL = 0.002
MAX_TICKS = 8


@dataclass(frozen=True)
class Panel:
    """One histogram.

    Attributes:
        entry: whose weights.
        who: what it is to the page: "this entry" or "its dense parent".
        num_kept: weights that are not zero.
        num_zeros: weights that are zero.
        path: closed outline of all bars.
        top: y of the largest bar.
        bottom: y of the axis.
        largest: count of the largest bar.
    """

    entry: str
    who: str
    num_kept: int
    num_zeros: int
    path: str
    top: float
    bottom: float
    largest: int


@dataclass(frozen=True)
class Line:
    """Weights of one power of two: how many each panel has."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """All positions of the picture.

    Attributes:
        panels: of the parent where it is known, then of the entry.
        x_ticks: powers of ten.
        lines: the same numbers as a table, ascending.
        num_outside: weights of all panels too small or too large to be drawn.
        height: of the drawing in user units.
    """

    panels: tuple[Panel, ...]
    x_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    num_outside: int
    height: int
    width: int = WIDTH
    left: int = LEFT
    right: int = RIGHT


def picture(row: Row) -> Picture | None:
    """Lay out the picture of an entry, or None where its weights were not measured so or are all 0.

    Args:
        row: of the entry, with its parent's result where that is known.
    """
    own = row.result.compactness.magnitudes
    if own is None or not own.counts:
        return None
    shown = [((row.result.entry, "this entry"), own)]
    parent = row.parent.compactness.magnitudes if row.parent else None
    if row.parent is not None and parent is not None and parent.counts:
        shown.insert(0, ((row.parent.entry, "its dense parent"), parent))
    found = [one for _, one in shown]
    views = [_view(one) for one in found]
    low, high = min(start for start, _ in views), max(end for _, end in views)
    panels = tuple(
        _panel(whose, one, (low, high), TOP + place * (PANEL + GAP))
        for place, (whose, one) in enumerate(shown)
    )
    inside = sum(count for one in found for *_, count in _drawn(one, low, high))
    bottom = panels[-1].bottom
    first, last = math.ceil(low * math.log10(2)), math.floor(high * math.log10(2))
    decades = range(first, last + 1, max(1, math.ceil((last - first) / MAX_TICKS)))
    ticks = tuple(Tick(_x(step / math.log10(2), low, high), decade_text(step)) for step in decades)
    num_outside = sum(panel.num_kept for panel in panels) - inside
    return Picture(panels, ticks, _lines(found), num_outside, round(bottom) + 42)


def decade_text(step: int) -> str:
    """A power of ten, short.

    >>> [decade_text(step) for step in (-6, -2, 0, 1)]
    ['1e-6', '0.01', '1', '10']
    """
    return f"1e{step}" if abs(step) > 4 else f"{10.0**step:g}"


def _panel(whose: tuple[str, str], one: Magnitudes, view: tuple[float, float], top: float) -> Panel:
    drawn = _drawn(one, *view)
    largest = max((count for *_, count in drawn), default=1)
    bottom = top + PANEL
    path = f"M{coordinate(_x(drawn[0][0], *view))} {coordinate(bottom)}" if drawn else ""
    for _, end, count in drawn:
        y = bottom - PANEL * count / max(1, largest)
        path += f"V{coordinate(round(y, 1))}H{coordinate(round(_x(end, *view), 1))}"
    path += f"V{coordinate(bottom)}Z" if drawn else ""
    return Panel(*whose, sum(one.counts), one.num_zeros, path, top, bottom, largest)


def _drawn(one: Magnitudes, low: float, high: float) -> list[tuple[float, float, int]]:
    """Both ends as logarithms and the count of every bin inside the view."""
    return [
        (start, end, count)
        for (start, end), count in zip(pairwise(_logs(one.edges)), one.counts, strict=True)
        if low <= start and end <= high
    ]


def _logs(edges: Sequence[float]) -> list[float]:
    """Binary logarithms; an edge at 0 is put a quarter below the next one."""
    first = [math.log2(edges[1]) - 0.25] if edges[0] == 0 else []
    return first + [math.log2(edge) for edge in edges if edge > 0]


def _view(one: Magnitudes) -> tuple[float, float]:
    """Logarithms between which all but a small share of the weights lies, at whole bins."""
    logs, allowed = _logs(one.edges), TAIL * sum(one.counts)
    below = above = 0
    first, last = 0, len(one.counts)
    while below + one.counts[first] <= allowed:
        below += one.counts[first]
        first += 1
    while above + one.counts[last - 1] <= allowed:
        above += one.counts[last - 1]
        last -= 1
    return logs[first], logs[last]


def _lines(found: Sequence[Magnitudes]) -> tuple[Line, ...]:
    """Counts per power of two, of those that hold any."""
    table: dict[int, list[int]] = {}
    for place, one in enumerate(found):
        for (start, end), count in zip(pairwise(_logs(one.edges)), one.counts, strict=True):
            octave = math.floor((start + end) / 2)
            table.setdefault(octave, [0] * len(found))[place] += count
    return tuple(
        Line(2.0**octave, 2.0 ** (octave + 1), tuple(counts))
        for octave, counts in sorted(table.items())
        if any(counts)
    )


def _x(log: float, low: float, high: float) -> float:
    return LEFT + (RIGHT - LEFT) * (log - low) / (high - low)
