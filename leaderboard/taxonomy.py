"""Where an entry stands in the taxonomy of compression: what a board can be filtered by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from corobench.benchmark.records.result import Result
from corobench.leaderboard.boards import Row
from corobench.leaderboard.format import round_bytes
from corobench.leaderboard.tiles import SIZE_CLASSES

#: Compression tiers of the benchmark: times fewer convolution and linear weights.
TIERS = (2, 4, 8, 10, 16, 20, 32, 100)
#: How far a measured compression may be from its tier, as a share: whole filters and layer widths
#: cannot be cut to the weight.
TIER_TOLERANCE = 0.1

#: Between the limits of :data:`SIZE_CLASSES`, smallest first.
SIZE_NAMES = (
    f"below {round_bytes(SIZE_CLASSES[0])}",
    *(f"{round_bytes(low)} to {round_bytes(high)}" for low, high in pairwise(SIZE_CLASSES)),
    f"{round_bytes(SIZE_CLASSES[-1])} or more",
)


@dataclass(frozen=True)
class Facet:
    """One thing to filter by.

    Attributes:
        key: in the page's permanent link.
        title: for people.
        values: those that occur on the board, in a stated order.
    """

    key: str
    title: str
    values: tuple[str, ...]


def times_smaller(row: Row) -> float:
    """How many times fewer convolution and linear weights are left; see `times_fewer`."""
    return times_fewer(row.result, row.parent)


def times_fewer(result: Result, parent: Result | None) -> float:
    """How many times fewer convolution and linear weights are left.

    Than the dense parent has, which counts for smaller networks, too; without a parent, or without
    a table of its layers, than the network itself would have without its zeros. 1 for a dense one.
    """
    size = result.compactness
    if parent is not None and size.num_weights_kept and parent.compactness.num_weights_kept:
        return parent.compactness.num_weights_kept / size.num_weights_kept
    left = 1.0 - size.sparsity
    return 1.0 / left if left > 0 else float("inf")


def tier(row: Row) -> str:
    """The tier of a compression, "dense" below 1.1x, "other" between tiers."""
    times = times_smaller(row)
    if times < 1 + TIER_TOLERANCE:
        return "dense"
    near = [step for step in TIERS if abs(times / step - 1) <= TIER_TOLERANCE]
    return f"{near[0]}x" if near else "other"


def size_class(row: Row) -> str:
    """The packed size of an entry, between the limits of the front page's tiles."""
    size = row.result.compactness.bytes_stored
    return SIZE_NAMES[sum(size >= limit for limit in SIZE_CLASSES)]


def facet_values(row: Row) -> dict[str, str]:
    """Key of each facet -> this row's value."""
    submission = row.result.submission
    method = submission.method
    return {
        "pruned": "not pruned" if method.pipeline == "none" else f"{method.pipeline} training",
        "criterion": method.criterion,
        "objective": method.pretrain_objective,
        "finetuned": method.finetune_objective or "none",
        "schedule": method.schedule,
        "scope": method.scope,
        "structure": method.structure,
        "architecture": submission.model.network,
        "tier": tier(row),
        "packed": size_class(row),
        "extra": "extra data" if submission.training.extra_data else "track's data only",
        "proof": _proof(row),
        "flags": "flagged" if row.score.flags or row.result.is_frozen else "no flags",
    }


_TITLES = {
    "pruned": "Pruned",
    "criterion": "Criterion",
    "objective": "Trained with",
    "finetuned": "Fine-tuned with",
    "schedule": "Schedule",
    "scope": "Scope",
    "structure": "Structure",
    "architecture": "Architecture",
    "tier": "Times smaller",
    "packed": "Packed size",
    "extra": "Training data",
    "proof": "Proof",
    "flags": "Flags",
}
_ORDERS = {
    "tier": ("dense", *(f"{step}x" for step in TIERS), "other"),
    "packed": SIZE_NAMES,
}


def facets(rows: Sequence[Row]) -> tuple[Facet, ...]:
    """Every facet with at least two values among the rows; others would filter nothing."""
    values = [facet_values(row) for row in rows]
    found = []
    for key, title in _TITLES.items():
        present = {value[key] for value in values}
        if len(present) > 1:
            order = sorted(present, key=_ORDERS[key].index if key in _ORDERS else None)
            found.append(Facet(key, title, tuple(order)))
    return tuple(found)


def _proof(row: Row) -> str:
    if row.bracket.certified is None:
        return "no proof asked"
    return "something proven" if row.bracket.certified.count else "nothing proven"
