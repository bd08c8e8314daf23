"""The columns of a board: what each one says, in text for people and in numbers for machines.

One list serves the table of the page, the column chooser, and the CSV and JSON files, so that they
cannot disagree. Numbers for machines are the counts of the result files, never percentages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from corobench.benchmark.scoring.statistics import Standing
from corobench.leaderboard.boards import Board, Row
from corobench.leaderboard.format import (
    interval,
    percent,
    plain,
    rate_percent,
    short_bytes,
    short_count,
)
from corobench.leaderboard.measures import Retention, Share
from corobench.leaderboard.taxonomy import tier, times_smaller

Value = str | int | float | None


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: for people.
        value: for machines and for sorting; None where there is no number.
        small: a second figure in small print, such as an interval; may be empty.
        reason: why there is no number, for a footnote; empty where there is one.
    """

    text: str
    value: Value
    small: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: in permanent links and exported files.
        title: heading.
        help: what exactly it says.
        cell: of a row.
        kind: how it sorts.
        shown: whether it is among those shown at first.
        best_first: the direction of the first click.
        is_share: whether it counts images out of n, so that an interval belongs to it.
    """

    key: str
    title: str
    help: str
    cell: Callable[[Row], Cell]
    kind: Literal["text", "number", "bar"] = "number"
    shown: bool = False
    best_first: Literal["asc", "desc"] = "desc"
    is_share: bool = False


def columns(board: Board) -> tuple[Column, ...]:
    """The columns of one board, in order; those that say nothing there are left out."""
    ranked = any(row.unbroken_standing for row in board.rows)
    rank = (
        Column("group", "Group", _group_help("proven"), _group, shown=True, best_first="asc"),
        Column(
            "group_unbroken",
            "Group by unbroken",
            _group_help("unbroken"),
            _group_by_unbroken,
            best_first="asc",
        ),
    )
    certifiers = tuple(_certifier(name) for name in board.certifiers)
    first = (replace(one, shown=False) if _repeats_title(one, board) else one for one in _FIRST)
    return (*(rank if ranked else ()), *first, *certifiers, *_LAST)


def _repeats_title(column: Column, board: Board) -> bool:
    """Whether most titles say already what the column would."""
    if column.key not in ("method", "architecture"):
        return False
    texts = [(column.cell(row).text.casefold(), row.title.casefold()) for row in board.rows]
    return 2 * sum(text in title for text, title in texts) >= len(texts)


# ------------------------------------------------------------------------------- the cells


def _group(row: Row) -> Cell:
    if row.unbroken_standing is not None and not row.is_certifiable:
        return Cell("—", None, "", row.why_not_certifiable)
    return _standing(row.standing)


def _group_by_unbroken(row: Row) -> Cell:
    return _standing(row.unbroken_standing)


def _standing(standing: Standing | None) -> Cell:
    if standing is None:
        return Cell("—", None)
    same = standing.best == standing.worst
    ranks = str(standing.best) if same else f"{standing.best}–{standing.worst}"
    return Cell(str(standing.group), standing.group, f"rank {ranks}")


def _text(pick: Callable[[Row], str]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        text = plain(pick(row))
        return Cell(text, text)

    return cell


def _share(share: Share, with_interval: bool = False) -> Cell:
    return Cell(percent(share), share.count, interval(share) if with_interval else "")


def _certified(row: Row) -> Cell:
    if row.bracket.certified is None:
        return Cell("not asked", None, "", row.why_not_asked("cascade"))
    if not row.is_certifiable:
        return Cell("not known", row.bracket.certified.count, "", row.why_not_certifiable)
    return _share(row.bracket.certified, with_interval=True)


def _outcome(key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        return _share(next(item.share for item in row.bracket.segments if item.key == key))

    return cell


def _certifier(name: str) -> Column:
    def cell(row: Row) -> Cell:
        share = row.certifier(name)
        if share is None:
            return Cell("not asked", None, "", row.why_not_asked(name))
        return _share(share)

    key = f"by_{name.lower().replace('-', '_')}"
    return Column(key, name, f"% proven right by {name}; “not asked” is not 0", cell)


def _kept(key: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        kept: Retention = row.retention[key]
        if kept.is_counted:
            return Cell(f"{kept.parent_count} → {kept.count}", None, "", kept.reason)
        if kept.ratio is None:
            return Cell("—", None, "", kept.reason)
        return Cell(rate_percent(kept.ratio), round(kept.ratio, 6))

    return cell


def _size(pick: Callable[[Row], int], show: Callable[[int], str]) -> Callable[[Row], Cell]:
    return lambda row: Cell(show(pick(row)), pick(row))


def _number(value: float | None) -> Cell:
    return (
        Cell("—", None)
        if value is None
        else Cell(f"{value:g}" if value < 1000 else short_count(round(value)), value)
    )


def _seed(seed: int | None) -> Cell:
    return Cell("—" if seed is None else str(seed), seed)


def _times(row: Row) -> Cell:
    times = times_smaller(row)
    if tier(row) == "dense":
        return Cell("dense", 1.0)
    return Cell(f"{times:.3g}×", round(times, 4) if times != float("inf") else None)


def _flags(row: Row) -> Cell:
    flags = [*(["frozen"] if row.result.is_frozen else []), *row.score.flags]
    return Cell(", ".join(flags), ", ".join(flags))


def _objectives(row: Row) -> str:
    method = row.result.submission.method
    parts = [method.pretrain_objective, method.finetune_objective]
    return " → ".join(part for part in parts if part)


def _group_help(count: str) -> str:
    return (
        f"Rank group by {count}: entries that the exact McNemar test on the {count} images cannot "
        "tell apart, Holm-corrected over the board. Below it: the ranks an entry can hold"
    )


_FIRST = (
    Column(
        "entry",
        "Entry",
        "Title and id",
        _text(lambda row: row.title),
        "text",
        True,
        "asc",
    ),
    Column(
        "method",
        "Method",
        "What was done, and the training objectives before and after pruning",
        _text(lambda row: row.result.submission.method.name),
        "text",
        True,
        "asc",
    ),
    Column("objective", "Objectives", "Before → after pruning", _text(_objectives), "text"),
    Column(
        "architecture",
        "Architecture",
        "Name in the list of corobench architectures",
        _text(lambda row: row.result.submission.model.network),
        "text",
        True,
        "asc",
    ),
    Column(
        "authors",
        "Authors",
        "As the manifest names them",
        _text(lambda row: ", ".join(row.result.submission.authors)),
        "text",
        best_first="asc",
    ),
    Column(
        "seed",
        "Seed",
        "Seed of the training; “—” where the manifest states none",
        lambda row: _seed(row.result.submission.training.seed),
        best_first="asc",
    ),
    Column(
        "parent",
        "Dense parent",
        "Id of the entry that it was compressed from",
        _text(lambda row: row.result.submission.parent or ""),
        "text",
        best_first="asc",
    ),
    Column(
        "times",
        "Smaller",
        "How many times fewer convolution and linear weights than the dense parent, measured",
        _times,
    ),
    Column(
        "nonzero",
        "Non-zero",
        "Non-zero parameters, measured on the evaluated weights",
        _size(lambda row: row.result.compactness.num_nonzero, short_count),
        shown=True,
        best_first="asc",
    ),
    Column(
        "live",
        "Live weights",
        "Convolution and linear weights on a path from the image to a logit; all others change "
        "nothing. “—” where a result does not say",
        lambda row: _number(row.result.compactness.num_live),
        best_first="asc",
    ),
    Column(
        "epochs",
        "Epochs",
        "Passes over the training images in all steps together, those of the dense parent and of "
        "a mask search included, as the manifest tells them; “—” where it does not",
        lambda row: _number(row.result.submission.training.epochs),
        best_first="asc",
    ),
    Column(
        "packed",
        "Packed",
        "Bytes as a bitmask and non-zero values, or as numbers into a table of the distinct values "
        "where that is smaller: bfloat16 and int8 weights count as what they are",
        _size(lambda row: row.result.compactness.bytes_stored, short_bytes),
        best_first="asc",
    ),
    Column(
        "macs",
        "Multiply-adds",
        "Per image, of non-zero weights",
        _size(lambda row: row.result.compactness.macs_nonzero, short_count),
        best_first="asc",
    ),
    Column(
        "clean",
        "Clean",
        "% right without an attack",
        lambda row: _share(row.clean),
        shown=True,
        is_share=True,
    ),
    Column(
        "bracket",
        "Bracket",
        "Proven, undecided, timeout or error, broken, misclassified. Below it: the bracket "
        "with its 95 % interval. The true value lies between the two marks",
        _certified,
        "bar",
        True,
    ),
    Column(
        "certified",
        "Proven",
        "% proven right: the lower end of the bracket, with its Wilson 95 % interval. “Not known” "
        "where nothing is proven and some certifiers could not be asked",
        _certified,
        shown=True,
        is_share=True,
    ),
    Column(
        "not_attacked",
        "Unbroken",
        "% not broken by any attack: the upper end of the bracket, with its Wilson 95 % interval",
        lambda row: _share(row.bracket.not_attacked, with_interval=True),
        shown=True,
        is_share=True,
    ),
)
_LAST = (
    Column("undecided", "Undecided", "% neither broken nor proven", _outcome("undecided")),
    Column("unfinished", "Unfinished", "% timeout or error", _outcome("unfinished")),
    Column("attacked", "Broken", "% broken by an attack", _outcome("attacked")),
    Column(
        "misclassified", "Misclassified", "% wrong without an attack", _outcome("misclassified")
    ),
    Column(
        "pgd50",
        "ERA",
        "Empirical robust accuracy: % right after PGD-50",
        lambda row: _share(row.pgd50),
        shown=True,
        is_share=True,
    ),
    Column(
        "autoattack",
        "AutoAttack",
        "% right after AutoAttack, its standard suite",
        lambda row: _share(row.autoattack),
        is_share=True,
    ),
    Column("kept_clean", "Clean kept", "% of the dense parent's count", _kept("clean")),
    Column("kept_pgd50", "ERA kept", "% of the parent's count", _kept("pgd50")),
    Column(
        "kept_autoattack",
        "AutoAttack kept",
        "% of the parent's count",
        _kept("autoattack"),
        shown=True,
    ),
    Column(
        "kept_certified",
        "Proven kept",
        "% of the parent's count, where the parent was trained to be verified and its bracket is "
        "not wide; elsewhere the two counts, parent → entry",
        _kept("certified"),
    ),
    Column("flags", "Flags", "Flags: named doubts about the evaluation", _flags, "text"),
    Column(
        "extra",
        "Training data",
        "Whether anything beyond the track's own training set was used",
        _text(lambda row: "extra" if row.result.submission.training.extra_data else "own"),
        "text",
    ),
    Column(
        "date",
        "Date",
        "Day on which the evaluation ended",
        lambda row: Cell(row.result.date or "—", row.result.date),
        "text",
    ),
    Column("protocol", "Protocol", "Version", _text(lambda row: row.result.protocol), "text"),
)
