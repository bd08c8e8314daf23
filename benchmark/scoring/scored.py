"""A result and the outcome table beside it, read together: what one says, the other must say.

Whatever leads to a board, a verdict or a report reads a result through here: the scorecard is
computed from the outcomes again, every key of the two must agree, digests of files among them, and
after reading the files must still be those of one set (`benchmark.records.result_set`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.arrays_file import count_images
from corobench.benchmark.records.reading.columns import Columns
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_columns, read_outcomes
from corobench.benchmark.records.result import Result, Run
from corobench.benchmark.records.result_set import (
    ADVERSARIAL,
    OUTCOMES,
    sha256_of,
    verify_set,
    with_digest,
)
from corobench.benchmark.scoring.score import count

if TYPE_CHECKING:
    import pandas as pd


def table_path(path: Path) -> Path:
    """The outcome table that belongs to a result file."""
    return beside(path, OUTCOMES)


def scored(path: Path) -> Result:
    """The result file that belongs to an outcome table, as the writer makes it.

    Args:
        path: of the outcome table.

    Raises:
        ResultError: no outcome table, or one that contradicts itself.
    """
    columns, run = read_columns(path)
    return _scored(columns, run, path)


def _scored(table: pd.DataFrame | Columns, run: Run, path: Path) -> Result:
    """The result of a table that was read, and so checked, from `path`.

    A table without the digest of its images was written before digests were, and neither has its
    result file any.
    """
    result = count(table, run)
    if run.files is None:
        return result
    try:
        return with_digest(result, sha256_of(path))
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_scored(path: Path) -> tuple[Result, pd.DataFrame, Run]:
    """A result with its outcome table, as a data frame, and the run inside that.

    Args:
        path: of the result file.

    Raises:
        ResultError: one of the two is missing or at fault, or they do not agree.
    """
    result = read_result(path)
    require_table(path)
    table, run = read_outcomes(table_path(path))
    require_agreement(result, _scored(table, run, table_path(path)), path)
    require_images(path, int(table["adversarial"].max()))
    verify_set(path, result)
    return result, table, run


def read_beside(path: Path, result: Result) -> tuple[Columns, Run]:
    """The outcome table of a result that was read, as arrays, and the run inside.

    Args:
        path: of the result file.
        result: as read from there.

    Raises:
        ResultError: it is missing or at fault, or the two do not agree.
    """
    require_table(path)
    columns, run = read_columns(table_path(path))
    require_agreement(result, _scored(columns, run, table_path(path)), path)
    require_images(path, int(columns.numbers["adversarial"].max()))
    verify_set(path, result)
    return columns, run


def require_table(path: Path) -> None:
    """Refuse a result without its outcome table.

    Raises:
        ResultError: there is none.
    """
    table = table_path(path)
    if not table.is_file():
        raise ResultError(
            f"{table}: expected the outcome table of {path.name} beside it, but found none; copy "
            "all three files that `corobench evaluate` wrote"
        )


def require_images(path: Path, last: int) -> None:
    """Refuse adversarial images, where they lie beside, that are fewer than the table names.

    Args:
        path: of the result file.
        last: largest row of the adversarial file that the table names; -1 for none.

    Raises:
        ResultError: names both files.
    """
    stored = beside(path, ADVERSARIAL)
    if stored.is_file() and (num_images := count_images(stored)) <= last:
        raise ResultError(
            f"{stored}: expected row {last} as in {table_path(path)}, but found {num_images} "
            "images; evaluate the entry again"
        )


def require_agreement(result: Result, scored: Result, path: Path) -> None:
    """Refuse a result that says something else than its outcome table.

    Args:
        result: as read from `path`.
        scored: what follows from the table beside it.
        path: of the result file.

    Raises:
        ResultError: names both files, each key that differs and both values.
    """
    if result == scored:
        return
    lines = list(differences(result.model_dump(mode="json"), scored.model_dump(mode="json")))
    more = f"\n  - and {len(lines) - 10} more" if len(lines) > 10 else ""
    raise ResultError(
        f"{path}: differs from the scorecard of its outcome table {table_path(path)}\n"
        + "\n".join(f"  - {line}" for line in lines[:10])
        + more
    )


def differences(result: object, table: object, key: str = "") -> Iterator[str]:
    """Keys in which two JSON values differ, with both values, one line each.

    >>> list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}))
    ['a.b: 1 in the result, 3 in the table']
    """
    if isinstance(result, dict) and isinstance(table, dict):
        for name in dict.fromkeys((*result, *table)):
            inner = f"{key}.{name}".lstrip(".")
            yield from differences(result.get(name), table.get(name), inner)
    elif result != table:
        yield f"{key}: {_short(result)} in the result, {_short(table)} in the table"


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def require_join(
    first: pd.DataFrame, second: pd.DataFrame, first_path: Path, second_path: Path
) -> None:
    """Refuse to compare tables that are not about the same images, labels and radii.

    The smaller one must be the beginning of the larger one at every epsilon; a comparison on fewer
    images, or on none, would agree with anything.

    Args:
        first, second: outcome tables, rows by epsilon and position.
        first_path, second_path: their files, for messages.

    Raises:
        ResultError: names both files.
    """
    epsilons = list(dict.fromkeys(first["epsilon"]))
    if epsilons != list(dict.fromkeys(second["epsilon"])):
        raise ResultError(f"{second_path}: expected the epsilons of {first_path}, found others")
    for epsilon in epsilons:
        rows = [table[table["epsilon"] == epsilon] for table in (first, second)]
        n = min(map(len, rows))
        for name in ("image", "label"):
            one, other = (table[name].to_numpy()[:n] for table in rows)
            num_same = int((one == other).sum())
            if num_same < n or not n:
                raise ResultError(
                    f"{second_path}: {name}: expected the first {n} of {first_path} at {epsilon}, "
                    f"but only {num_same} of {n} rows are the same; the two have different images "
                    "and cannot be compared"
                )
