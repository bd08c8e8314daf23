"""The outcome table and the adversarial images that lie beside a result file.

A page is complete without them: what needs them (classes, galleries, comparisons, rank groups) is
left out where they are missing. A table that says something else than its result is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from benchmark.errors import ResultError
from benchmark.records import Outcome, Result
from leaderboard.loading import identity

#: One letter per outcome, in the files that the compare page reads.
LETTERS = {
    Outcome.CERTIFIED: "c",
    Outcome.UNDECIDED: "u",
    Outcome.TIMEOUT: "t",
    Outcome.ERROR: "e",
    Outcome.ATTACKED: "a",
    Outcome.MISCLASSIFIED: "m",
}
COLUMNS = ("position", "image", "label", "predicted", "epsilon", "outcome", "margin", "adversarial")

Letters = NDArray[np.str_]


class AtEpsilon(NamedTuple):
    """What is known of each image at one epsilon, in the published order.

    Attributes:
        letters: (n,) one of :data:`LETTERS`.
        margins: float32 (n,) certified lower bound of the logit margin; NaN where none is known.
        rows: int32 (n,) row in the adversarial file, or -1.
    """

    letters: Letters
    margins: NDArray[np.float32]
    rows: NDArray[np.int32]


@dataclass(frozen=True)
class Evidence:
    """What lies beside a result file.

    Attributes:
        images: int32 (n,) index in the test set, in the published order.
        labels: int16 (n,) true classes.
        predicted: int16 (n,) classes predicted without an attack.
        epsilons: epsilon -> outcomes.
        adversarial_path: the file of adversarial images, or None.
    """

    images: NDArray[np.int32]
    labels: NDArray[np.int16]
    predicted: NDArray[np.int16]
    epsilons: dict[str, AtEpsilon]
    adversarial_path: Path | None

    @cached_property
    def adversarial(self) -> NDArray[np.float32]:
        """float32 (rows, C, H, W) in [0, 1].

        Raises:
            ResultError: the file is damaged, or holds no array `images`.
        """
        assert self.adversarial_path is not None
        try:
            with np.load(self.adversarial_path, allow_pickle=False) as archive:
                images: NDArray[np.float32] = archive["images"]
                return images
        except (OSError, ValueError, KeyError) as error:
            raise ResultError(
                f"{self.adversarial_path}: expected an npz with the array 'images' ({error}); "
                "evaluate the entry again, or move the file away to render without a gallery"
            ) from error

    def is_right(self, epsilon: str, letters: str) -> NDArray[np.bool_]:
        """bool (n,): images whose outcome is one of these letters."""
        return np.isin(self.epsilons[epsilon].letters, list(letters))


EvidenceOf = dict[tuple[str, ...], Evidence]


def read_all(results: tuple[Result, ...], paths: tuple[Path, ...]) -> EvidenceOf:
    """Identity of a result -> its evidence, for the results that have an outcome table.

    Raises:
        ResultError: a table is damaged or contradicts its result.
    """
    found = {}
    for result, path in zip(results, paths, strict=True):
        evidence = read_evidence(result, path)
        if evidence is not None:
            found[identity(result)] = evidence
    return found


def read_evidence(result: Result, path: Path) -> Evidence | None:
    """The evidence of one result, or None where no outcome table lies beside it.

    Args:
        result: as read from `path`.
        path: of the result file.

    Raises:
        ResultError: the table is damaged, lacks a column, or contradicts the result.
    """
    table_path = path.with_name(f"{path.stem}.outcomes.parquet")
    if not table_path.is_file():
        return None
    try:
        table = pyarrow.parquet.read_table(table_path, columns=list(COLUMNS)).to_pandas()
    except (OSError, pyarrow.ArrowException) as error:
        raise ResultError(f"{table_path}: not an outcome table ({error}); evaluate again") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ResultError(f"{table_path}: expected the columns {', '.join(missing)}; found none")
    epsilons = {
        epsilon: _at_epsilon(table[table["epsilon"] == epsilon], result, epsilon, table_path)
        for epsilon in result.epsilons
    }
    first = table[table["epsilon"] == next(iter(result.epsilons))].sort_values("position")
    images_path = path.with_name(f"{path.stem}.adversarial.npz")
    return Evidence(
        images=first["image"].to_numpy("int32"),
        labels=first["label"].to_numpy("int16"),
        predicted=first["predicted"].to_numpy("int16"),
        epsilons=epsilons,
        adversarial_path=images_path if images_path.is_file() else None,
    )


def _at_epsilon(rows: pd.DataFrame, result: Result, epsilon: str, path: Path) -> AtEpsilon:
    rows = rows.sort_values("position")
    counts = rows["outcome"].value_counts()
    for outcome, expected in result.epsilons[epsilon].counts.items():
        found = int(counts.get(str(outcome), 0))
        if found != expected:
            raise ResultError(
                f"{path}: epsilon {epsilon}: expected {expected} rows {outcome} as in "
                f"{result.entry}.json, found {found}; run `corobench score {path} --write`"
            )
    letters = rows["outcome"].map({str(key): letter for key, letter in LETTERS.items()})
    return AtEpsilon(
        letters=letters.to_numpy("U1"),
        margins=rows["margin"].to_numpy("float32", na_value=np.nan),
        rows=rows["adversarial"].to_numpy("int32"),
    )
