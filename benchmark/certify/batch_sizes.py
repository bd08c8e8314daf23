"""How many images a certifier bounds at once; sizes shrink further where memory runs out."""

from __future__ import annotations

BATCH_SIZES = {"IBP": 64, "CROWN-IBP": 64, "CROWN": 8}
"""Images bounded at once, from measured cost per image on a CPU. Of those of CROWN, IBP's bounds
are computed at once, and `crown_together` says how many go on together."""

WIDE_HIDDEN_UNITS = 8192
"""From this many hidden units per image on, CROWN bounds a layer's neurons in groups."""

CHUNK_HIDDEN_UNITS = 4_000_000
"""hidden units that CROWN-IBP bounds at once, which keeps it near 2 GiB."""

NARROW_HIDDEN_UNITS = 1000
"""Up to this many hidden units per image more images go together through CROWN: measured twice as
fast on CNN-small at 1x8x8. On larger nets CROWN is faster one image at a time."""

LIBRARY_CROWN_MACS = 5_000_000_000
"""Up to this many multiply-adds for all neurons of an image the library claims with CROWN. Above it
needs gigabytes, and the checker, which bounds open neurons alone, is asked without a claim."""

WIDE_GROUP_SIZE = 128
"""Neurons per group in wide nets: bounds the memory of CROWN, and is faster there."""


def batch_sizes(num_hidden: int) -> dict[str, int]:
    """Images bounded at once per certifier, for a net with so many hidden units per image.

    >>> batch_sizes(500)["CROWN-IBP"], batch_sizes(400_000)["CROWN-IBP"]
    (64, 10)
    """
    sizes = dict(BATCH_SIZES)
    sizes["CROWN-IBP"] = min(sizes["CROWN-IBP"], max(1, CHUNK_HIDDEN_UNITS // max(1, num_hidden)))
    return sizes


def crown_together(num_hidden: int) -> int:
    """Images that go through CROWN itself together, for a net with so many hidden units per image.

    >>> crown_together(500), crown_together(5_000)
    (8, 1)
    """
    return BATCH_SIZES["CROWN"] if num_hidden <= NARROW_HIDDEN_UNITS else 1
