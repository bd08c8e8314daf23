"""Whether the lower end of a bracket says something of the network. Imports no torch."""

from __future__ import annotations

from corobench.benchmark.records.result import EpsilonScore
from corobench.benchmark.scoring.ranking import bracket


def is_lower_end_known(score: EpsilonScore) -> bool:
    """Whether the proven share says something of the network.

    It says nothing where nothing is proven, images are left, and a certifier was not asked: such an
    entry may be as robust as its upper end. Where every image is broken or wrong, 0 is the truth.
    """
    low, high = bracket(score)
    asked = [count for name, count in score.certified_by.items() if name != "cascade"]
    return low > 0 or low == high or (bool(asked) and None not in asked)
