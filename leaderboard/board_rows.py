"""The rows of a board's table: HTML for readers, and a packed script for what a large board adds.

A page of up to :data:`MOST` lines has all of them. A larger one has the first :data:`FIRST`; its
script adds the others, which travel gzipped in a file of their own. Without scripts all rows stand
on a second page, without what only the script reads. So a board of 1,000 entries loads less than
1 MB either way.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from corobench.leaderboard.boards import Row
from corobench.leaderboard.columns import Column
from corobench.leaderboard.series import Line, num_apart

#: Lines of a board that is one page.
MOST = 300
#: Lines that stand in the page of a larger board, as many as its script shows at once.
FIRST = 100

#: Flag -> what follows its name.
Flags = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tables:
    """The body of a board's table.

    Attributes:
        first: HTML that stands in the board's page.
        rest: script with the other rows; empty where there are none.
        whole: HTML of all rows without what a script reads; empty where the page has all.
        num_first: entries in `first`.
    """

    first: Markup
    rest: bytes
    whole: Markup
    num_first: int


def tables(
    environment: Environment,
    shown: Sequence[Line],
    columns: Sequence[Column],
    root: str,
    note: object,
    data: Callable[[Line, Row | None], Mapping[str, object]],
) -> Tables:
    """The body of a board's table.

    Args:
        environment: of the templates.
        shown: lines of the board, in order.
        columns: in order.
        root: path from the page to the site.
        note: collects footnotes, in the order of their first use.
        data: what the script reads of a line of several seeds (with None), or of one row.
    """
    module: Any = environment.get_template("board_rows.html").make_module(
        {"columns": columns, "root": root, "note": note, "told": told}
    )
    apart, nothing = num_apart(shown), Markup("")
    full, bare = [], []
    for place, line in enumerate(shown):
        is_first_apart = bool(apart) and place == len(shown) - apart
        parting = module.parting(apart) + "\n" if is_first_apart else nothing
        of_line: list[Row | None] = [None] if line.is_series else []
        rows = [_row(module, line, row, data) for row in [*of_line, *line.rows]]
        full.append(parting + nothing.join(with_data for with_data, _ in rows))
        bare.append(parting + nothing.join(without for _, without in rows))
    if len(shown) <= MOST:
        return Tables(nothing.join(full), b"", nothing, sum(len(line.rows) for line in shown))
    return Tables(
        first=nothing.join(full[:FIRST]),
        rest=packed("rows", "".join(full[FIRST:])),
        whole=nothing.join(bare),
        num_first=sum(len(line.rows) for line in shown[:FIRST]),
    )


def told(one: Row | Line) -> Flags:
    """The flags of a row, or of a line with how many of its seeds have each."""
    if isinstance(one, Row):
        return tuple((flag, "") for flag in one.score.flags)
    return tuple((flag, f" {count}/{len(one.rows)}") for flag, count in one.flags.items())


def packed(name: str, text: str) -> bytes:
    """A script that sets ``corobench.<name>`` to a text, gzipped and in base64."""
    code = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return f'(window.corobench ??= {{}}).{name} = "{code}";\n'.encode()


def _row(
    module: Any,
    line: Line,
    row: Row | None,
    data: Callable[[Line, Row | None], Mapping[str, object]],
) -> tuple[Markup, Markup]:
    """A row of the table with what the script reads, and without."""
    one = line if row is None else row
    parts = ["series"] if row is None else ["seed"] if line.is_series else []
    parts += [] if one.is_certifiable else ["apart"]
    name = line.id if row is None else row.name
    start = Markup('<tr id="{}"').format(name)
    start += Markup(' class="{}"').format(" ".join(parts)) if parts else Markup("")
    read = Markup("").join(
        Markup(' data-{}="{}"').format(key, value) for key, value in data(line, row).items()
    )
    cells = module.series(line) if row is None else module.entry(row)
    end = Markup(">") + cells + Markup("\n")
    return start + read + end, start + end
