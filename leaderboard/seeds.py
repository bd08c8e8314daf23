"""Which results are one network trained several times: all the same but the seed of the training.

A parent may be another one, as long as the parents differ in their seed alone, too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from corobench.benchmark.records.result import Result
from corobench.leaderboard.loading import identity

#: What two seeds of one training may say differently.
_FREE = {"id", "parent", "links", "description"}


def trainings(results: Sequence[Result]) -> dict[tuple[str, ...], str]:
    """Identity of a result -> what it has in common with its other seeds.

    Args:
        results: that may stand in one table.

    Returns:
        Of the results alone that are there with at least two different seeds of the training.
    """
    named = {result.entry: result for result in results}
    members: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.submission.training.seed is not None:
            members[_key(result, named, set())].append(result)
    found: dict[tuple[str, ...], str] = {}
    for key, same in members.items():
        seeds = [result.submission.training.seed for result in same]
        if len(same) > 1 and len(set(seeds)) == len(seeds):
            found |= {identity(result): key for result in same}
    return found


def _key(result: Result, named: dict[str, Result], seen: set[str]) -> str:
    submission = result.submission
    record = submission.model_dump(mode="json", exclude={*_FREE, "training"})
    record["training"] = submission.training.model_dump(mode="json", exclude={"seed"})
    record["format"] = result.compactness.format
    parent = submission.parent
    if parent is not None:
        above = named.get(parent) if parent not in seen else None
        record["parent"] = _key(above, named, {*seen, parent}) if above else parent
    return json.dumps(record, sort_keys=True)
