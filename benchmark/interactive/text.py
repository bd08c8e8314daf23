"""The result of an evaluation as a small table of text, for 80 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from corobench.benchmark.records.result import Outcome

if TYPE_CHECKING:
    from corobench.benchmark.interactive.result import Bracket, EvaluationResult

WIDTH = 80
_HEAD = ("epsilon", "certified", "unbroken", "95 % interval", "undecided", "no answer")


def as_text(result: EvaluationResult) -> str:
    """A head, one row per radius, and what a reader must know beside the numbers."""
    size, n = result.compactness, result.n
    low, high = (f"{100 * end:.1f}" for end in result.clean_interval)
    lines = [
        *_wrapped(f"{result.record.submission.title} on {result.track}, n = {n}"),
        f"clean {percent(result.clean, n)} (95 %: {low}–{high})",
        "",
        *_table([_HEAD, *(_row(one) for one in result.brackets.values())]),
        "",
        f"parameters left {size.num_nonzero:,} of {size.num_parameters:,}; "
        f"packed {size.bytes_packed:,} of {size.bytes_dense:,} bytes",
        *(line for remark in remarks(result) for line in _wrapped(remark)),
    ]
    return "\n".join(lines)


def percent(count: int | None, n: int) -> str:
    """A count as a percentage of n.

    >>> percent(862, 1000), percent(None, 10)
    ('86.2 %', 'not asked')
    """
    return "not asked" if count is None else f"{100 * count / n:.1f} %"


def remarks(result: EvaluationResult) -> list[str]:
    """What must stand beside the numbers: standing, data, doubts, what was not asked."""
    found = []
    if result.in_memory:
        found.append("A network in memory: a quick result for its owner, never ranked.")
    elif result.quick:
        found.append("A quick result, never ranked.")
    if not result.is_finished:
        found.append("INTERRUPTED: what is still to come has no answer; the same call goes on.")
    if result.is_frozen:
        found.append("FROZEN, images both proven and broken: " + "; ".join(result.contradictions))
    if result.record.data.kind == "mirror":
        found.append("Mirror data: these are not the published images.")
    found += [f"flags at {key}: {', '.join(flags)}" for key, flags in result.flags.items() if flags]
    found += [f"without an answer: {line}" for line in result.record.errors]
    by_reason: dict[str, list[str]] = {}
    for certifier, reason in result.not_asked.items():
        by_reason.setdefault(reason, []).append(certifier)
    found += [f"not asked: {', '.join(names)} ({why})" for why, names in by_reason.items()]
    return found


def _row(one: Bracket) -> tuple[str, ...]:
    low, high = (f"{100 * end:.1f}" for end in one.interval)
    without = sum(one.counts[outcome] for outcome in (Outcome.TIMEOUT, Outcome.ERROR))
    certified, unbroken = percent(one.certified, one.n), percent(one.unbroken, one.n)
    undecided = str(one.counts[Outcome.UNDECIDED])
    return one.epsilon, certified, unbroken, f"{low}–{high}", undecided, str(without)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
