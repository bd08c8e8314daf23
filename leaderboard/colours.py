"""Colours of a board's plots: by training, by method; and which entries are one family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corobench.leaderboard.boards import Row
from corobench.leaderboard.curves import SIZE

#: Colours that a reader can tell apart; what is rarer shares one more.
MAX_COLOURS = 7
OTHER = "other"


@dataclass(frozen=True)
class Legend:
    """What the colours of one choice mean.

    Attributes:
        key: of the choice, in the page.
        names: the meaning of each colour, most entries first; "other" last where there is one.
        codes: page of an entry -> place in `names`.
    """

    key: str
    names: tuple[str, ...]
    codes: dict[str, int]


def legends(rows: Sequence[Row]) -> tuple[Legend, ...]:
    """The choices of colours: by training first.

    Args:
        rows: of one board.
    """
    return (_legend("training", rows, training_of), _legend("method", rows, method_of))


def training_of(row: Row) -> str:
    """What an entry was trained with, and fine-tuned with where that differs."""
    method = row.result.submission.method
    tuned = method.finetune_objective
    if method.pretrain_objective == "none" and tuned:
        return tuned
    if not tuned or tuned == method.pretrain_objective:
        return method.pretrain_objective
    return f"{method.pretrain_objective}, then {tuned}"


def method_of(row: Row) -> str:
    """The name of an entry's method without its size."""
    return SIZE.sub("", row.result.submission.method.name)


def family_codes(rows: Sequence[Row]) -> list[int]:
    """Per row a number that a dense parent shares with what was compressed from it."""
    known: dict[str, int] = {}
    return [known.setdefault(row.parent_page or row.page, len(known)) for row in rows]


def _legend(key: str, rows: Sequence[Row], name_of: Callable[[Row], str]) -> Legend:
    names = {row.page: name_of(row) for row in rows}
    counts = Counter(names.values())
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    listed = ordered if len(ordered) <= MAX_COLOURS + 1 else [*ordered[:MAX_COLOURS], OTHER]
    places = {name: place for place, name in enumerate(listed)}
    last = len(listed) - 1
    codes = {page: places.get(name, last) for page, name in names.items()}
    return Legend(key, tuple(listed), codes)
