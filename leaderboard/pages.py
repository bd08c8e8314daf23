"""Boards -> the bytes of every page. The templates escape everything that entries say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from corobench.benchmark.records.reading.published import KNOWN
from corobench.benchmark.tracks import PROTOCOL
from corobench.leaderboard import format as text
from corobench.leaderboard.assets import TEMPLATES, assets
from corobench.leaderboard.board_data import config_of, data_of, first_rank
from corobench.leaderboard.board_rows import tables
from corobench.leaderboard.boards import Board, Group, Row
from corobench.leaderboard.citation import bibtex, latex_table
from corobench.leaderboard.classes import per_class
from corobench.leaderboard.colours import legends
from corobench.leaderboard.columns import columns
from corobench.leaderboard.comparison import entry_path, entry_script, group_path, group_script
from corobench.leaderboard.curves import curves
from corobench.leaderboard.documents import ROOT, Document, render_text
from corobench.leaderboard.exports import csv_bytes, json_bytes
from corobench.leaderboard.feed import PATH as FEED
from corobench.leaderboard.feed import feed, newest_rows
from corobench.leaderboard.findings import Findings, findings
from corobench.leaderboard.gallery import CleanImages, gallery
from corobench.leaderboard.glossary import used
from corobench.leaderboard.loading import identity
from corobench.leaderboard.magnitudes import picture
from corobench.leaderboard.measures import SEGMENT_NAMES, SEGMENTS, DrawnBracket, Segment, Share
from corobench.leaderboard.method_chart import LAST
from corobench.leaderboard.parallel import in_order
from corobench.leaderboard.plot import BOTTOM, HEIGHT, LEFT, RIGHT_EDGE, SIZES, TOP, WIDTH, plot
from corobench.leaderboard.reproduction import PAPER
from corobench.leaderboard.security import CurveOf, drawing
from corobench.leaderboard.series import lines
from corobench.leaderboard.taxonomy import facets
from corobench.leaderboard.trail import (
    MEANINGS,
    Project,
    copies,
    decisions,
    flag_links,
    loading_lines,
    places,
)

#: Rows of a board that the front page shows.
NUM_FIRST = 5
#: Path of the page of findings inside the site.
FINDINGS = "findings.html"


@dataclass(frozen=True)
class Site:
    """What a site is made of beside its boards.

    Attributes:
        documents: rendered Markdown.
        clean_images: fingerprint of the data -> clean images.
        address: where the site is published, or empty.
        is_private: quick results are among those shown; every page says so.
        files: identity of a result -> its file, which is copied into the site.
        project: where weights and recipes are.
        curves: identity of a result -> more radii of it, measured cheaply.
        taken: identity of a result -> class that each of its adversarial images is taken for.
    """

    documents: tuple[Document, ...] = ()
    clean_images: Mapping[str, CleanImages] = field(default_factory=dict)
    address: str = ""
    is_private: bool = False
    files: Mapping[tuple[str, ...], Path] = field(default_factory=dict)
    project: Project = field(default_factory=lambda: Project(ROOT))
    curves: CurveOf = field(default_factory=dict)
    taken: Mapping[tuple[str, ...], Sequence[int]] = field(default_factory=dict)


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


def render_pages(groups: Sequence[Group], site: Site | None = None) -> dict[str, bytes]:
    """Every file of the site.

    Args:
        groups: in the order of the page.
        site: documents, pictures and address.

    Returns:
        Path inside the site -> content.
    """
    site = site or Site()
    found = findings(groups)
    environment = _environment(site, found)
    pages = {"index.html": _index(environment, groups, found)}
    if found:
        body, headings = render_text(found.text)
        told = {"path": FINDINGS, "found": found, "body": body, "headings": headings}
        pages[FINDINGS] = _page(environment, "findings.html", "", **told)
    for group in groups:
        clean = site.clean_images.get(group.fingerprint)
        pages[group_path(group)] = group_script(group, clean)
        for board in group.boards:
            pages |= _board_pages(environment, group, board, _siblings(groups, group, board))
        page = compare_page(group)
        pages[page] = _page(environment, "compare.html", "../", path=page, group=group)
        pages |= _entry_pages(environment, group, site)
    for document in site.documents:
        page = document.page
        pages[page] = _page(environment, "document.html", "", path=page, document=document)
    pages[FEED] = feed(groups, site.address)
    return dict(sorted((pages | assets()).items()))


def board_page(board: Board) -> str:
    """Path of a board's page inside the site."""
    return f"boards/{board.id}.html"


def compare_page(group: Group) -> str:
    """Path of a group's compare page inside the site."""
    return f"compare/{group.id}.html"


def _index(environment: Environment, groups: Sequence[Group], found: Findings | None) -> bytes:
    tracks = {group.track.name: group.track for group in groups}
    ordered = sorted(tracks.values(), key=lambda track: track.name in LAST)
    return _page(
        environment,
        "index.html",
        "",
        path="index.html",
        groups=groups,
        found=found,
        tracks=ordered,
        num_results=sum(group.num_entries for group in groups),
        example=_example(),
        newest=newest_rows(groups)[:6],
        num_first=NUM_FIRST,
    )


