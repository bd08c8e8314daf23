"""The lines of a board: an entry, or several seeds of one training as one line with their mean.

A mean is over all seeds; below it stands the range, never an interval. Ranks stay those of the
single entries: a line of several shows the groups and ranks that any of them can hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from corobench.benchmark.scoring.statistics import Standing
from corobench.leaderboard.boards import Board, Row, place_on_board
from corobench.leaderboard.columns import Cell, Column
from corobench.leaderboard.format import rate_percent, short_bytes, short_count

#: Columns of counts that are no share of n -> how a mean is written.
_SHOWN: dict[str, Callable[[float], str]] = {
    "nonzero": lambda value: short_count(round(value)),
    "packed": lambda value: short_bytes(round(value)),
    "macs": lambda value: short_count(round(value)),
    "times": lambda value: f"{value:.3g}×",
    "kept_clean": rate_percent,
    "kept_pgd50": rate_percent,
    "kept_autoattack": rate_percent,
    "kept_certified": rate_percent,
}
#: Columns with the place of an entry -> the standing they show.
_RANKS: dict[str, Callable[[Row], Standing | None]] = {
    "group": lambda row: row.standing,
    "group_unbroken": lambda row: row.unbroken_standing,
}


@dataclass(frozen=True)
class Line:
    """One line of a board.

    Attributes:
        rows: one entry, or its seeds in ascending order.
    """

    rows: tuple[Row, ...]

    @property
    def is_series(self) -> bool:
        return len(self.rows) > 1

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def id(self) -> str:
        """Part of the address of the board."""
        return f"seeds.{self.first.name}" if self.is_series else self.first.name

    @property
    def title(self) -> str:
        """Without a seed where there are several."""
        return self.first.plain_title if self.is_series else self.first.title

    @property
    def seeds(self) -> str:
        """The seeds, as text."""
        return ", ".join(str(row.result.submission.training.seed) for row in self.rows)

    @cached_property
    def is_certifiable(self) -> bool:
        """Whether the lower end is known of all of them."""
        return all(row.is_certifiable for row in self.rows)

    @cached_property
    def flags(self) -> dict[str, int]:
        """Flag -> how many of the rows have it, by name."""
        return dict(sorted(Counter(flag for row in self.rows for flag in row.score.flags).items()))

    @cached_property
    def segments(self) -> tuple[float, ...]:
        """Mean shares of the bar, in [0, 1], from the proven end."""
        shares = [[one.share.rate for one in row.bracket.segments] for row in self.rows]
        return tuple(sum(column) / len(self.rows) for column in zip(*shares, strict=True))

    @cached_property
    def reach(self) -> tuple[float, float]:
        """The smallest proven and the largest unbroken share, in [0, 1]."""
        brackets = [row.bracket for row in self.rows]
        return min(one.low_rate for one in brackets), max(one.not_attacked.rate for one in brackets)

    def sort_key(self) -> tuple[float, ...]:
        """The board's stated rule, on the means."""
        keys = [place_on_board(row.result, row.epsilon) for row in self.rows]
        means = (sum(map(float, column)) / len(keys) for column in zip(*keys, strict=True))  # type: ignore[arg-type]
        return float(not self.is_certifiable), *list(means)[1:]

    def cell(self, column: Column) -> Cell:
        """What a column says of the line."""
        if not self.is_series:
            return column.cell(self.first)
        if column.key == "entry":
            return Cell(self.title, self.title)
        if column.key in _RANKS:
            return self._ranks([_RANKS[column.key](row) for row in self.rows])
        cells = [column.cell(row) for row in self.rows]
        texts = list(dict.fromkeys(cell.text for cell in cells))
        values = [cell.value for cell in cells]
        if column.key == "seed":
            return Cell(f"{len(cells)} seeds", None)
        if column.kind == "text":
            return Cell("; ".join(text for text in texts if text), "")
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        if len(numbers) < len(cells):
            reason = next((cell.reason for cell in cells if cell.reason), "")
            return Cell(texts[0] if len(texts) == 1 else "—", None, "", reason)
        if not self.is_certifiable and column.key in ("certified", "bracket"):
            reason = next(cell.reason for cell in cells if cell.reason)
            return Cell("not known", None, "", f"of at least one seed: {reason}")
        if len(texts) == 1:
            return Cell(texts[0], numbers[0])
        return self._mean(column, numbers)

    def _mean(self, column: Column, numbers: Sequence[float]) -> Cell:
        n = self.first.result.n
        show: Callable[[float], str] = _SHOWN.get(column.key) or (
            lambda count: rate_percent(count / n)
        )
        mean = sum(numbers) / len(numbers)
        low, high = show(min(numbers)), show(max(numbers))
        return Cell(show(mean), round(mean, 6), f"{low}–{high}" if low != high else "")

    def _ranks(self, found: Sequence[Standing | None]) -> Cell:
        standings = [standing for standing in found if standing is not None]
        if len(standings) < len(found):
            return Cell("—", None, "", next((row.why_not_certifiable for row in self.rows), ""))
        groups = [standing.group for standing in standings]
        best = min(standing.best for standing in standings)
        worst = max(standing.worst for standing in standings)
        text = _span(min(groups), max(groups))
        return Cell(text, sum(groups) / len(groups), f"rank {_span(best, worst)}")


def lines(board: Board) -> tuple[Line, ...]:
    """The lines of a board, in its order; the seeds of one training are one line."""
    members: dict[str, list[Row]] = defaultdict(list)
    for row in board.rows:
        members[row.training or row.page].append(row)
    found = []
    for rows in members.values():
        rows.sort(key=lambda row: row.result.submission.training.seed or 0)
        found.append(Line(tuple(rows)))
    return tuple(sorted(found, key=lambda line: (line.sort_key(), line.first.page)))


def num_apart(listed: Sequence[Line]) -> int:
    """Lines at the end whose lower end is not known; 0 where that is true of all."""
    found = sum(not line.is_certifiable for line in listed)
    return found if found < len(listed) else 0


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"
