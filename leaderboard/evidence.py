"""The outcome table and the adversarial images that lie beside a result file.

A page is complete without them: what needs them (classes, galleries, comparisons, rank groups) is
left out where they are missing. A table that says something else than its result is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.arrays_file import read_images
from corobench.benchmark.records.reading.coded_images import Clean, is_coded, read_coded
from corobench.benchmark.records.reading.columns import YES, Columns, Text
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.result import Outcome, Result
from corobench.benchmark.scoring.scored import read_beside, table_path
from corobench.benchmark.tracks import get_track
from corobench.leaderboard.loading import identity
from corobench.leaderboard.parallel import in_order

#: One letter per outcome, in the files that the compare page reads.
LETTERS = {
    Outcome.CERTIFIED: "c",
    Outcome.UNDECIDED: "u",
    Outcome.TIMEOUT: "t",
    Outcome.ERROR: "e",
    Outcome.ATTACKED: "a",
    Outcome.MISCLASSIFIED: "m",
}

Letters = NDArray[np.str_]


class AtEpsilon(NamedTuple):
    """What is known of each image at one epsilon, in the published order.

    Attributes:
        letters: (n,) one of :data:`LETTERS`.
        margins: float32 (n,) certified lower bound of the logit margin; NaN where none is known.
        rows: int32 (n,) row in the adversarial file, or -1.
        decided_by: (n,) attack or certifier that decided, or empty.
        right_after: attack -> bool (n,), whether its answer is that the image is still right.
    """

    letters: Letters
    margins: NDArray[np.float32]
    rows: NDArray[np.int32]
    decided_by: Text
    right_after: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class EntryEvidence:
    """What lies beside a result file.

    Attributes:
        images: int32 (n,) index in the test set, in the published order.
        labels: int16 (n,) true classes.
        predicted: int16 (n,) classes predicted without an attack.
        epsilons: epsilon -> outcomes.
        shape: of an image of the track.
        adversarial_path: the file of adversarial images, or None.
    """

    images: NDArray[np.int32]
    labels: NDArray[np.int16]
    predicted: NDArray[np.int16]
    epsilons: dict[str, AtEpsilon]
    shape: tuple[int, int, int]
    adversarial_path: Path | None

    def has_pictures(self, clean: Clean | None) -> bool:
        """Whether adversarial images can be drawn: coded ones only beside their clean images.

        Raises:
            ResultError: the file is no archive.
        """
        return self.adversarial_path is not None and (clean is not None or not self._is_coded)

    @cached_property
    def _is_coded(self) -> bool:
        assert self.adversarial_path is not None
        return is_coded(self.adversarial_path)

    def adversarial(
        self, rows: Sequence[int], indices: Sequence[int], clean: Clean | None
    ) -> NDArray[np.float32]:
        """Some adversarial images, float32 (len(rows), C, H, W) in [0, 1].

        Args:
            rows: of the adversarial file.
            indices: of their clean images in the test set, as the outcome table has them.
            clean: of these images at least; see :meth:`has_pictures`.

        Raises:
            ResultError: the file is damaged, holds fewer, or is of other clean images.
        """
        path = self.adversarial_path
        assert path is not None
        if not rows:
            return np.zeros((0, *self.shape), dtype=np.float32)
        if clean is None or not self._is_coded:
            images = read_images(path, self.shape, max(rows) + 1)
            _require_row(path, max(rows), len(images))
            return images[list(rows)]
        coded = read_coded(path, self.shape)
        _require_row(path, max(rows), len(coded))
        for row, index in zip(rows, indices, strict=True):
            if coded.indices[row] not in (index, -1):
                raise ResultError(
                    f"{path}: row {row}: expected an image made from test image {index} as in the "
                    f"outcome table, found one of {coded.indices[row]}; evaluate the entry again"
                )
        return coded.some(np.asarray(rows), clean)

    def is_right(self, epsilon: str, letters: str) -> NDArray[np.bool_]:
        """bool (n,): images whose outcome is one of these letters."""
        known = self.epsilons[epsilon].letters
        found: NDArray[np.bool_] = known == letters[0]
        for letter in letters[1:]:
            found |= known == letter
        return found


def _require_row(path: Path, row: int, found: int) -> None:
    if found <= row:
        raise ResultError(
            f"{path}: expected row {row} as in the outcome table, found {found} images; evaluate "
            "the entry again"
        )


EvidenceOf = dict[tuple[str, ...], EntryEvidence]


def read_all(results: tuple[Result, ...], paths: tuple[Path, ...]) -> EvidenceOf:
    """Identity of a result -> its evidence, for the results that have an outcome table.

    Raises:
        ResultError: a table is damaged or contradicts its result, or two contradict each other.
    """
    pairs = list(zip(results, paths, strict=True))
    read = in_order(lambda pair: read_evidence(*pair), pairs)
    found = {
        identity(result): evidence
        for result, evidence in zip(results, read, strict=True)
        if evidence is not None
    }
    require_same_labels(results, found)
    return found


def read_evidence(result: Result, path: Path) -> EntryEvidence | None:
    """The evidence of one result, or None where no outcome table lies beside it.

    Args:
        result: as read from `path`.
        path: of the result file.

    Raises:
        ResultError: the table is at fault, or says something else than the result.
    """
    if not table_path(path).is_file():
        return None
    columns, run = read_beside(path, result)
    n, numbers = run.n, columns.numbers
    images_path = beside(path, "adversarial.npz")
    return EntryEvidence(
        images=numbers["image"][:n].astype("int32"),
        labels=numbers["label"][:n].astype("int16"),
        predicted=numbers["predicted"][:n].astype("int16"),
        epsilons={
            epsilon: _at_epsilon(columns.rows(slice(place * n, (place + 1) * n)))
            for place, epsilon in enumerate(run.epsilons)
        },
        shape=get_track(run.track).shape,
        adversarial_path=images_path if images_path.is_file() else None,
    )


def require_same_labels(results: tuple[Result, ...], found: EvidenceOf) -> None:
    """Refuse results of one test set that give one image two labels.

    It is known for some test sets which labels they have (`benchmark.records.reading.published`);
    of any other, such as a mirror that is not known, the results must at least agree.

    Raises:
        ResultError: names both entries and the image.
    """
    first: dict[tuple[str, str], tuple[Result, EntryEvidence]] = {}
    for result in results:
        evidence = found.get(identity(result))
        if evidence is None:
            continue
        key = (result.track, result.data.fingerprint)
        other, known = first.setdefault(key, (result, evidence))
        n = min(len(known.images), len(evidence.images))
        wrong = np.flatnonzero(
            (known.images[:n] != evidence.images[:n]) | (known.labels[:n] != evidence.labels[:n])
        )
        if len(wrong):
            raise ResultError(
                f"{other.entry} and {result.entry} on {result.track}: expected the same images and "
                f"labels of {result.data.fingerprint[:12]}, but position {wrong[0]} holds image "
                f"{known.images[wrong[0]]} of class {known.labels[wrong[0]]} in one and image "
                f"{evidence.images[wrong[0]]} of class {evidence.labels[wrong[0]]} in the other"
            )
        if n == len(known.images):
            first[key] = (result, evidence)


def _at_epsilon(rows: Columns) -> AtEpsilon:
    outcomes = rows.texts["outcome"]
    letters = np.full(len(rows), "?", dtype="U1")
    for outcome, letter in LETTERS.items():
        letters[outcomes.equals(outcome)] = letter
    return AtEpsilon(
        letters=letters,
        margins=rows.numbers["margin"].astype("float32"),
        rows=rows.numbers["adversarial"].astype("int32"),
        decided_by=rows.texts["decided_by"],
        right_after={name: rows.answers[name] == YES for name in ("pgd50", "autoattack")},
    )
