"""Outcome table -> scorecard. A pure function of stored outcomes; imports no torch."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from corobench.benchmark.records.reading.belonging import require_belonging
from corobench.benchmark.records.reading.columns import YES, Columns
from corobench.benchmark.records.reading.radii import require_rows
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, EpsilonScore, Outcome, Result, Run

if TYPE_CHECKING:
    import pandas as pd


SQUARE, SQUARE_HELPS = "square", "square-helps"
#: Share of the images that Square may decide without a flag, as in the attack library's warning.
MAX_BY_SQUARE = Fraction(2, 1000)


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
