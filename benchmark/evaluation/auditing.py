"""Which certified images are attacked all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.evaluation.facts import BoolArray
from corobench.benchmark.tracks import derive_seed


def audit_seed(seed: int, track: str, certifiers: Sequence[str]) -> int:
    """The seed of an audit of what these certifiers proved."""
    return derive_seed(seed, track, "audit:" + "+".join(certifiers))


def drawn(
    proven: Mapping[str, BoolArray], num_images: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Rows to attack per radius, the largest radius first; each row at one radius at most.

    Args:
        proven: radius, ascending -> bool (n,), what was proven there.
        num_images: so many in all, or all that are proven.
        seed: of the draw.

    >>> proven = {"1/16": np.array([True, True]), "2/16": np.array([False, True])}
    >>> {epsilon: rows.tolist() for epsilon, rows in drawn(proven, 5, 0).items()}
    {'2/16': [1], '1/16': [0]}
    """
    draw = np.random.default_rng(seed)
    taken, found = np.zeros(len(next(iter(proven.values()))), dtype=bool), {}
    for epsilon in reversed(list(proven)):
        num_left = num_images - int(taken.sum())
        chosen = draw.permutation(np.flatnonzero(proven[epsilon] & ~taken))[:num_left]
        found[epsilon], taken[chosen] = chosen, True
    return found
