"""A board as files for machines: CSV and JSON, one row per entry, with the same keys and values.

Counts are out of n. Texts of manifests are on one line, without control characters; in CSV none
can be run as a formula by a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from corobench.benchmark.scoring.statistics import Standing
from corobench.leaderboard.boards import Board, Row
from corobench.leaderboard.columns import Column, Value, columns
from corobench.leaderboard.measures import Share

#: What begins a formula in a spreadsheet.
_FORMULA = tuple("=+-@＝＋－＠\t\r")
#: Columns that stand at the start of every record, whatever else is chosen.
ALWAYS = ("seed", "parent")


def records(board: Board) -> list[dict[str, Value]]:
    """One record per entry, in the order of the board.

    Returns:
        `entry`, `title`, `seed`, `parent`, `epsilon`, `n`, `quick`, then one key per column; after
        a share of n `<key>_low` and `<key>_high`, its Wilson 95 % interval in [0, 1]; after a group
        `<key>_best` and `<key>_worst`, the ranks that the entry can hold; `weights_sha256` last.
    """
    listed = [one for one in columns(board) if one.key not in ("entry", "bracket", *ALWAYS)]
    return [_record(row, listed) for row in board.rows]


def csv_bytes(board: Board) -> bytes:
    """The board as CSV."""
    found = records(board)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_value(value) for key, value in one.items()} for one in found)
    return text.getvalue().encode()


def json_bytes(board: Board) -> bytes:
    """The board as JSON, a list of one object per entry."""
    return (json.dumps(records(board), indent=1, ensure_ascii=False) + "\n").encode()


def csv_value(value: Value) -> Value:
    """A value as it stands in a CSV file: what a spreadsheet would run gets an apostrophe.

    >>> [csv_value(value) for value in ("=1+1", "-x", "a=b", -1, None, True)]
    ["'=1+1", "'-x", 'a=b', -1, '', 'true']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _record(row: Row, listed: Sequence[Column]) -> dict[str, Value]:
    record: dict[str, Value] = {
        "entry": row.result.entry,
        "title": row.title,
        "seed": row.result.submission.training.seed,
        "parent": row.result.submission.parent,
        "epsilon": row.epsilon,
        "n": row.result.n,
        "quick": row.quick,
    }
    standings = {"group": row.standing, "group_unbroken": row.unbroken_standing}
    for column in listed:
        value = column.cell(row).value
        record[column.key] = value
        if column.key in standings:
            record |= _ranks(column.key, standings[column.key])
        elif column.is_share:
            record |= _interval(column.key, value, row.result.n)
    return record | {"weights_sha256": row.result.weights_sha256}


def _ranks(key: str, standing: Standing | None) -> dict[str, Value]:
    best, worst = (standing.best, standing.worst) if standing else (None, None)
    return {f"{key}_best": best, f"{key}_worst": worst}


def _interval(key: str, count: Value, n: int) -> dict[str, Value]:
    if not isinstance(count, int):
        return {f"{key}_low": None, f"{key}_high": None}
    low, high = Share(count, n).interval
    return {f"{key}_low": round(low, 4), f"{key}_high": round(high, 4)}
