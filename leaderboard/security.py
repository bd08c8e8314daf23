"""Security curves: what is proven and unbroken as the radius grows, for entry and compare pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from corobench.benchmark.records.curve import Curve, curve_path
from corobench.benchmark.records.reading.curve_file import read_curve
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.ranking import bracket
from corobench.benchmark.tracks import parse_epsilon
from corobench.leaderboard.boards import Row
from corobench.leaderboard.format import coordinate
from corobench.leaderboard.loading import identity
from corobench.leaderboard.measures import is_lower_end_known

WIDTH, HEIGHT = 600, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 585, 22, 252

CurveOf = Mapping[tuple[str, ...], Curve]


@dataclass(frozen=True)
class Point:
    """What is known at one radius.

    Attributes:
        epsilon: exact text; "0" without an attack.
        radius: the same as a number.
        proven: images, closed by monotony; None where nothing is known from below.
        unbroken: images, closed by monotony.
        is_cheap: measured by cheap certifiers and PGD-50 only.
    """

    epsilon: str
    radius: Fraction
    proven: int | None
    unbroken: int
    is_cheap: bool


@dataclass(frozen=True)
class Dot:
    """A point of the drawing: `low_y` is None where nothing is known from below."""

    point: Point
    x: float
    low_y: float | None
    high_y: float


@dataclass(frozen=True)
class Drawing:
    """All positions of one curve.

    Attributes:
        band: closed path between both ends; empty where nothing is known from below.
        high: points of the unbroken shares, as an SVG polyline takes them.
        low: of the proven shares.
        dots: one per radius, ascending.
        x_ticks: place and text of each radius of the track.
        y_ticks: place and text.
        certifiers: those of the cheap radii; empty where there are none.
        n: images.
    """

    band: str
    high: str
    low: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    certifiers: tuple[str, ...]
    n: int

    @property
    def num_cheap(self) -> int:
        return sum(dot.point.is_cheap for dot in self.dots)


def read_curves(results: Sequence[Result], paths: Sequence[Path]) -> CurveOf:
    """Identity of a result -> its curve, for those that have one.

    Args:
        results: as read.
        paths: the file of each.

    Raises:
        ResultError: a curve is damaged or belongs to another result.
    """
    found = {}
    for result, path in zip(results, paths, strict=True):
        curve = read_curve(curve_path(path.absolute()), result)
        if curve is not None:
            found[identity(result)] = curve
    return found


def points(result: Result, curve: Curve | None) -> tuple[Point, ...]:
    """What is known at each radius, ascending, closed by monotony.

    Proven is at least what is proven at any larger radius, unbroken at most what is unbroken at any
    smaller one: both are true of the same images. What the result says at its own radii stays as it
    is on the board: nobody but `evaluate --curve --force` checks a curve.
    """
    found = [Point("0", Fraction(0), result.clean, result.clean, False)]
    for epsilon, score in result.epsilons.items():
        low, unbroken = bracket(score)
        proven = low if is_lower_end_known(score) else None
        found.append(Point(epsilon, parse_epsilon(epsilon), proven, unbroken, False))
    for epsilon, point in (curve.points if curve else {}).items():
        radius = parse_epsilon(epsilon)
        found.append(Point(epsilon, radius, point.proven, point.unbroken, True))
    found.sort(key=lambda point: point.radius)
    return tuple(_closed(found))


def _closed(found: Sequence[Point]) -> list[Point]:
    unbroken, highs = found[0].unbroken, []
    for point in found:
        unbroken = min(unbroken, point.unbroken)
        highs.append(unbroken)
    proven: int | None = None
    lows: list[int | None] = []
    for point in reversed(found):
        known = [count for count in (proven, point.proven) if count is not None]
        proven = max(known) if known else None
        lows.append(proven)
    return [
        Point(point.epsilon, point.radius, low, high, True) if point.is_cheap else point
        for point, low, high in zip(found, reversed(lows), highs, strict=True)
    ]


def drawing(rows: Sequence[Row], curve: Curve | None) -> Drawing:
    """Lay out the curve of one entry.

    Args:
        rows: of the entry, one per radius.
        curve: of its result, or None.
    """
    result = rows[0].result
    known = points(result, curve)
    largest = known[-1].radius

    def x_of(radius: Fraction) -> float:
        return LEFT + (RIGHT - LEFT) * float(radius / largest)

    dots = tuple(
        Dot(
            point,
            x_of(point.radius),
            None if point.proven is None else y_of(point.proven / result.n),
            y_of(point.unbroken / result.n),
        )
        for point in known
    )
    high = [f"{coordinate(dot.x)},{coordinate(dot.high_y)}" for dot in dots]
    low = [f"{coordinate(dot.x)},{coordinate(dot.low_y)}" for dot in dots if dot.low_y is not None]
    upper = high[: len(low)]
    band = f"M{'L'.join(upper)}L{'L'.join(reversed(low))}Z" if len(low) > 1 else ""
    ticks = [(x_of(point.radius), point.epsilon) for point in known if not point.is_cheap]
    return Drawing(
        band=band,
        high=" ".join(high),
        low=" ".join(low) if len(low) > 1 else "",
        dots=dots,
        x_ticks=tuple(ticks),
        y_ticks=tuple((y_of(step / 5), str(20 * step)) for step in range(6)),
        certifiers=curve.certifiers if curve else (),
        n=result.n,
    )


def y_of(rate: float) -> float:
    """Height of a rate in [0, 1]."""
    return BOTTOM - (BOTTOM - TOP) * rate


def as_json(known: Sequence[Point]) -> list[list[object]]:
    """Points for the compare page: radius text, radius, proven or null, unbroken, 1 where cheap."""
    return [
        [one.epsilon, float(one.radius), one.proven, one.unbroken, int(one.is_cheap)]
        for one in known
    ]
