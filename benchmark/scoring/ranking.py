"""What is said about a scorecard: its bracket, its place on a board, whether it may be published.

A rule here changes no result, so this module is no part of the engine's version. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from corobench.benchmark.files.atomic import canonical_json
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.result import EpsilonScore, Outcome, Result
from corobench.benchmark.tracks import Protocol, get_track, round_of, settings_of

#: Settings of round 1.0, and of results of 1.1 from before it asked by a budget of arithmetic.
_REPLACED: dict[str, object] = {"crown_max_hidden_units": 20_000}


class Bracket(NamedTuple):
    """Bounds on the true robust accuracy, as counts out of n: ``low <= true <= high``."""

    low: int
    high: int


def bracket(score: EpsilonScore) -> Bracket:
    """The bracket of one epsilon: proven right, and not known to be wrong.

    ``timeout`` and ``error`` widen it: without an answer the truth may be either.

    >>> counts = {Outcome.CERTIFIED: 5, Outcome.ATTACKED: 2, Outcome.UNDECIDED: 3}
    >>> bracket(EpsilonScore(counts=counts, pgd50=8, autoattack=8, certified_by={}))
    Bracket(low=5, high=8)
    """
    counts = score.counts
    wrong = counts.get(Outcome.MISCLASSIFIED, 0) + counts.get(Outcome.ATTACKED, 0)
    return Bracket(counts.get(Outcome.CERTIFIED, 0), sum(counts.values()) - wrong)


def rank_key(result: Result, epsilon: str) -> tuple[int, int, int]:
    """What boards are sorted by, best first: more certified, then more not attacked, then fewer
    non-zeros. An entry that no certifier was asked of comes after one with no proof.
    """
    one = result.epsilons[epsilon]
    low, high = bracket(one)
    return -(low if was_asked(one) else -1), -high, result.compactness.num_nonzero


def was_asked(score: EpsilonScore) -> bool:
    """Whether any certifier was asked; else nothing is known of what is proven, which is not 0."""
    return any(count is not None for count in score.certified_by.values())


def why_unpublished(result: Result) -> list[str]:
    """Every reason why a result may not be published; empty for one that may.

    The file's own word is not enough: n, epsilons and settings are compared with those of the
    track and the protocol. Mirror data and frozen entries are published and stand apart.
    """
    track = get_track(result.track)
    reasons = []
    if result.quick:
        reasons.append("quick: true; quick results are for CI and never ranked")
    if not track.is_ranked(result.n):
        ranked = ", ".join(map(str, track.subsets[1:]))
        reasons.append(f"n: expected a ranked subset ({ranked}), but found {result.n}")
    if set(result.epsilons) != set(track.epsilons):
        reasons.append(
            f"epsilons: expected {', '.join(track.epsilons)}, but found "
            f"{', '.join(result.epsilons) or 'none'}"
        )
    if result.identity != identity_of(result):
        reasons.append(
            "identity: not that of its protocol, track, n, epsilons, data, architecture, "
            "weights_sha256, settings, seed, versions and device"
        )
    if other := other_settings(result):
        reasons.append(f"settings: not those of protocol {result.protocol}: {', '.join(other)}")
    return reasons


def other_settings(result: Result) -> list[str]:
    """Names of the settings that are not those of the protocol, whichever round it is of.

    Both rounds have the same; the third number of a version changes no result.
    """
    expected = _REPLACED | settings_of(Protocol(), get_track(result.track))
    found = _REPLACED | result.settings
    version = found.get("version")
    is_other = not isinstance(version, str) or round_of(version) != round_of(result.protocol)
    keys = sorted({*expected, *found} - {"version"})
    others = [key for key in keys if _text(found, key) != _text(expected, key)]
    return [*others, "version"] if is_other else others


def _text(settings: Mapping[str, object], key: str) -> str:
    """A setting as it stands in a file: 50.0 is not 50, and null is not a missing key."""
    return canonical_json(settings[key]) if key in settings else ""


def may_rank(result: Result) -> bool:
    """Whether n, epsilons and settings are public; the file's own word alone is not enough.

    A frozen entry, whose audit found a contradiction, is never ranked.
    """
    return not why_unpublished(result) and not result.is_frozen
