"""Which results are one network trained several times: all the same but the seed of the training.

A parent may be another one, as long as the parents differ in their seed alone, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from corobench.benchmark.records.result import Result
from corobench.benchmark.records.trainings import Told, training_of
from corobench.leaderboard.loading import identity


def trainings(results: Sequence[Result]) -> dict[tuple[str, ...], str]:
    """Identity of a result -> what it has in common with its other seeds.

    Two results that say they have one seed of one training cannot both; neither counts as a seed,
    and the others still do.

    Args:
        results: that may stand in one table.

    Returns:
        Of the results alone that are there with at least two different seeds of the training.
    """
    named = {result.entry: _told(result) for result in results}
    members: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.submission.training.seed is not None:
            members[training_of(_told(result), named)].append(result)
    found: dict[tuple[str, ...], str] = {}
    for key, same in members.items():
        times = Counter(result.submission.training.seed for result in same)
        single = [one for one in same if times[one.submission.training.seed] == 1]
        if len(single) > 1:
            found |= {identity(result): key for result in single}
    return found


def _told(result: Result) -> Told:
    return result.submission, result.compactness.format
