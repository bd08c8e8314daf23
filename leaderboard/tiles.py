"""The best entry of each size class of one board: what fits into so many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corobench.leaderboard.boards import Row

#: Stored bytes that an entry must stay below.
SIZE_CLASSES = (25_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Tile:
    """One size class.

    Attributes:
        limit_bytes: its entries are packed into fewer.
        row: the best one by proven, or None where the board has none so small.
        num_tied: others of its size in its group by proven: its lead over them is not shown.
    """

    limit_bytes: int
    row: Row | None
    num_tied: int = 0


def tiles(rows: Sequence[Row]) -> tuple[Tile, ...]:
    """One tile per size class, smallest first.

    Args:
        rows: of one board, best by proven first.
    """
    return tuple(_tile(rows, limit) for limit in SIZE_CLASSES)


def _tile(rows: Sequence[Row], limit_bytes: int) -> Tile:
    known = [row for row in rows if row.is_certifiable]
    small = [row for row in known if row.result.compactness.bytes_stored < limit_bytes]
    if not small:
        return Tile(limit_bytes, None)
    best = small[0].standing
    tied = [row for row in small[1:] if best and row.standing and row.standing.group == best.group]
    return Tile(limit_bytes, small[0], len(tied))
