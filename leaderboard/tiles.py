"""The best entry of each size class of one board: what fits into so many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corobench.leaderboard.boards import Row

#: Packed bytes that an entry must stay below.
SIZE_CLASSES = (25_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Tile:
    """One size class.

    Attributes:
        limit_bytes: its entries are packed into fewer.
        row: the best one by proven, or None where the board has none so small.
    """

    limit_bytes: int
    row: Row | None


def tiles(rows: Sequence[Row]) -> tuple[Tile, ...]:
    """One tile per size class, smallest first.

    Args:
        rows: of one board, best by proven first.
    """
    return tuple(Tile(limit, _best(rows, limit)) for limit in SIZE_CLASSES)


def _best(rows: Sequence[Row], limit_bytes: int) -> Row | None:
    small = (row for row in rows if row.result.compactness.bytes_packed < limit_bytes)
    return next((row for row in small if row.is_certifiable), None)
