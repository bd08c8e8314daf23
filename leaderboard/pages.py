"""Boards -> the bytes of every page. The templates escape everything; nothing is marked safe."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files as package_files

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmark.tracks import PROTOCOL
from leaderboard import format as text
from leaderboard.boards import Board, Group, Row
from leaderboard.measures import SEGMENT_NAMES, SEGMENTS, Bracket, Segment, Share
from leaderboard.plot import BOTTOM, HEIGHT, LEFT, RIGHT_EDGE, TOP, WIDTH, Plot, plot

ASSETS = ("board.js", "style.css")


class Notes:
    """Footnotes of one table: each reason once, in the order of first use."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.reasons: list[str] = []

    def mark(self, reason: str) -> int:
        """The number of a reason's footnote, from 1."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


def render_pages(groups: Sequence[Group]) -> dict[str, bytes]:
    """Every file of the site.

    Args:
        groups: in the order of the page.

    Returns:
        Path inside the site -> content: ``index.html``, one page per result, the assets.
    """
    environment = _environment()
    tracks = {group.track.name: group.track for group in groups}
    index = environment.get_template("index.html").render(
        root="",
        groups=groups,
        tracks=list(tracks.values()),
        num_results=sum(group.num_entries for group in groups),
        example=_example(),
    )
    pages = {"index.html": _encode(index)}
    entry_page = environment.get_template("entry.html")
    for path, rows in _rows_by_page(groups).items():
        root = "../" * path.count("/")
        pages[path] = _encode(entry_page.render(root=root, rows=rows, first=rows[0]))
    static = package_files("leaderboard") / "static"
    for name in ASSETS:
        pages[f"assets/{name}"] = (static / name).read_bytes()
    return dict(sorted(pages.items()))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leaderboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=text.percent,
        rate_percent=text.rate_percent,
        interval=text.interval,
        short_count=text.short_count,
        short_bytes=text.short_bytes,
        grouped=text.grouped,
        duration=text.seconds,
        px=text.coordinate,
        flat=text.flat,
    )
    environment.globals.update(
        segments=SEGMENTS,
        segment_names=SEGMENT_NAMES,
        protocol=PROTOCOL,
        plot=_plot,
        frame={
            "width": WIDTH,
            "height": HEIGHT,
            "left": LEFT,
            "right": RIGHT_EDGE,
            "top": TOP,
            "bottom": BOTTOM,
        },
        notes=Notes,
        share=Share,
    )
    return environment


def _plot(board: Board) -> Plot:
    return plot(board.rows)


def _rows_by_page(groups: Sequence[Group]) -> dict[str, list[Row]]:
    """Path of each entry's page -> its rows, one per epsilon, ascending."""
    pages: dict[str, list[Row]] = {}
    for group in groups:
        for board in group.boards:
            for row in board.rows:
                pages.setdefault(row.page, []).append(row)
    return dict(sorted(pages.items()))


def _example() -> Bracket:
    """The bracket drawn in the legend: 52 certified, 13 undecided, 20 attacked, 15 wrong."""
    counts = {"certified": 52, "undecided": 13, "unfinished": 0, "attacked": 20}
    counts["misclassified"] = 100 - sum(counts.values())
    segments: list[Segment] = []
    start = 0
    for key in SEGMENTS:
        segments.append(Segment(key, Share(counts[key], 100), start / 100))
        start += counts[key]
    return Bracket(tuple(segments), Share(52, 100), Share(65, 100))


def _encode(page: str) -> bytes:
    return (page.rstrip() + "\n").encode("utf-8")
