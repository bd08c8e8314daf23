"""How many images a certifier bounds at once; sizes shrink further where memory runs out."""

from __future__ import annotations

BATCH_SIZES = {"IBP": 64, "CROWN-IBP": 64, "CROWN": 8, "alpha-CROWN": 4}
"""Images bounded at once, from measured cost per image on a CPU. Of those of CROWN, IBP's bounds
are computed at once, and `crown_together` says how many go on together."""

WIDE_HIDDEN_UNITS = 8192
"""From this many ReLU inputs per image on, CROWN bounds a layer's neurons in groups, and
alpha-CROWN one image at a time."""

CHUNK_HIDDEN_UNITS = 4_000_000
"""ReLU inputs that CROWN-IBP bounds at once, which keeps it near 2 GiB."""

NARROW_HIDDEN_UNITS = 1000
"""Up to this many ReLU inputs per image more images go together through CROWN and alpha-CROWN:
measured two and three times as fast on CNN-small at 1x8x8. On larger nets CROWN is faster one image
at a time."""

NARROW_ALPHA = 20

WIDE_GROUP_SIZE = 128
"""Neurons per group in wide nets: bounds the memory of CROWN, and is faster there."""


def batch_sizes(num_hidden: int) -> dict[str, int]:
    """Images bounded at once per certifier, for a net with so many ReLU inputs per image.

    >>> batch_sizes(500)["alpha-CROWN"], batch_sizes(5_000)["alpha-CROWN"]
    (20, 4)
    """
    sizes = dict(BATCH_SIZES)
    sizes["CROWN-IBP"] = min(sizes["CROWN-IBP"], max(1, CHUNK_HIDDEN_UNITS // max(1, num_hidden)))
    if num_hidden <= NARROW_HIDDEN_UNITS:
        sizes["alpha-CROWN"] = NARROW_ALPHA
    if num_hidden >= WIDE_HIDDEN_UNITS:
        sizes["alpha-CROWN"] = 1
    return sizes


def crown_together(num_hidden: int) -> int:
    """Images that go through CROWN itself together, for a net with so many ReLU inputs per image.

    >>> crown_together(500), crown_together(5_000)
    (8, 1)
    """
    return BATCH_SIZES["CROWN"] if num_hidden <= NARROW_HIDDEN_UNITS else 1
