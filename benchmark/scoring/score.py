"""Outcome table -> scorecard. A pure function of stored outcomes; imports no torch."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from corobench.benchmark.records.reading.belonging import require_belonging
from corobench.benchmark.records.reading.columns import YES, Columns
from corobench.benchmark.records.reading.radii import require_rows
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, EpsilonScore, Outcome, Result, Run
from corobench.benchmark.tracks import Protocol, get_track, settings_of

if TYPE_CHECKING:
    import pandas as pd


SQUARE, SQUARE_HELPS = "square", "square-helps"
#: Share of the images that Square may decide without a flag, as in the attack library's warning.
MAX_BY_SQUARE = Fraction(2, 1000)
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
    if other := other_settings(result):
        reasons.append(f"settings: not those of protocol {result.protocol}: {', '.join(other)}")
    return reasons


def other_settings(result: Result) -> list[str]:
    """Names of the settings that are not those of the protocol, whichever round it is of.

    Both rounds have the same; the third number of a version changes no result.
    """
    expected = _REPLACED | settings_of(Protocol(), get_track(result.track))
    found = _REPLACED | result.settings
    keys = sorted({*expected, *found} - {"version"})
    return [key for key in keys if found.get(key) != expected.get(key)]


def may_rank(result: Result) -> bool:
    """Whether n, epsilons and settings are public; the file's own word alone is not enough.

    A frozen entry, whose audit found a contradiction, is never ranked.
    """
    return not why_unpublished(result) and not result.is_frozen


def score(table: pd.DataFrame | Columns, run: Run, where: str = "") -> Result:
    """The scorecard of an outcome table.

    Args:
        table: as `benchmark.evaluation.outcomes.outcome_table` makes it, or its columns as arrays;
            see `OUTCOME_COLUMNS`.
        run: identity of the evaluation.
        where: file of the table, for messages; the entry by default.

    Raises:
        ResultError: rows that are not the run's images in order, or that contradict their columns
            or each other.
    """
    columns = table if isinstance(table, Columns) else Columns.of_frame(table)
    where = where or run.entry
    require_belonging(columns, run, where)
    require_rows(columns, run, where)
    return count(columns, run)


def count(table: pd.DataFrame | Columns, run: Run) -> Result:
    """The scorecard of a table that its reader has checked already, see `score`."""
    columns = table if isinstance(table, Columns) else Columns.of_frame(table)
    epsilons = {}
    for number, epsilon in enumerate(run.epsilons):
        rows = columns.rows(slice(number * run.n, (number + 1) * run.n))
        epsilons[epsilon] = _score_epsilon(rows, run, epsilon)
    clean = int(columns.is_right[: run.n].sum())
    return Result(
        protocol=run.protocol,
        entry=run.entry,
        track=run.track,
        n=run.n,
        quick=run.quick,
        data=run.data,
        weights_sha256=run.weights_sha256,
        seed=run.seed,
        device=run.device,
        versions=run.versions,
        clean=clean,
        epsilons=epsilons,
        compactness=run.compactness,
        seconds=run.seconds,
        settings=run.settings,
        constants=run.constants,
        submission=run.submission,
        not_asked=run.not_asked,
        audit=run.audit,
        errors=run.errors,
        contests=run.contests,
        searched_on=run.searched_on,
        recognition=run.recognition,
        files=run.files,
        halved_batches=run.halved_batches,
        earlier=run.earlier,
        identity=run.identity,
        date=run.date,
    )


def _score_epsilon(rows: Columns, run: Run, epsilon: str) -> EpsilonScore:
    """Counts at one epsilon. A missing answer is none: it counts for nobody."""
    outcomes = rows.texts["outcome"].counts()
    yes = {name: int((answers == YES).sum()) for name, answers in rows.answers.items()}
    certified_by: dict[str, int | None] = {}
    for name, column in CERTIFIER_COLUMNS.items():
        certified_by[name] = None if name in run.not_asked else yes[column]
    anyone_asked = any(count is not None for count in certified_by.values())
    certified_by["cascade"] = outcomes.get(Outcome.CERTIFIED, 0) if anyone_asked else None
    decided = rows.texts["decided_by"].counts()
    decided.pop("", None)
    flags = set(run.flags.get(epsilon, ())) - {SQUARE_HELPS}
    if Fraction(decided.get(SQUARE, 0), run.n) > MAX_BY_SQUARE:
        flags.add(SQUARE_HELPS)
    return EpsilonScore(
        counts={outcome: outcomes.get(outcome, 0) for outcome in Outcome},
        pgd50=yes["pgd50"],
        autoattack=yes["autoattack"],
        certified_by=certified_by,
        flags=tuple(sorted(flags)),
        decided_by=decided,
    )
