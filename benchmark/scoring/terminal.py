"""A scorecard as a table on the terminal."""

from __future__ import annotations

from rich.table import Table

from corobench.benchmark.records.result import CERTIFIERS, Outcome, Result
from corobench.benchmark.scoring.ranking import bracket
from corobench.benchmark.scoring.statistics import wilson


def percent(count: int | None, n: int) -> str:
    """A count as a percentage of n, or "not asked".

    >>> percent(862, 1000), percent(None, 10)
    ('86.2 %', 'not asked')
    """
    return "not asked" if count is None else f"{100 * count / n:.1f} %"


def scorecard(result: Result) -> Table:
    """One row per measure and one column per epsilon, in % of n; fits 80 columns."""
    n, size = result.n, result.compactness
    low, high = (f"{100 * end:.1f}" for end in wilson(result.clean, n))
    remarks = [f"n = {n}"]
    if result.quick:
        remarks.append("quick, not ranked")
    if result.data.kind == "mirror":
        remarks.append("mirror data")
    if result.is_frozen:
        remarks.append("FROZEN: certified images were broken")
    table = Table(
        title=f"{result.entry} on {result.track} ({', '.join(remarks)})",
        caption=(
            f"clean {percent(result.clean, n)} (95 %: {low}–{high}); "
            f"parameters left {size.num_nonzero:,} of {size.num_parameters:,}\n"
            f"packed {size.bytes_stored / 1000:,.1f} of {size.bytes_dense / 1000:,.1f} kB; "
            f"multiply-adds {size.macs_nonzero:,} of {size.macs_dense:,}"
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("epsilon")
    scores = list(result.epsilons.values())
    for epsilon in result.epsilons:
        table.add_column(epsilon, justify="right")
    ends = [bracket(score) for score in scores]
    table.add_row(
        "robust accuracy, proven at least", *(percent(end.low, n) for end in ends), style="bold"
    )
    table.add_row("robust accuracy, at most", *(percent(end.high, n) for end in ends), style="bold")
    table.add_row("undecided", *(str(score.counts[Outcome.UNDECIDED]) for score in scores))
    for name in CERTIFIERS:
        table.add_row(
            f"proven by {name}", *(percent(score.certified_by.get(name), n) for score in scores)
        )
    table.add_row("right after PGD-50", *(percent(score.pgd50, n) for score in scores))
    table.add_row("right after AutoAttack", *(percent(score.autoattack, n) for score in scores))
    for outcome in (Outcome.TIMEOUT, Outcome.ERROR):
        if any(score.counts[outcome] for score in scores):
            table.add_row(str(outcome), *(str(score.counts[outcome]) for score in scores))
    if any(score.flags for score in scores):
        table.add_row("flags", *("\n".join(score.flags) for score in scores))
    return table
