"""A histogram of weights by their magnitude: what a pruner kept, and how many zeros it left.

Bins are a quarter of a power of two wide and the same for every network, so that a network and its
dense parent can be drawn on one axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corobench.benchmark.records.sizes import Magnitudes

#: Bins per power of two.
PER_OCTAVE = 4
#: Powers of two from the smallest edge above 0 to beyond the largest float32.
SMALLEST, LARGEST = -24, 129


def magnitudes(weights: Sequence[Tensor]) -> Magnitudes:
    """The histogram of all values of some tensors.

    Args:
        weights: float tensors of any shape, finite.

    >>> found = magnitudes([torch.tensor([0.0, -1.0, 1.1, 1.5])])
    >>> found.edges, found.counts, found.num_zeros
    ((1.0, 1.18921, 1.41421, 1.68179), (2, 0, 1), 1)
    """
    edges = _ladder()
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    num_zeros = 0
    for weight in weights:
        values = weight.detach().to("cpu", torch.float64).abs().numpy().reshape(-1)
        kept = values[values != 0]
        num_zeros += len(values) - len(kept)
        bins = np.searchsorted(edges, kept, side="right") - 1
        counts += np.bincount(bins, minlength=len(counts))
    (filled,) = np.nonzero(counts)
    if not len(filled):
        return Magnitudes(num_zeros=num_zeros)
    first, last = int(filled[0]), int(filled[-1]) + 1
    return Magnitudes(
        edges=tuple(edges[first : last + 1].tolist()),
        counts=tuple(counts[first:last].tolist()),
        num_zeros=num_zeros,
    )


def _ladder() -> NDArray[np.float64]:
    """All edges, six digits each: the same numbers on every machine, and short in a file."""
    steps = range(SMALLEST * PER_OCTAVE, LARGEST * PER_OCTAVE + 1)
    return np.asarray([0.0, *(float(f"{2 ** (step / PER_OCTAVE):.6g}") for step in steps)])
