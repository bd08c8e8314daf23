"""How many images must be attacked so that a forger who hides some is hardly ever missed.

Of `population` images that a result claims to be unbroken without a proof, a forger lied about
`hidden`. `drawn` of them are attacked, chosen at random without replacement, so the number of lies
among them is hypergeometric, and the chance to draw none is

    C(population - hidden, drawn) / C(population, drawn)

Imports no torch; `python perf/forger_chance.py` simulates it.
"""

from __future__ import annotations

import math

#: Share of all images of a result that a forger hides, and the chance to miss all of them.
HIDDEN_RATE = 0.01
MISS_RATE = 0.05
#: So many are attacked in any case, all of them where there are fewer: a few images are soon done.
MIN_DRAWN = 50


def num_hidden(n: int, hidden_rate: float) -> int:
    """The fewest lies that are to be found: a share of the n images of a result, at least one.

    >>> num_hidden(500, 0.01), num_hidden(1000, 0.01), num_hidden(60, 0.01)
    (5, 10, 1)
    """
    return max(1, math.ceil(hidden_rate * n - 1e-9))


def chance_to_miss(population: int, hidden: int, drawn: int) -> float:
    """The chance that a draw without replacement holds none of the hidden images.

    Args:
        population: images to draw from.
        hidden: of those, the ones that a forger lied about.
        drawn: images that are attacked.

    >>> chance_to_miss(4, 1, 1), chance_to_miss(4, 2, 3), chance_to_miss(10, 3, 0)
    (0.75, 0.0, 1.0)
    """
    missed = 1.0
    for place in range(hidden):
        missed *= max(0, population - drawn - place) / (population - place)
    return missed


def num_drawn(population: int, hidden: int, miss_rate: float) -> int:
    """The fewest images to attack so that `hidden` lies are missed with at most `miss_rate`.

    A forger cannot hide more images than there are.

    Args:
        population: images that are claimed to be unbroken without a proof.
        hidden: lies that are to be found.
        miss_rate: largest chance to miss all of them, in (0, 1).

    >>> num_drawn(400, 10, 0.05), num_drawn(3, 10, 0.05), num_drawn(0, 10, 0.05)
    (103, 3, 0)
    """
    hidden = min(hidden, population)
    low, high = min(MIN_DRAWN, population), population
    while low < high:
        middle = (low + high) // 2
        if chance_to_miss(population, hidden, middle) <= miss_rate:
            high = middle
        else:
            low = middle + 1
    return low
