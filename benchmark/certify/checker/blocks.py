"""Rows cut into parts that stay in the cache of a core while several passes go over them.

Shape suffixes: B images, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from corobench.benchmark.certify.checker.rounding import Array

_BYTES = 2**19

Block = tuple[slice, slice]
"""Which rows, and which of what comes next: of the channels of a map, or of the values; of one
value per image nothing comes next."""


def blocks(rows: Array) -> Iterator[tuple[Block, Array]]:
    """All of `rows` (B, R, ...) once, each part with where it is.

    They are cut along the axis that is further apart in memory.
    """
    axis = 1 if rows.ndim == 2 or rows.strides[1] >= rows.strides[2] else 2
    size = max(1, _BYTES * rows.shape[axis] // max(1, rows.nbytes))
    everything = slice(None)
    for start in range(0, rows.shape[axis], size):
        some = slice(start, start + size)
        at = (some, everything) if axis == 1 else (everything, some)
        yield at, part_of(rows, at)


def part_of(values: Array, at: Block) -> Array:
    """The same part of what is broadcast to rows: (B, R, ...), with 1 for any of them."""
    found = values if values.shape[1] == 1 else values[:, at[0]]
    return found if found.ndim == 2 or found.shape[2] == 1 else found[:, :, at[1]]
