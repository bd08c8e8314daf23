"""Where everything goes in the plots of a board; the template draws it.

Each entry is a vertical range at its size: from what is proven up to what is unbroken. The true
robust accuracy lies somewhere in the range. Entries of one size lie on one line: nothing is moved
aside, and the drawing is translucent. Why this is drawn by a template and not by a
plotting library: docs/decisions/0002-leaderboard-plots.md and 0006-leaderboard-page.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from corobench.benchmark.records.result import Compactness
from corobench.leaderboard.boards import Row
from corobench.leaderboard.format import coordinate
from corobench.leaderboard.pareto import Known, Step, beaten, front

WIDTH, HEIGHT = 600, 340
LEFT, RIGHT_EDGE, TOP, BOTTOM = 36, 450, 26, 290
STEP = 13.0  # between labels, in user units
MAX_LABELS = 16
MAX_LINKS = 80  # above, ranges are no links of their own
LABEL_LENGTH = 26
LETTER = 5.6  # width of a letter of a label, in user units

#: What the size axis can show: key -> (words, value).
SIZES: dict[str, tuple[str, Callable[[Compactness], int]]] = {
    "nonzero": ("non-zero parameters", lambda size: size.num_nonzero),
    "packed": ("packed bytes", lambda size: size.bytes_stored),
    "macs": ("multiply-adds per image", lambda size: size.macs_nonzero),
}


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
        index: place of the row on its board as it was built, from 0.
        x: where the axis has the entry's size.
        low_y: of the proven share.
        high_y: of the unbroken share.
        is_beaten: whether an entry that is not larger is more robust beyond doubt.
        label_x: left end of the label.
        label_y: of the label.
    """

    row: Row
    index: int
    x: float
    low_y: float
    high_y: float
    is_beaten: bool = False
    label: str = ""
    label_x: float = 0.0
    label_y: float = 0.0

    @property
    def path(self) -> str:
        """From the proven end to the unbroken end."""
        x = coordinate(self.x)
        low, high = (coordinate(round(at, 1)) for at in (self.low_y, self.high_y))
        return f"M{x} {low}V{high}"


@dataclass(frozen=True)
class Plot:
    """All positions of one plot.

    Attributes:
        size: key of :data:`SIZES`.
        words: what the size axis shows.
        band: path of the area in which the Pareto front lies.
        ends: decimal logarithms at the ends of the size axis.
    """

    size: str
    words: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    ranges: tuple[Range, ...]
    band: str
    ends: tuple[float, float]

    @property
    def has_links(self) -> bool:
        """Whether ranges are few enough to be links of their own."""
        return len(self.ranges) <= MAX_LINKS


def plot(rows: Sequence[Row], size: str = "nonzero") -> Plot:
    """Lay out the plot of one board.

    Args:
        rows: at least one; a size of 0 is placed at 1.
        size: key of :data:`SIZES`.
    """
    words, measure = SIZES[size]
    sizes = [max(1, measure(row.result.compactness)) for row in rows]
    axis = log_axis(sizes)
    known = [
        Known(value, row.bracket.low_interval_rate, row.bracket.not_attacked.interval.high)
        for value, row in zip(sizes, rows, strict=True)
    ]
    ranges = [
        Range(row, index, axis(value), y_of(row.bracket.low_rate), _high_y(row), lost)
        for index, (row, value, lost) in enumerate(zip(rows, sizes, beaten(known), strict=True))
    ]
    # of one size the longest is drawn first, so that it hides no other
    ranges.sort(key=lambda item: (item.x, item.high_y - item.low_y, item.row.page))
    named = set(range(len(rows))) if len(rows) <= MAX_LABELS else set(_on_front(rows, sizes))
    labelled = {
        item.index: item for item in _labelled([one for one in ranges if one.index in named])
    }
    return Plot(
        size=size,
        words=words,
        x_ticks=axis.ticks,
        y_ticks=percent_ticks(),
        ranges=tuple(labelled.get(item.index, item) for item in ranges),
        band=_band(front(known), axis),
        ends=(axis.low, axis.high),
    )


def percent_ticks() -> tuple[Tick, ...]:
    """Every 20 % on an axis from 0 to 100."""
    return tuple(Tick(y_of(step / 5), str(20 * step)) for step in range(6))


def y_of(rate: float) -> float:
    """Height of a rate in [0, 1] in user units; the axis always spans 0 to 100 %."""
    return BOTTOM - (BOTTOM - TOP) * rate


