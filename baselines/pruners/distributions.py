"""How many weights each layer may keep, where layers do not all keep the same share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction


def erdos_renyi_kernel(
    shapes: Mapping[str, Sequence[int]], capacities: Mapping[str, int], num_kept: int
) -> dict[str, int]:
    """Kept weights of each layer in proportion to the sum of its weight's sides (ERK).

    The share kept of a layer is proportional to (n_in + n_out + width + height) divided by their
    product (Evci et al. 2020, on sparsity distributions; Mocanu et al. 2018 without the
    kernel). So wide layers keep a smaller share than narrow ones. A layer that would keep more
    than it has is full, and the others share the rest in the same proportion.

    Args:
        shapes: of each layer's weight.
        capacities: the most that a layer can keep: its weights that are not removed yet.
        num_kept: over all layers; at most the sum of the capacities.

    Returns:
        Kept weights by layer, whole numbers that add up to `num_kept`: what is left after rounding
        down goes to the largest remainders.

    >>> erdos_renyi_kernel({"a": (4, 6), "b": (16, 4)}, {"a": 24, "b": 64}, 12)
    {'a': 4, 'b': 8}
    """
    return shared_out({name: sum(shape) for name, shape in shapes.items()}, capacities, num_kept)


def shared_out(
    shares: Mapping[str, int | Fraction], capacities: Mapping[str, int], num_kept: int
) -> dict[str, int]:
    """Whole numbers in proportion to shares, none above its capacity.

    Args:
        shares: by layer, above 0.
        capacities: by layer.
        num_kept: what the numbers add up to, or the sum of the capacities where that is less.

    >>> shared_out({"a": 1, "b": 1, "c": 2}, {"a": 2, "b": 9, "c": 9}, 12)
    {'a': 2, 'b': 3, 'c': 7}
    """
    num_kept = min(num_kept, sum(capacities.values()))
    full: set[str] = set()
    while True:
        rest = num_kept - sum(capacities[name] for name in full)
        open_ones = [name for name in shares if name not in full]
        whole = sum((Fraction(shares[name]) for name in open_ones), Fraction())
        quotas = {name: rest * Fraction(shares[name]) / whole for name in open_ones}
        over = {name for name, quota in quotas.items() if quota > capacities[name]}
        if not over:
            break
        full |= over
    counts = {name: capacities[name] if name in full else 0 for name in shares}
    counts |= {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: num_kept - sum(counts.values())]:
        counts[name] += 1
    return counts
