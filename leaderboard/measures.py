"""Counts out of n -> what a board shows: shares with intervals, the bracket, retention."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from corobench.benchmark.records.result import EpsilonScore, Outcome, Result
from corobench.benchmark.scoring import ranking
from corobench.benchmark.scoring.known import is_lower_end_known as is_lower_end_known
from corobench.benchmark.scoring.statistics import MIN_PARENT_COUNT, Interval, wilson

#: Segments of the bracket from the proven end to the wrong end: key -> outcomes it holds.
SEGMENTS: dict[str, tuple[Outcome, ...]] = {
    "certified": (Outcome.CERTIFIED,),
    "undecided": (Outcome.UNDECIDED,),
    "unfinished": (Outcome.TIMEOUT, Outcome.ERROR),
    "attacked": (Outcome.ATTACKED,),
    "misclassified": (Outcome.MISCLASSIFIED,),
}

#: The same in words.
SEGMENT_NAMES = {
    "certified": "proven",
    "undecided": "undecided",
    "unfinished": "timeout or error",
    "attacked": "broken",
    "misclassified": "misclassified",
}


#: Training objectives whose networks are made to be verified.
VERIFIABLE = ("ibp", "crown-ibp", "mixtrain", "sabr", "mtl-ibp", "ad-cert", "feature-cert")
#: Accuracies that are also told as a share of the dense parent's.
KEPT = ("clean", "pgd50", "autoattack", "certified")


@dataclass(frozen=True)
class Share:
    """`count` of `n` images.

    >>> Share(8, 10).rate
    0.8
    """

    count: int
    n: int

    @property
    def rate(self) -> float:
        return self.count / self.n

    @property
    def interval(self) -> Interval:
        """Wilson 95 % interval, both ends in [0, 1]."""
        return _wilson(self.count, self.n)


@dataclass(frozen=True)
class Segment:
    """One part of the bar: its share and where it starts, in [0, 1]."""

    key: str
    share: Share
    start_rate: float

    @property
    def name(self) -> str:
        return SEGMENT_NAMES[self.key]


@dataclass(frozen=True)
class DrawnBracket:
    """What is known of the true robust accuracy: proven <= true <= unbroken.

    Attributes:
        segments: parts of the bar; their counts add up to n.
        certified: the lower end, proven right; None where no certifier was asked.
        not_attacked: the upper end, unbroken: n less misclassified and attacked.
    """

    segments: tuple[Segment, ...]
    certified: Share | None
    not_attacked: Share

    @property
    def low_rate(self) -> float:
        """The lower end in [0, 1]; 0 where nothing was proven or asked."""
        return self.certified.rate if self.certified else 0.0

    @property
    def width_rate(self) -> float:
        """The width of the bracket in [0, 1]: what neither side could decide."""
        return self.not_attacked.rate - self.low_rate

    @property
    def low_interval_rate(self) -> float:
        """The lower end of the proven share's interval; 0 where none was asked."""
        return self.certified.interval.low if self.certified else 0.0


@dataclass(frozen=True)
class Retention:
    """A count relative to the same count of the entry's own dense parent.

    Attributes:
        count: of the entry, out of n.
        parent_count: of its parent, out of the same n.
        reason: why there is no ratio, or empty.
        is_counted: both counts are known and may be shown although there is no ratio.
    """

    count: int = 0
    parent_count: int = 0
    reason: str = ""
    is_counted: bool = False

    @property
    def ratio(self) -> float | None:
        """count / parent_count; None where there is a reason against it."""
        return None if self.reason else self.count / self.parent_count


