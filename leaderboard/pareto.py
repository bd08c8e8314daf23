"""The Pareto front of size and robustness when the robust accuracy is known as a bracket only.

An entry is *beaten* where another one that is not larger is more robust beyond doubt: the lower
end of the other's interval around its certified share lies above the upper end of this one's
interval around its unbroken share. Whatever is not beaten may be on the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple


class Known(NamedTuple):
    """Size of an entry and what is known of its robust accuracy.

    Attributes:
        size: at least 0, smaller is better.
        low: proven lower end with its uncertainty, in [0, 1].
        high: upper end with its uncertainty, in [0, 1].
    """

    size: float
    low: float
    high: float


class Step(NamedTuple):
    """From this size on, the best robust accuracy is at least `low` and at most `high`."""

    size: float
    low: float
    high: float


def beaten(entries: Sequence[Known]) -> list[bool]:
    """Per entry whether another one, not larger, is more robust beyond doubt.

    >>> beaten([Known(10, 0.8, 0.9), Known(20, 0.5, 0.7), Known(20, 0.7, 0.95)])
    [False, True, False]
    """
    lost = [False] * len(entries)
    order = sorted(range(len(entries)), key=lambda index: entries[index].size)
    highest_low = -1.0
    for _, same in groupby(order, key=lambda index: entries[index].size):
        members = list(same)
        highest_low = max(highest_low, *(entries[index].low for index in members))
        for index in members:
            lost[index] = highest_low > entries[index].high
    return lost


def front(entries: Sequence[Known]) -> list[Step]:
    """The band in which the true front lies, as steps of growing size.

    >>> front([Known(10, 0.5, 0.6), Known(20, 0.4, 0.9), Known(30, 0.2, 0.3)])
    [Step(size=10, low=0.5, high=0.6), Step(size=20, low=0.5, high=0.9)]
    """
    steps: list[Step] = []
    for entry in sorted(entries):
        low = max(entry.low, steps[-1].low if steps else 0.0)
        high = max(entry.high, steps[-1].high if steps else 0.0)
        if steps and (low, high) == (steps[-1].low, steps[-1].high):
            continue
        if steps and steps[-1].size == entry.size:
            steps[-1] = Step(entry.size, low, high)
        else:
            steps.append(Step(entry.size, low, high))
    return steps
