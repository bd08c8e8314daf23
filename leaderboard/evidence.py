"""The outcome table and the adversarial images that lie beside a result file.

A page is complete without them: what needs them (classes, galleries, comparisons, rank groups) is
left out where they are missing. A table that says something else than its result is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from benchmark.errors import ResultError
from benchmark.records import Outcome, Result
from benchmark.tracks import TRACKS
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

    def adversarial(self, num_rows: int) -> NDArray[np.float32]:
        """The first `num_rows` adversarial images, float32 (rows, C, H, W) in [0, 1].

        Only as much of the file is decompressed; fewer come back where it holds fewer.

        Raises:
            ResultError: the file is damaged, or holds no array `images` of the right type.
        """
        assert self.adversarial_path is not None
        try:
            with (
                zipfile.ZipFile(self.adversarial_path) as archive,
                archive.open("images.npy") as stream,
            ):
                version = np.lib.format.read_magic(stream)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, is_fortran, dtype = read_header(stream)
                if is_fortran or dtype != np.float32 or len(shape) != 4:
                    raise ValueError(f"images has shape {shape} and type {dtype}")
                rows = min(num_rows, shape[0])
                content = stream.read(rows * int(np.prod(shape[1:])) * dtype.itemsize)
                return np.frombuffer(content, dtype).reshape(rows, *shape[1:])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ResultError(
                f"{self.adversarial_path}: expected an npz with the float32 array 'images' "
                f"({error}); evaluate the entry again, or move the file away to render without it"
            ) from error

    def is_right(self, epsilon: str, letters: str) -> NDArray[np.bool_]:
        """bool (n,): images whose outcome is one of these letters."""
        known = self.epsilons[epsilon].letters
        found = known == letters[0]
        for letter in letters[1:]:
            found |= known == letter
        return found


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
        with pyarrow.parquet.ParquetFile(table_path) as file:  # half the time of `read_table`
            _check_size(file.metadata.num_rows, result, table_path)
            table = file.read(columns=list(COLUMNS), use_threads=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise ResultError(f"{table_path}: not an outcome table ({error}); evaluate again") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ResultError(f"{table_path}: expected the columns {', '.join(missing)}; found none")
    numbers = {name: _numbers(table, name) for name in ("position", "image", "label", "predicted")}
    numbers |= {name: _numbers(table, name) for name in ("margin", "adversarial")}
    texts, letters = _texts(table, "epsilon"), _letters(table, table_path)
    epsilons: dict[str, AtEpsilon] = {}
    order = np.arange(0)
    for epsilon in result.epsilons:
        here = np.flatnonzero(texts == epsilon)
        order = here[np.argsort(numbers["position"][here], kind="stable")]
        epsilons[epsilon] = AtEpsilon(
            letters=letters[order],
            margins=numbers["margin"][order].astype("float32"),
            rows=numbers["adversarial"][order].astype("int32"),
        )
        _check_counts(epsilons[epsilon].letters, result, epsilon, table_path)
    _check_labels(numbers["label"], len(TRACKS[result.track].classes), table_path)
    images_path = path.with_name(f"{path.stem}.adversarial.npz")
    return Evidence(
        images=numbers["image"][order].astype("int32"),
        labels=numbers["label"][order].astype("int16"),
        predicted=numbers["predicted"][order].astype("int16"),
        epsilons=epsilons,
        adversarial_path=images_path if images_path.is_file() else None,
    )


def _numbers(table: pyarrow.Table, name: str) -> NDArray[np.generic]:
    """A column as an array; what is missing is NaN."""
    array: NDArray[np.generic] = table.column(name).to_numpy()
    return array


def _texts(table: pyarrow.Table, name: str) -> NDArray[np.str_]:
    """A column with few different texts as an array."""
    coded = table.column(name).combine_chunks().dictionary_encode()
    known = np.asarray([str(text) for text in coded.dictionary.to_pylist()])
    texts: NDArray[np.str_] = known[coded.indices.to_numpy()]
    return texts


def _letters(table: pyarrow.Table, path: Path) -> Letters:
    outcomes = _texts(table, "outcome")
    letters = np.full(len(outcomes), "?", dtype="U1")
    for outcome, letter in LETTERS.items():
        letters[outcomes == str(outcome)] = letter
    if (letters == "?").any():
        found = outcomes[letters == "?"][0]
        raise ResultError(f"{path}: outcome: expected one of the six outcomes, found {found!r}")
    return letters


def _check_size(num_rows: int, result: Result, path: Path) -> None:
    """Refuse, before it is unpacked, a table with other than one row per image and epsilon."""
    expected = result.n * len(result.epsilons)
    if num_rows != expected:
        raise ResultError(
            f"{path}: expected {expected} rows, one per image and epsilon of {result.entry}.json, "
            f"found {num_rows}; evaluate again"
        )


def _check_labels(labels: NDArray[np.generic], num_classes: int, path: Path) -> None:
    """Refuse labels that are no class of the track."""
    known = np.isin(labels, np.arange(num_classes))
    if not known.all():
        raise ResultError(
            f"{path}: label: expected classes from 0 to {num_classes - 1}, "
            f"found {labels[~known][0]}; evaluate again"
        )


def _check_counts(letters: Letters, result: Result, epsilon: str, path: Path) -> None:
    """Refuse a table that counts otherwise than its result."""
    for outcome, expected in result.epsilons[epsilon].counts.items():
        found = int((letters == LETTERS[outcome]).sum())
        if found != expected:
            raise ResultError(
                f"{path}: epsilon {epsilon}: expected {expected} rows {outcome} as in "
                f"{result.entry}.json, found {found}; run `corobench score {path} --write`"
            )