def _siblings(
    groups: Sequence[Group], group: Group, board: Board
) -> tuple[tuple[Group, Board], ...]:
    """Boards of the same track, protocol and radius on any data and n, this one among them."""
    return tuple(
        (other, one)
        for other in groups
        if (other.track, other.protocol) == (group.track, group.protocol)
        for one in other.boards
        if one.epsilon == board.epsilon
    )


def _board_pages(
    environment: Environment,
    group: Group,
    board: Board,
    siblings: Sequence[tuple[Group, Board]],
) -> dict[str, bytes]:
    page = board_page(board)
    listed, filters, shown = columns(board), facets(board.rows), lines(board)
    note = Notes("note")
    table = tables(environment, shown, listed, "../", note, data_of(board, shown, listed, filters))
    stem = page.removesuffix(".html")
    whole, compare = f"{stem}.all.html", f"../{compare_page(group)}"
    told = {
        "group": group,
        "board": board,
        "siblings": siblings,
        "columns": listed,
        "table": table,
        "note": note,
        "whole": whole,
        "has_ranges": any(line.is_series for line in shown),
        "has_groups": any(row.unbroken_standing for row in board.rows),
    }
    html = _page(
        environment,
        "board.html",
        "../",
        path=page,
        config=config_of(group, board, listed, filters, compare, bool(table.rest)),
        plots=[plot(board.rows, size) for size in SIZES],
        curves=curves(board.rows),
        legends=legends(board.rows),
        **told,
    )
    found = {page: html, f"{stem}.csv": csv_bytes(board), f"{stem}.json": json_bytes(board)}
    if table.rest:
        found[f"{stem}.rows.js"] = table.rest
        found[whole] = _page(environment, "board_whole.html", "../", path=whole, **told)
    return found


def _entry_pages(environment: Environment, group: Group, site: Site) -> dict[str, bytes]:
    clean = site.clean_images.get(group.fingerprint)
    template = environment.get_template("entry.html")
    boards = {board.epsilon: board for board in group.boards}

    def pages_of(rows: Sequence[Row]) -> dict[str, bytes]:
        first = rows[0]
        known, path = first.evidence, first.page
        copied = copies(first, site.files.get(identity(first.result)))
        curve = site.curves.get(identity(first.result))
        taken = site.taken.get(identity(first.result))
        html = template.render(
            root="../" * path.count("/"),
            path=path,
            group=group,
            rows=rows,
            first=first,
            boards=boards,
            classes=per_class(known, [row.epsilon for row in rows], group.track.classes)
            if known
            else [],
            gallery=gallery(first.result, known, clean, taken) if known else None,
            weights=picture(first),
            security=drawing(rows, curve),
            places=places(first, list(copied), site.project),
            loading=loading_lines(first) if copied else "",
            latex=latex_table(rows),
            bibtex=bibtex(first, site.address),
        )
        script = entry_script(list(rows), site.address, curve)
        return {**copied, path: _encode(html), entry_path(first): script}

    pages: dict[str, bytes] = {}
    for found in in_order(pages_of, list(_rows_by_page(group).values())):
        pages |= found
    return pages


def _page(environment: Environment, name: str, root: str, **context: object) -> bytes:
    return _encode(environment.get_template(name).render(root=root, **context))


def _environment(site: Site, found: Findings | None) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=text.visible,
    )
    environment.filters.update(
        percent=text.percent,
        rate_percent=text.rate_percent,
        interval=text.interval,
        short_count=text.short_count,
        short_bytes=text.short_bytes,
        round_bytes=text.round_bytes,
        grouped=text.grouped,
        duration=text.seconds,
        px=text.coordinate,
        flat=text.flat,
    )
    environment.globals.update(
        segments=SEGMENTS,
        segment_names=SEGMENT_NAMES,
        protocol=PROTOCOL,
        plot=plot,
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
        known=frozenset(KNOWN),
        board_page=board_page,
        first_rank=first_rank,
        compare_page=compare_page,
        group_path=group_path,
        documents={document.page: document.title for document in site.documents},
        is_private=site.is_private,
        has_findings=found is not None,
        identity=identity,
        paper=PAPER,
        decisions=decisions,
        flag_links=flag_links(site.documents),
        meanings=MEANINGS,
        address=site.address,
        repository=site.project.repository.rstrip("/"),
        used=used,
    )
    return environment


def _rows_by_page(group: Group) -> dict[str, list[Row]]:
    """Path of each entry's page -> its rows, one per epsilon, ascending."""
    pages: dict[str, list[Row]] = {}
    for board in group.boards:
        for row in board.rows:
            pages.setdefault(row.page, []).append(row)
    return dict(sorted(pages.items()))


def _example() -> DrawnBracket:
    """The bracket drawn in the legend: 52 proven, 13 undecided, 20 broken, 15 wrong."""
    counts = {"certified": 52, "undecided": 13, "unfinished": 0, "attacked": 20}
    counts["misclassified"] = 100 - sum(counts.values())
    segments: list[Segment] = []
    start = 0
    for key in SEGMENTS:
        segments.append(Segment(key, Share(counts[key], 100), start / 100))
        start += counts[key]
    return DrawnBracket(tuple(segments), Share(52, 100), Share(65, 100))


def _encode(page: str) -> bytes:
    return (page.rstrip() + "\n").encode("utf-8")