@dataclass(frozen=True)
class LogAxis:
    """A horizontal log axis; ends are decimal logarithms."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        return LEFT + (RIGHT_EDGE - LEFT) * (math.log10(value) - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Round values inside the axis: powers of ten, with 2 and 5 between on a short one."""
        steps = (1, 2, 5) if self.high - self.low < 2.5 else (1,)
        decades = range(max(0, math.floor(self.low)), math.ceil(self.high) + 1)
        values = [step * 10**decade for decade in decades for step in steps]
        inside = [value for value in values if self.low <= math.log10(value) <= self.high]
        return tuple(Tick(self(value), tick_text(value)) for value in inside)


def log_axis(values: Sequence[float]) -> LogAxis:
    """An axis for these values with room at both sides, at least half a decade."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.25, (high - low) * 0.12)
    return LogAxis(low - room, high + room)


def tick_text(value: int) -> str:
    """A round number without idle digits.

    >>> [tick_text(value) for value in (500, 20_000, 5_000_000)]
    ['500', '20k', '5M']
    """
    for factor, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= factor:
            return f"{value // factor}{unit}"
    return str(value)


def spread_heights(wanted: Sequence[float]) -> list[float]:
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


def shorten(text: str, track: str = "") -> str:
    """A label that fits, without the name of the track in front.

    >>> shorten("digits-adv-dense", "digits")
    'adv-dense'
    """
    text = text.removeprefix(f"{track}-")
    return text if len(text) <= LABEL_LENGTH else f"{text[: LABEL_LENGTH - 1]}…"


def _on_front(rows: Sequence[Row], sizes: Sequence[float]) -> list[int]:
    """Rows that are better than every other one not larger: by proven, or by unbroken.

    Args:
        rows: of one board, in any order.
        sizes: of the rows.

    Returns:
        Their places, at most `MAX_LABELS`, the larger ones first to go.
    """
    found: list[int] = []
    for rate in (_proven, _unbroken):
        best = -1.0
        for place in sorted(range(len(rows)), key=lambda one: (sizes[one], -rate(rows[one]), one)):
            if rate(rows[place]) > best:
                best = rate(rows[place])
                found.append(place)
    distinct = sorted(set(found), key=lambda place: (sizes[place], place))
    return distinct[:MAX_LABELS]


def _proven(row: Row) -> float:
    return row.bracket.low_rate


def _unbroken(row: Row) -> float:
    return row.bracket.not_attacked.rate


def _high_y(row: Row) -> float:
    return y_of(_unbroken(row))


def _band(steps: Sequence[Step], axis: LogAxis) -> str:
    """A closed path: along the upper steps to the right edge, and back along the lower ones."""
    first = steps[0]
    out = f"M{coordinate(axis(first.size))} {coordinate(y_of(first.high))}"
    for step in steps[1:]:
        out += f"H{coordinate(axis(step.size))}V{coordinate(y_of(step.high))}"
    out += f"H{RIGHT_EDGE}V{coordinate(y_of(steps[-1].low))}"
    for step, before in zip(reversed(steps[1:]), reversed(steps[:-1]), strict=True):
        out += f"H{coordinate(axis(step.size))}V{coordinate(y_of(before.low))}"
    return f"{out}H{coordinate(axis(first.size))}Z"


def _labelled(ranges: Sequence[Range]) -> list[Range]:
    """The ranges with their labels, each right of its range, none over another one."""
    found: list[Range] = []
    for item in sorted(ranges, key=lambda one: (one.x, one.low_y + one.high_y, one.index)):
        label = shorten(item.row.result.entry, item.row.result.track)
        middle = (item.low_y + item.high_y) / 2
        for height in _heights(middle):
            drawn = replace(item, label=label, label_x=item.x + STEP, label_y=height)
            if not any(_overlap(drawn, other) for other in found):
                found.append(drawn)
                break
    return found


def _heights(wanted: float) -> list[float]:
    """Heights for a label inside the plot, nearest first."""
    num_steps = int((BOTTOM - TOP) / STEP) + 1
    offsets = [sign * STEP * step for step in range(num_steps) for sign in (1, -1)]
    return [wanted + offset for offset in offsets[1:] if TOP <= wanted + offset <= BOTTOM]


def _overlap(one: Range, other: Range) -> bool:
    """Whether two labels would hide each other."""
    first, last = sorted((one, other), key=lambda item: item.label_x)
    is_beside = first.label_x + LETTER * len(first.label) < last.label_x
    return not is_beside and abs(one.label_y - other.label_y) < STEP - 1e-9
