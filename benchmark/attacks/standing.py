"""Which images of a chunk an attack has left standing, and what is attacked together.

An attack goes through its stages; in each it attacks groups of images that still stand. A group is
the unit in which its work is handed out: nothing about it depends on who attacks the others. Proven
images keep their seats (`benchmark.attacks.context.Seats`): they stand to the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Images that one part of an attack works on at once.

    Attributes:
        part: name of the part.
        places: int64, ascending places of the images in their chunk.
        standing: int64, ascending places for which the part draws random numbers; `places` are
            among them.
    """

    part: str
    places: Places
    standing: Places


class Standing:
    """What is known of the images of one chunk while an attack goes on.

    Args:
        num_seats: images in the chunk, with and without a proof.
        taken: int64, ascending places of those that are attacked.

    Attributes:
        num_broken: part -> images that it broke.
    """

    def __init__(self, num_seats: int, taken: Places) -> None:
        self.num_seats, self.taken = num_seats, np.asarray(taken, dtype=np.int64)
        self.num_broken: Counter[str] = Counter()
        self._stands = np.ones(num_seats, dtype=bool)
        self._is_asked = np.zeros(num_seats, dtype=bool)
        self._is_asked[self.taken] = True

    @property
    def places(self) -> Places:
        """Int64, ascending places of all that stand, proven ones too."""
        return np.flatnonzero(self._stands)

    @property
    def attacked(self) -> Places:
        """Int64, ascending places of those that stand and are attacked further."""
        return np.flatnonzero(self._stands & self._is_asked)

    def record(self, group: Group, broken: NDArray[np.bool_]) -> None:
        """What a group's attack found, bool of the group's length."""
        self._stands[group.places[broken]] = False
        self.num_broken[group.part] += int(np.count_nonzero(broken))

    def give_up(self, group: Group) -> None:
        """A group's attack has no answer: its images are attacked no further."""
        self._is_asked[group.places] = False


def in_batches(places: Places, size: int | None) -> list[Places]:
    """Consecutive places, so many at a time; all at once where no size is given.

    >>> [part.tolist() for part in in_batches(np.array([2, 3, 5]), 2)]
    [[2, 3], [5]]
    """
    if not len(places):
        return []
    return np.split(places, range(size or len(places), len(places), size or len(places)))
