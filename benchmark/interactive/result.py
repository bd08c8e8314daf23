"""The result of an evaluation, as Python shows it: numbers, a table, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.records.result import Compactness, Outcome, Result
from corobench.benchmark.scoring.ranking import bracket, may_rank
from corobench.benchmark.scoring.statistics import Interval, wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Bracket:
    """What is known of the robust accuracy at one radius, in images out of n.

    ``certified / n <= true robust accuracy <= unbroken / n`` on these n images.

    Attributes:
        epsilon: the radius as exact text.
        n: images evaluated.
        certified: proven right; None where no certifier was asked, which is not 0.
        unbroken: right, and broken by no attack.
        counts: images per outcome; they add up to n.

    >>> both = Bracket("1/16", 10, 4, 9, {})
    >>> both.certified_rate, both.unbroken_rate, [round(end, 2) for end in both.interval]
    (0.4, 0.9, [0.17, 0.98])
    """

    epsilon: str
    n: int
    certified: int | None
    unbroken: int
    counts: Mapping[str, int]

    @property
    def certified_rate(self) -> float | None:
        """Share of the images that is proven right, in [0, 1]; None where nothing was asked."""
        return None if self.certified is None else self.certified / self.n

    @property
    def unbroken_rate(self) -> float:
        """Share of the images that no attack broke, in [0, 1]."""
        return self.unbroken / self.n

    @property
    def width_rate(self) -> float:
        """What neither side settled, as a share in [0, 1]."""
        return (self.unbroken - (self.certified or 0)) / self.n

    @property
    def certified_interval(self) -> Interval | None:
        """Wilson 95 % interval of `certified_rate`; None where nothing was asked."""
        return None if self.certified is None else wilson(self.certified, self.n)

    @property
    def unbroken_interval(self) -> Interval:
        """Wilson 95 % interval of `unbroken_rate`."""
        return wilson(self.unbroken, self.n)

    @property
    def interval(self) -> Interval:
        """From the lower end of what is proven to the upper end of what is not broken (Wilson,
        95 %), in [0, 1]; from 0 where no certifier was asked."""
        low = self.certified_interval
        return Interval(0.0 if low is None else low[0], self.unbroken_interval[1])


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What an evaluation found. Its text is a table, and in a notebook it is a picture.

    Attributes:
        record: the scorecard, as a result file holds it (docs/file-formats.md).
        path: of the result file; None for a network in memory.
        in_memory: whether the network was in memory: such a result is quick and never ranked.
        is_finished: False where the evaluation was interrupted. The numbers are true as far as
            they go; images on which an attack was still to come have no answer (``error``).
        table: the outcome table; None where it lies in a file beside `path`.
        adversarial: float32 (m, C, H, W) in [0, 1], images that fool the model; the column
            `adversarial` of the table has their places. None where they lie in a file.
    """

    record: Result
    path: Path | None = None
    in_memory: bool = False
    is_finished: bool = True
    table: pd.DataFrame | None = field(default=None, repr=False)
    adversarial: np.ndarray | None = field(default=None, repr=False)

    @property
    def entry(self) -> str:
        """Name of the entry, or of the network in memory."""
        return self.record.entry

    @property
    def track(self) -> str:
        """Name of the track."""
        return self.record.track

    @property
    def n(self) -> int:
        """Images evaluated: the first n of the published order."""
        return self.record.n

    @property
    def quick(self) -> bool:
        """Whether the result is a quick look, which is never ranked."""
        return self.record.quick

    @property
    def is_ranked(self) -> bool:
        """Whether the result may stand in the public ranking."""
        return not self.in_memory and self.is_finished and may_rank(self.record)

    @property
    def is_frozen(self) -> bool:
        """Whether a proven image was broken: the numbers are not to be believed."""
        return self.record.is_frozen

    @property
    def clean(self) -> int:
        """Images right without an attack, out of n."""
        return self.record.clean

    @property
    def clean_rate(self) -> float:
        """Share of the images that is right without an attack, in [0, 1]."""
        return self.clean / self.n

    @property
    def clean_interval(self) -> Interval:
        """Wilson 95 % interval of `clean_rate`, in [0, 1]."""
        return wilson(self.clean, self.n)

    @property
    def brackets(self) -> dict[str, Bracket]:
        """Epsilon, ascending -> what is known of the robust accuracy there."""
        found = {}
        for epsilon, score in self.record.epsilons.items():
            low, high = bracket(score)
            asked = any(count is not None for count in score.certified_by.values())
            counts = {str(outcome): score.counts.get(outcome, 0) for outcome in Outcome}
            certified = low if asked else None
            found[epsilon] = Bracket(epsilon, self.n, certified, high, counts)
        return found

    @property
    def compactness(self) -> Compactness:
        """What the weights really weigh."""
        return self.record.compactness

    @property
    def flags(self) -> dict[str, tuple[str, ...]]:
        """Epsilon -> named doubts about the evaluation (docs/health.md)."""
        return {epsilon: score.flags for epsilon, score in self.record.epsilons.items()}

    @property
    def not_asked(self) -> dict[str, str]:
        """Certifier -> why it was not asked; such a count is None and never 0."""
        return dict(self.record.not_asked)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Images both proven and broken, one line each: a certifier or an attack is wrong."""
        return self.record.audit.contradictions

    def to_frame(self) -> pd.DataFrame:
        """The outcome table: one row per image and epsilon, columns as in docs/file-formats.md.

        Raises:
            ResultError: the table does not lie beside the result file, or does not fit it.
        """
        if self.table is not None:
            return self.table.copy()
        assert self.path is not None, "a result without a table has a file"
        from corobench.benchmark.scoring.scored import read_scored

        return read_scored(self.path)[1]

    def __repr__(self) -> str:
        from corobench.benchmark.interactive.text import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from corobench.benchmark.interactive.picture import as_html

        return as_html(self)


class EvaluationInterrupted(KeyboardInterrupt):
    """An evaluation was stopped by the keyboard; the same call goes on from there.

    Attributes:
        result: what was found so far; None where the network had not yet been asked about all
            images, and for folders and files, whose work is in another process.
    """

    def __init__(self, result: EvaluationResult | None = None) -> None:
        super().__init__(
            "stopped; the same call goes on from here, and `.result` has what is known"
        )
        self.result = result
