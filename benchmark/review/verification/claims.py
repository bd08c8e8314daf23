"""A handed-in result, read so that each column can be looked at in the published order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.evaluation.evidence import Evidence
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, Outcome
from corobench.benchmark.review.contest import DECIDED_BY as CONTEST
from corobench.benchmark.review.verification.mismatch import Mismatch

if TYPE_CHECKING:
    import pandas as pd

    from corobench.benchmark.evaluation.facts import BoolArray

#: Decides the order in which a proof is attributed: cheapest first.
PROVERS = tuple(CERTIFIER_COLUMNS)


@dataclass(frozen=True)
class Claims:
    """What a result says of each of its n images; `benchmark.review.verification.files` checked the
    rows.

    Attributes:
        evidence: the result with all that belongs to it.
        epsilons: exact radii as text, ascending.
        images: int64 (n,), ids in the test set, in the published order.
    """

    evidence: Evidence
    epsilons: tuple[str, ...]
    images: NDArray[np.int64]

    @cached_property
    def _rows(self) -> dict[str, pd.DataFrame]:
        table = self.evidence.table
        return {
            epsilon: table[table["epsilon"] == epsilon].sort_values("position", ignore_index=True)
            for epsilon in self.epsilons
        }

    def rows(self, epsilon: str) -> pd.DataFrame:
        """The n rows of one radius, in the published order."""
        return self._rows[epsilon]

    def yes(self, column: str, epsilon: str) -> BoolArray:
        """Bool (n,), where a column of answers says yes; a missing answer is none."""
        answers: BoolArray = (
            self.rows(epsilon)[column].fillna(False).to_numpy(dtype=bool, copy=True)
        )
        return answers

    def answered(self, column: str, epsilon: str) -> BoolArray:
        """Bool (n,), where a column holds an answer."""
        known: BoolArray = self.rows(epsilon)[column].notna().to_numpy(dtype=bool, copy=True)
        return known

    def is_outcome(self, epsilon: str, *outcomes: Outcome) -> BoolArray:
        """Bool (n,), rows with one of these outcomes."""
        names = [str(outcome) for outcome in outcomes]
        chosen: BoolArray = (
            self.rows(epsilon)["outcome"].isin(names).to_numpy(dtype=bool, copy=True)
        )
        return chosen

    def contested(self, epsilon: str) -> BoolArray:
        """Bool (n,), rows that somebody's image is said to have broken, and no attack before it."""
        chosen: BoolArray = (self.rows(epsilon)["decided_by"] == CONTEST).to_numpy(bool, copy=True)
        return chosen

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (n,), classes predicted without an attack; -1 where there was no answer."""
        classes: NDArray[np.int64] = self.rows(self.epsilons[0])["predicted"].to_numpy(
            dtype=np.int64
        )
        return classes

    @cached_property
    def correct(self) -> BoolArray:
        """Bool (n,), right without an attack."""
        labels = self.rows(self.epsilons[0])["label"].to_numpy(dtype=np.int64)
        return np.asarray(self.predicted == labels, dtype=bool)

    def proven(self, epsilon: str, before: str | None = None) -> BoolArray:
        """Bool (n,), proven by any certifier, or by one that comes before another one."""
        names = PROVERS if before is None else PROVERS[: PROVERS.index(before)]
        columns = [self.yes(CERTIFIER_COLUMNS[name], epsilon) for name in names]
        proven: NDArray[np.bool_] = np.any(
            [np.zeros(len(self.images), dtype=bool), *columns], axis=0
        )
        return proven

    def prover(self, epsilon: str) -> NDArray[np.object_]:
        """Text (n,), the cheapest certifier that is said to prove each image, or empty."""
        names = np.full(len(self.images), "", dtype=object)
        for name in reversed(PROVERS):
            names[self.yes(CERTIFIER_COLUMNS[name], epsilon)] = name
        return names

    def differ(
        self,
        what: str,
        rows: BoolArray,
        claimed: NDArray[np.generic] | str,
        measured: NDArray[np.generic] | str,
        epsilon: str = "",
    ) -> Iterable[Mismatch]:
        """One mismatch for the rows that are marked, if there are any."""
        places = np.flatnonzero(rows)
        if len(places):
            first = places[0]
            said, found = (
                one if isinstance(one, str) else one[first] for one in (claimed, measured)
            )
            ids = tuple(int(image) for image in self.images[places])
            yield Mismatch(what, said, found, epsilon, ids)
