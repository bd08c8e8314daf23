"""Sparsity curves: one method at several compressions, from its dense parent on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from corobench.leaderboard.boards import Row
from corobench.leaderboard.families import number_format
from corobench.leaderboard.format import coordinate
from corobench.leaderboard.plot import (
    LogAxis,
    Tick,
    log_axis,
    percent_ticks,
    shorten,
    spread_heights,
    y_of,
)
from corobench.leaderboard.taxonomy import times_smaller

MAX_CURVES = 6
#: What a method's name says of its size, which a curve has many of: "LWM 10x".
SIZE = re.compile(r"\s+\d+(\.\d+)?x$")


class Point(NamedTuple):
    """A row on a curve: `place` is that of the row on the board as it was built, from 0."""

    row: Row
    place: int
    x: float
    low_y: float
    high_y: float


@dataclass(frozen=True)
class Curve:
    """One method over compression.

    Attributes:
        name: of the method and its parent.
        rows: the parent where it is on the board, then children by growing compression.
        low: points of the proven shares, as an SVG polyline takes them; empty where the parent
            cannot be proven: a line would then rise with what certifiers can do.
        high: points of the unbroken shares.
        area: closed path between the two; empty where `low` is.
        points: one per row: its place on the board, x, and y of both ends.
        is_open: the bracket of the parent is wide, or its lower end is not known; then the
            brackets stand alone.
        label: shortened name, at (`label_x`, `label_y`).
    """

    name: str
    rows: tuple[Row, ...]
    low: str
    high: str
    area: str
    points: tuple[Point, ...]
    is_open: bool
    label: str
    label_x: float
    label_y: float


@dataclass(frozen=True)
class Curves:
    """All positions of one plot of sparsity curves.

    Attributes:
        num_single: methods that are not drawn, as they are there at one compression only.
        num_left_out: further methods that are not drawn, as `MAX_CURVES` are.
        ends: decimal logarithms at the ends of the axis.
    """

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    num_left_out: int
    ends: tuple[float, float]
    num_single: int = 0


def curves(rows: Sequence[Row]) -> Curves | None:
    """Lay out the sparsity curves of one board, or None where no method has two sizes.

    A method has a curve where it is there at two compressions or more; where none is, the step from
    the dense parent to the only compression is drawn.

    Args:
        rows: of one board, best first.
    """
    sized = [family for family in _families(rows) if _num_sizes(family) > 1]
    if not sized:
        return None
    families = [family for family in sized if _num_compressions(family) > 1] or sized
    drawn = families[:MAX_CURVES]
    axis = log_axis([times_smaller(row) for family in drawn for row in family])
    places = {row.page: place for place, row in enumerate(rows)}
    placed = [_curve(family, axis, places) for family in drawn]
    heights = spread_heights([curve.label_y for curve in placed])
    placed = [replace(curve, label_y=y) for curve, y in zip(placed, heights, strict=True)]
    ticks = tuple(replace(tick, text=f"{tick.text}×") for tick in axis.ticks)
    num_single = len(sized) - len(families)
    return Curves(
        x_ticks=ticks,
        y_ticks=percent_ticks(),
        curves=tuple(placed),
        num_left_out=len(families) - len(drawn),
        ends=(axis.low, axis.high),
        num_single=num_single,
    )


def _families(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one parent, method and kind of numbers, by growing compression, best method first."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        submission = row.result.submission
        if submission.parent is None or times_smaller(row) == float("inf"):
            continue
        method = submission.method
        key = (
            submission.parent,
            method.criterion,
            method.structure,
            method.scope,
            method.schedule,
            method.finetune_objective,
            number_format(row.result),
        )
        found.setdefault(key, []).append(row)
    by_entry = {row.result.entry: row for row in rows}
    return [
        sorted([*([by_entry[key[0]]] if key[0] in by_entry else []), *children], key=times_smaller)
        for key, children in found.items()
    ]


def _num_sizes(family: Sequence[Row]) -> int:
    return len({round(times_smaller(row), 2) for row in family})


def _num_compressions(family: Sequence[Row]) -> int:
    return _num_sizes([row for row in family if row.result.submission.parent is not None])


def _curve(family: Sequence[Row], axis: LogAxis, places: Mapping[str, int]) -> Curve:
    xs = [coordinate(axis(times_smaller(row))) for row in family]
    lows = [y_of(row.bracket.low_rate) for row in family]
    highs = [y_of(row.bracket.not_attacked.rate) for row in family]
    low = [f"{x},{coordinate(y)}" for x, y in zip(xs, lows, strict=True)]
    high = [f"{x},{coordinate(y)}" for x, y in zip(xs, highs, strict=True)]
    last = family[-1].result.submission
    name = f"{last.method.criterion}, {last.method.finetune_objective or 'not fine-tuned'}"
    is_open = family[0].is_wide
    return Curve(
        name=f"{name}, from {last.parent}",
        rows=tuple(family),
        low="" if is_open else " ".join(low),
        high=" ".join(high),
        area="" if is_open else f"M{'L'.join(high)}L{'L'.join(reversed(low))}Z",
        points=tuple(
            Point(row, places[row.page], float(x), low_y, high_y)
            for row, x, low_y, high_y in zip(family, xs, lows, highs, strict=True)
        ),
        is_open=is_open,
        label=shorten(f"{last.parent}: {SIZE.sub('', last.method.name)}", last.track),
        label_x=float(xs[-1]) + 8,
        label_y=(lows[-1] + highs[-1]) / 2,
    )
