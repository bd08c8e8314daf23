"""An outcome table as plain arrays: what scores and pages are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.records.result import OUTCOME_COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: Columns of text, and those whose answer may be missing.
TEXTS = tuple(name for name, (dtype, _) in OUTCOME_COLUMNS.items() if dtype == "string")
ANSWERS = tuple(name for name, (dtype, _) in OUTCOME_COLUMNS.items() if dtype == "boolean")
_NUMBERS = tuple(name for name in OUTCOME_COLUMNS if name not in (*TEXTS, *ANSWERS))

BoolArray = NDArray[np.bool_]
YES, NO, MISSING = 1, 0, -1


@dataclass(frozen=True)
class Text:
    """A column of few different texts.

    Attributes:
        codes: int (rows,), place of each row's text in `values`.
        values: the different texts.
    """

    codes: NDArray[np.integer]
    values: tuple[str, ...]

    def equals(self, text: str) -> BoolArray:
        """bool (rows,): where the text stands."""
        return self.is_in((text,))

    def is_in(self, texts: Sequence[str]) -> BoolArray:
        """bool (rows,): where one of the texts stands."""
        chosen = np.array([value in texts for value in self.values], dtype=bool)
        return np.asarray(chosen[self.codes]) if len(chosen) else np.zeros(len(self.codes), bool)

    def at(self, row: int) -> str:
        """The text of one row."""
        return self.values[int(self.codes[row])]

    def counts(self) -> dict[str, int]:
        """Text -> rows that hold it, sorted, without those that hold none."""
        numbers = np.bincount(self.codes, minlength=len(self.values))
        return {
            text: int(number)
            for text, number in sorted(zip(self.values, numbers, strict=True))
            if number
        }


@dataclass(frozen=True)
class Columns:
    """The columns of an outcome table (`benchmark.records.result.OUTCOME_COLUMNS`), as arrays
    (rows,).

    Attributes:
        numbers: column -> integers; for `margin` and `seconds` float32, where NaN is missing.
        texts: column -> text.
        answers: column -> int8: :data:`YES`, :data:`NO` or :data:`MISSING`. Missing is an answer of
            its own; nothing turns it into a yes or a no.
    """

    numbers: dict[str, NDArray[Any]]
    texts: dict[str, Text]
    answers: dict[str, NDArray[np.int8]]

    def __len__(self) -> int:
        return len(self.numbers["image"])

    @property
    def is_right(self) -> BoolArray:
        """Right without an attack."""
        return np.asarray(self.numbers["predicted"] == self.numbers["label"])

    def rows(self, chosen: slice | BoolArray | NDArray[np.integer]) -> Columns:
        """Some of the rows."""
        return Columns(
            {name: column[chosen] for name, column in self.numbers.items()},
            {name: Text(text.codes[chosen], text.values) for name, text in self.texts.items()},
            {name: column[chosen] for name, column in self.answers.items()},
        )

    @classmethod
    def of_frame(cls, table: pd.DataFrame) -> Columns:
        """From a data frame with the columns and types of `OUTCOME_COLUMNS`."""
        import pandas as pd

        numbers = {
            name: table[name].to_numpy(dtype=np.float32, na_value=np.nan)
            if name in ("margin", "seconds")
            else table[name].to_numpy()
            for name in _NUMBERS
        }
        texts = {}
        for name in TEXTS:
            codes, values = pd.factorize(table[name], use_na_sentinel=False)
            texts[name] = Text(codes, tuple(str(value) for value in values))
        answers = {
            name: table[name].astype("Int8").to_numpy(dtype=np.int8, na_value=MISSING)
            for name in ANSWERS
        }
        return cls(numbers, texts, answers)

    @classmethod
    def of_arrow(cls, table: pa.Table) -> Columns:
        """From an arrow table whose columns of text are dictionaries (`reading.table_file`)."""
        arrays = {name: table.column(name).combine_chunks() for name in OUTCOME_COLUMNS}
        numbers = {name: _numbers(arrays[name]) for name in _NUMBERS}
        texts = {
            name: Text(_numbers(arrays[name].indices), tuple(arrays[name].dictionary.to_pylist()))
            for name in TEXTS
        }
        answers = {
            name: np.where(_is_there(arrays[name]), _bits(arrays[name], 1), MISSING).astype(np.int8)
            for name in ANSWERS
        }
        return cls(numbers, texts, answers)


def _numbers(array: pa.Array) -> NDArray[Any]:
    """Values of an array of numbers, without pandas; what is missing is NaN."""
    dtype = {"float": "float32"}.get(str(array.type), str(array.type))
    if not len(array):
        return np.zeros(0, dtype=dtype)
    values = np.frombuffer(array.buffers()[1], dtype=dtype)
    values = values[array.offset : array.offset + len(array)]
    return np.where(_is_there(array), values, np.nan).astype(dtype) if array.null_count else values


def _bits(array: pa.Array, buffer: int) -> BoolArray:
    """One of the buffers of an array that hold one bit per value."""
    content = array.buffers()[buffer]
    if not len(array) or content is None:
        return np.zeros(len(array), dtype=bool)
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(bool)


def _is_there(array: pa.Array) -> BoolArray:
    """Where an array holds a value and not nothing."""
    return _bits(array, 0) if array.null_count else np.ones(len(array), dtype=bool)
