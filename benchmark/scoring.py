"""Outcome table -> scorecard. A pure function of stored outcomes; imports no torch."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from benchmark.errors import ResultError
from benchmark.records import CERTIFIER_COLUMNS, EpsilonScore, Outcome, Result, Run
from benchmark.tracks import PROTOCOL, Protocol, get_track, round_of, settings_of

if TYPE_CHECKING:
    import pandas as pd


SQUARE, SQUARE_HELPS = "square", "square-helps"
#: Share of the images that Square may decide without a flag, as in the attack library's warning.
MAX_BY_SQUARE = Fraction(2, 1000)


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
    asked = any(count is not None for count in one.certified_by.values())
    return -(low if asked else -1), -high, result.compactness.num_nonzero


def why_unpublished(result: Result) -> list[str]:
    """Every reason why a result may not be published; empty for one that may.

    The file's own word is not enough: n, epsilons and settings are compared with those of the
    track and the protocol. Mirror data and frozen entries are published and stand apart.
    """
    track = get_track(result.track)
    reasons = []
    if result.quick:
        reasons.append("quick: true; a quick look is for CI and never ranked")
    if not track.is_ranked(result.n):
        ranked = ", ".join(map(str, track.subsets[1:]))
        reasons.append(f"n: expected a ranked subset ({ranked}), but found {result.n}")
    if set(result.epsilons) != set(track.epsilons):
        reasons.append(
            f"epsilons: expected {', '.join(track.epsilons)}, but found "
            f"{', '.join(result.epsilons) or 'none'}"
        )
    if round_of(result.protocol) == round_of(PROTOCOL):
        expected = settings_of(Protocol(), track)
        del expected["version"]  # its third number may differ
        other = [key for key in sorted(expected) if result.settings.get(key) != expected[key]]
        if other:
            reasons.append(f"settings: not those of protocol {PROTOCOL}: {', '.join(other)}")
    return reasons


def may_rank(result: Result) -> bool:
    """Whether n, epsilons and settings are public; the file's own word alone is not enough.

    A frozen entry, whose audit found a contradiction, is never ranked.
    """
    return not why_unpublished(result) and not result.is_frozen


def score(table: pd.DataFrame, run: Run) -> Result:
    """Compute a scorecard from an outcome table.

    Args:
        table: one row per image and epsilon, columns as in ``OUTCOME_COLUMNS``.
        run: identity of the evaluation.

    Raises:
        ResultError: rows missing or double, or outcomes that contradict their columns.
    """
    epsilons = {}
    clean_counts = set()
    for epsilon in run.epsilons:
        rows = table[table["epsilon"] == epsilon]
        if len(rows) != run.n or rows["image"].nunique() != run.n:
            raise ResultError(
                f"{run.entry}: epsilon {epsilon}: expected one row for each of {run.n} images, "
                f"but found {len(rows)} rows of {rows['image'].nunique()} images"
            )
        _check_rows(rows, run, epsilon)
        clean_counts.add(int((rows["predicted"] == rows["label"]).sum()))
        epsilons[epsilon] = _score_epsilon(rows, run, epsilon)
    if len(clean_counts) != 1:
        raise ResultError(f"{run.entry}: clean accuracy differs between epsilons")
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
        clean=clean_counts.pop(),
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
        identity=run.identity,
        date=run.date,
    )


def _score_epsilon(rows: pd.DataFrame, run: Run, epsilon: str) -> EpsilonScore:
    outcomes = rows["outcome"].value_counts()
    certified_by: dict[str, int | None] = {}
    for name, column in CERTIFIER_COLUMNS.items():
        asked = name not in run.not_asked
        certified_by[name] = int(rows[column].fillna(False).sum()) if asked else None
    certified = int((rows["outcome"] == Outcome.CERTIFIED).sum())
    anyone_asked = any(count is not None for count in certified_by.values())
    certified_by["cascade"] = certified if anyone_asked else None
    decided = rows.loc[rows["decided_by"] != "", "decided_by"].value_counts()
    by_square = int(decided.get(SQUARE, 0))
    flags = set(run.flags.get(epsilon, ())) - {SQUARE_HELPS}
    if Fraction(by_square, run.n) > MAX_BY_SQUARE:
        flags.add(SQUARE_HELPS)
    return EpsilonScore(
        counts={outcome: int(outcomes.get(outcome, 0)) for outcome in Outcome},
        pgd50=int(rows["pgd50"].fillna(False).sum()),
        autoattack=int(rows["autoattack"].fillna(False).sum()),
        certified_by=certified_by,
        flags=tuple(sorted(flags)),
        decided_by={str(name): int(decided[name]) for name in sorted(decided.index)},
    )


def _check_rows(rows: pd.DataFrame, run: Run, epsilon: str) -> None:
    """Outcomes must follow from their columns; a table that lies is refused.

    In a frozen entry an image may be proven and attacked: the stored image is the evidence.
    """
    outcome = rows["outcome"]
    answered = rows["predicted"] >= 0
    wrong = answered & (rows["predicted"] != rows["label"])
    unfinished = outcome.isin([str(Outcome.ERROR), str(Outcome.TIMEOUT)])
    proven = rows[list(CERTIFIER_COLUMNS.values())].fillna(False).any(axis=1)
    attacked = outcome == Outcome.ATTACKED
    contradicted = attacked & bool(run.audit.contradictions)
    rules = {
        "an unknown outcome": ~outcome.isin([str(name) for name in Outcome]),
        "a misclassified image with another outcome": wrong != (outcome == Outcome.MISCLASSIFIED),
        "an image without a prediction that has another outcome than error or timeout": ~answered
        & ~unfinished,
        "a certified image that no certifier proved": (outcome == Outcome.CERTIFIED) & ~proven,
        "a proven image that is not certified": proven
        & (outcome != Outcome.CERTIFIED)
        & ~contradicted,
        "an attacked image without an adversarial image": attacked & (rows["adversarial"] < 0),
        "an undecided image that an attack broke": (outcome == Outcome.UNDECIDED)
        & ~(rows["pgd50"].fillna(False) & rows["autoattack"].fillna(False)),
    }
    for what, broken in rules.items():
        if broken.any():
            image = int(rows.loc[broken, "image"].iloc[0])
            raise ResultError(
                f"{run.entry}: epsilon {epsilon}: {what} "
                f"(image {image}, {int(broken.sum())} in all)"
            )
