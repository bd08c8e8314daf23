"""Scorecards on the terminal, one line per entry and epsilon."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from corobench.benchmark.records.result import Result
from corobench.leaderboard.boards import Group, Row, group_results
from corobench.leaderboard.format import percent, rate_percent, short_count
from corobench.leaderboard.measures import Retention

#: Columns of a name; longer ones go on below, after a hyphen where there is one.
NAME = 17


def terminal_table(results: Sequence[Result]) -> Stack:
    """Compact tables of scorecards, sorted as the page's table of the largest epsilon.

    Args:
        results: of any tracks and n; tables of different groups follow each other.

    Returns:
        One row per entry, a line per epsilon: size, clean accuracy, the bracket, AutoAttack, and
        what is kept of the dense parent. "?" for the lower end: it is not known, as certifiers
        could not be asked. Fits 80 columns.
    """
    tables = [_table(group) for group in group_results(results)]
    if tables:
        tables[-1].caption = "percent of n; kept of the dense parent: AutoAttack/proven"
    return Stack(*(part for table in tables for part in (table, Text())))


def _table(group: Group) -> Table:
    words = (group.track.name, f"n = {group.n}", group.kind, f"protocol {group.protocol}")
    table = Table(
        title=Text(", ".join(words), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        show_edge=False,
        caption_justify="left",
    )
    table.add_column("entry", overflow="fold", min_width=10)
    table.add_column("non-\nzero", justify="right", no_wrap=True)
    table.add_column("packed\nkB", justify="right", no_wrap=True)
    table.add_column("clean", justify="right", no_wrap=True)
    table.add_column("eps", no_wrap=True)
    table.add_column("proven–\nunbroken", justify="right", no_wrap=True)
    table.add_column("Auto\nAttack", justify="right", no_wrap=True)
    table.add_column("kept\nAA/prov.", justify="right", no_wrap=True)
    for rows in _by_entry(group):
        _add_entry(table, rows)
    return table


def _by_entry(group: Group) -> list[list[Row]]:
    """Rows of each entry, ascending epsilons; entries in the order of the largest epsilon."""
    entries: dict[str, list[Row]] = {}
    for board in reversed(group.boards):
        for row in board.rows:
            entries.setdefault(row.page, []).insert(0, row)
    return list(entries.values())


def _add_entry(table: Table, rows: Sequence[Row]) -> None:
    result = rows[0].result
    compactness = result.compactness
    lines = [_at_epsilon(row) for row in rows]
    cells = (
        "\n".join(textwrap.wrap(result.entry, NAME)),
        short_count(compactness.num_nonzero),
        _kilobytes(compactness.bytes_stored),
        percent(rows[0].clean),
        *("\n".join(column) for column in zip(*lines, strict=True)),
    )
    table.add_row(*(Text(cell) for cell in cells))


def _at_epsilon(row: Row) -> tuple[str, str, str, str]:
    certified = row.bracket.certified
    low = percent(certified) if certified and row.is_certifiable else "?"
    kept = f"{_kept(row.retention['autoattack'])}/{_kept(row.retention['certified'])}"
    return row.epsilon, f"{low}–{percent(row.bracket.not_attacked)}", percent(row.autoattack), kept


def _kilobytes(count: int) -> str:
    return f"{count / 1000:.1f}" if count < 1_000_000 else f"{count / 1000:.0f}"


def _kept(retention: Retention) -> str:
    return "—" if retention.ratio is None else rate_percent(retention.ratio)