def bracket(score: EpsilonScore, n: int) -> DrawnBracket:
    """The bracket of an entry at one epsilon.

    Args:
        score: counts at this epsilon; they add up to `n`.
        n: images evaluated.
    """
    segments: list[Segment] = []
    before = 0
    for key, outcomes in SEGMENTS.items():
        count = sum(score.counts.get(outcome, 0) for outcome in outcomes)
        segments.append(Segment(key, Share(count, n), before / n))
        before += count
    asked = any(count is not None for count in score.certified_by.values())
    counts = {segment.key: segment.share.count for segment in segments}
    lost = counts["attacked"] + counts["misclassified"]
    return DrawnBracket(
        segments=tuple(segments),
        certified=Share(counts["certified"], n) if asked else None,
        not_attacked=Share(n - lost, n),
    )


def is_wide(score: EpsilonScore) -> bool:
    """Whether less than half of what is unbroken is proven, so that a share of it says little."""
    low, high = ranking.bracket(score)
    return high - low > low


def certifier_count(score: EpsilonScore, name: str) -> int | None:
    """Images proven right by one certifier, or by "cascade"; None where it was not asked."""
    count = score.certified_by.get(name)
    if count is None and name == "cascade":
        asked = any(value is not None for value in score.certified_by.values())
        return score.counts.get(Outcome.CERTIFIED, 0) if asked else None
    return count


def retentions(result: Result, parent: Result | None, epsilon: str) -> dict[str, Retention]:
    """Retention of clean, ERA, AutoAttack and verified accuracy at one epsilon.

    As in the reproduction report, the proven count has a ratio only where the parent was trained to
    be verified; and only where its bracket is not wide.

    Args:
        result: the entry.
        parent: the result of its dense parent on the same images, or None.
        epsilon: a key of ``result.epsilons``.

    Returns:
        "clean", "pgd50", "autoattack", "certified" -> retention, or the reason why there is none.
    """
    score = result.epsilons[epsilon]
    if parent is None or epsilon not in parent.epsilons:
        reason = _no_parent(result, epsilon)
        return {key: Retention(reason=reason) for key in KEPT}
    base = parent.epsilons[epsilon]
    return {
        "clean": _retention(result.clean, parent.clean),
        "pgd50": _retention(score.pgd50, base.pgd50),
        "autoattack": _retention(score.autoattack, base.autoattack),
        "certified": _proven_retention(score, base, parent),
    }


def _proven_retention(score: EpsilonScore, base: EpsilonScore, parent: Result) -> Retention:
    found = _retention(certifier_count(score, "cascade"), certifier_count(base, "cascade"))
    if is_wide(base):
        reason = _WIDE
    elif parent.submission.method.pretrain_objective not in VERIFIABLE:
        reason = _NOT_FOR_PROOFS
    else:
        return found
    if found.reason and not found.is_counted:
        return found
    return Retention(found.count, found.parent_count, reason, is_counted=True)


_WIDE = (
    "proven images, parent → entry; no ratio, as less than half of the parent's unbroken images "
    "are proven"
)
_NOT_FOR_PROOFS = (
    "proven images, parent → entry; no ratio, as the parent was not trained to be verified"
)


def _retention(count: int | None, parent_count: int | None) -> Retention:
    if count is None or parent_count is None:
        who = "the entry" if count is None else "its parent"
        return Retention(reason=f"no certifier was asked about {who}")
    if parent_count == 0:
        reason = "the parent has no such image, so there is no ratio"
        return Retention(count, 0, reason, is_counted=True)
    if parent_count < MIN_PARENT_COUNT:
        reason = f"the parent has {parent_count} such images, too few for a ratio"
        return Retention(count, parent_count, reason, is_counted=True)
    return Retention(count, parent_count)


def _no_parent(result: Result, epsilon: str) -> str:
    if result.submission.parent is None:
        if result.submission.method.pipeline == "none":
            return "a dense entry: others are compared with it"
        return "the entry names no dense parent"
    return (
        f"no result of the parent {result.submission.parent} on the same images "
        f"at {epsilon} is on this board"
    )


@lru_cache(maxsize=65536)
def _wilson(count: int, n: int) -> Interval:
    return wilson(count, n)
