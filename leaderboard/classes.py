"""Counts per class: where an entry is right, proven right, and broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboard.evidence import Evidence
from leaderboard.measures import Share


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
        name: of the class.
        clean: right without an attack, of the images of this class.
        certified: proven right, per epsilon.
        not_attacked: not broken and not wrong, per epsilon.
    """

    name: str
    clean: Share
    certified: tuple[Share, ...]
    not_attacked: tuple[Share, ...]


def per_class(
    evidence: Evidence, epsilons: Sequence[str], classes: Sequence[str]
) -> list[ClassRow]:
    """One row per class that occurs among the images, in label order.

    Args:
        evidence: outcomes image by image.
        epsilons: keys of ``evidence.epsilons``, in the order of the columns.
        classes: names by label.
    """
    rows = []
    right = evidence.epsilons[epsilons[0]].letters != "m"
    for label, name in enumerate(classes):
        here = evidence.labels == label
        n = int(here.sum())
        if n == 0:
            continue
        letters = [evidence.epsilons[epsilon].letters[here] for epsilon in epsilons]
        rows.append(
            ClassRow(
                name=name,
                clean=Share(int(right[here].sum()), n),
                certified=tuple(Share(int((row == "c").sum()), n) for row in letters),
                not_attacked=tuple(
                    Share(n - int(np.isin(row, ["a", "m"]).sum()), n) for row in letters
                ),
            )
        )
    return rows
