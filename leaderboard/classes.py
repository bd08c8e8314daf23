"""Counts per class: where an entry is right, proven right, and broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corobench.leaderboard.evidence import EntryEvidence
from corobench.leaderboard.measures import Share


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
        name: of the class.
        clean: right without an attack, of the images of this class.
        certified: proven right, per epsilon.
        not_attacked: unbroken, that is, not broken and not wrong, per epsilon.
    """

    name: str
    clean: Share
    certified: tuple[Share, ...]
    not_attacked: tuple[Share, ...]


def per_class(
    evidence: EntryEvidence, epsilons: Sequence[str], classes: Sequence[str]
) -> list[ClassRow]:
    """One row per class that occurs among the images, in label order.

    Args:
        evidence: outcomes image by image.
        epsilons: keys of ``evidence.epsilons``, in the order of the columns.
        classes: names by label.
    """
    all_K = _per_label(evidence.labels, len(classes))
    wrong_K = _counted(evidence, epsilons[0], "m", len(classes))
    certified_EK = [_counted(evidence, epsilon, "c", len(classes)) for epsilon in epsilons]
    lost_EK = [_counted(evidence, epsilon, "am", len(classes)) for epsilon in epsilons]
    return [
        ClassRow(
            name=name,
            clean=Share(n - wrong_K[label], n),
            certified=tuple(Share(count_K[label], n) for count_K in certified_EK),
            not_attacked=tuple(Share(n - count_K[label], n) for count_K in lost_EK),
        )
        for label, (name, n) in enumerate(zip(classes, all_K, strict=True))
        if n
    ]


def _counted(evidence: EntryEvidence, epsilon: str, letters: str, num_classes: int) -> list[int]:
    """Per class (K,) the images whose outcome is one of these letters."""
    return _per_label(evidence.labels[evidence.is_right(epsilon, letters)], num_classes)


def _per_label(labels: NDArray[np.int16], num_classes: int) -> list[int]:
    counts: list[int] = np.bincount(labels, minlength=num_classes).tolist()
    return counts
