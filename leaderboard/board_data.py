"""What the script of a board reads: what the board is, and the numbers and filters of its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from corobench.leaderboard.boards import Board, Group, Row
from corobench.leaderboard.colours import family_codes
from corobench.leaderboard.columns import Column
from corobench.leaderboard.comparison import group_path
from corobench.leaderboard.glossary import SHORT
from corobench.leaderboard.series import Line
from corobench.leaderboard.taxonomy import Facet, facet_values

#: Parts of the column chooser -> keys; a certifier's column is in "Proven by".
ABOUT = {
    "Place": ("group", "group_unbroken"),
    "Entry": ("entry", "method", "objective", "architecture", "authors", "seed", "parent"),
    "Size": ("times", "nonzero", "live", "epochs", "packed", "macs"),
    "Accuracy": ("clean", "bracket", "certified", "not_attacked", "pgd50", "autoattack"),
    "Proven by": (),
    "Outcomes": ("undecided", "unfinished", "attacked", "misclassified"),
    "Kept of the parent": ("kept_clean", "kept_pgd50", "kept_autoattack", "kept_certified"),
    "Evaluation": ("flags", "extra", "date", "protocol"),
}


def first_rank(board: Board) -> str:
    """By what a board is ranked until a reader chooses: proven, where anything is known of it."""
    return "proven" if any(row.is_certifiable for row in board.rows) else "unbroken"


def data_of(
    board: Board, shown: Sequence[Line], listed: Sequence[Column], filters: Sequence[Facet]
) -> Callable[[Line, Row | None], dict[str, object]]:
    """What the script of a board reads of its rows; see `board_rows.tables`."""
    has_series = any(line.is_series for line in shown)
    places = {row.name: place for place, row in enumerate(board.rows)}

    def data(line: Line, row: Row | None) -> dict[str, object]:
        if row is None:
            return {"v": _values(line, listed)}
        found: dict[str, object] = {"of": line.id} if line.is_series else {}
        found |= {"n": places[row.name]} if has_series else {}
        return found | {"f": _facet_codes(row, filters), "v": _values(Line((row,)), listed)}

    return data


def about(column: Column) -> str:
    """The part of the column chooser that a column is in.

    Raises:
        KeyError: a column that :data:`ABOUT` does not know.
    """
    if column.key.startswith("by_"):
        return "Proven by"
    return {key: part for part, keys in ABOUT.items() for key in keys}[column.key]


def config_of(
    group: Group,
    board: Board,
    listed: Sequence[Column],
    filters: Sequence[Facet],
    compare: str,
    has_rest: bool,
) -> str:
    """What the script of a board must know, as JSON.

    Args:
        group, board: of the page.
        listed: columns, in order.
        filters: in order.
        compare: path from the page to that on which entries are compared.
        has_rest: whether rows stand in a file of their own.
    """
    record = {
        "board": board.id,
        "group": group.id,
        "epsilon": board.epsilon,
        "n": group.n,
        "quick": group.quick,
        "ranked": group.ranked,
        "rank": first_rank(board),
        "rest": has_rest,
        "compare": compare,
        "data": f"../{group_path(group)}",
        "words": SHORT,
        "families": family_codes(board.rows),
        "parts": [part for part in ABOUT if any(about(column) == part for column in listed)],
        "columns": [
            {
                "key": column.key,
                "title": column.title,
                "about": about(column),
                "kind": column.kind,
                "shown": column.shown,
                "first": column.best_first,
                "share": column.is_share,
            }
            for column in listed
        ],
        "facets": [
            {"key": facet.key, "title": facet.title, "values": facet.values} for facet in filters
        ],
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _facet_codes(row: Row, filters: Sequence[Facet]) -> str:
    """Per facet the place of the row's value in it, as the letter with that number from "0" on."""
    values = facet_values(row)
    return "".join(chr(48 + facet.values.index(values[facet.key])) for facet in filters)


def _values(line: Line, listed: Sequence[Column]) -> str:
    """The numbers of a line, separated by commas; nothing where there is none."""
    cells = [line.cell(column).value for column in listed if column.kind == "number"]
    return ",".join("" if value is None else str(value) for value in cells)
