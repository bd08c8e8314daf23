"""Older result files -> the shape of today, without changing a number.

``CHAIN`` leads from one schema number to the next; schema 1 is the only one so far, so it is empty.
Schema 1 itself got columns and keys later, which files of the first published results lack: those
are filled in as "not asked" and by the records' defaults. Then the result is computed again from
its outcome table, and every value that was there must still be there.

A migrated file is readable; it is no result of today's settings. What was evaluated with other
settings stands apart on pages (`benchmark.scoring.ranking.why_unpublished`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import (
    read_payload,
    read_result,
    require_schema,
)
from corobench.benchmark.records.reading.table_file import (
    as_frame,
    read_raw_outcomes,
    typed_columns,
)
from corobench.benchmark.records.result import CERTIFIER_COLUMNS, SCHEMA, Result
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import finish_set, is_unfinished, write_set
from corobench.benchmark.scoring.score import score
from corobench.benchmark.scoring.scored import read_beside

if TYPE_CHECKING:
    import pyarrow as pa

NOT_ASKED = "added to corobench after this evaluation"


@dataclass
class Stored:
    """A result as it lies on the disk, before its types are checked; steps change it in place.

    Attributes:
        payload: JSON object of the result file.
        run: JSON object of the run that the outcome table carries.
        table: the outcome table with whatever columns it has.
    """

    payload: dict[str, Any]
    run: dict[str, Any]
    table: pa.Table


@dataclass(frozen=True)
class Migrated:
    """What migrating one result did, or would do.

    Attributes:
        path: of the result file.
        steps: in order, for people; empty where the file has the shape of today.
    """

    path: Path
    steps: tuple[str, ...]


#: Schema number -> the step to the next one.
CHAIN: dict[int, Callable[[Stored], None]] = {}


def migrate(path: Path, *, write: bool = False) -> Migrated:
    """Bring a result file and its outcome table into the shape of today.

    Args:
        path: the result file; its outcome table lies beside it.
        write: replace both, once everything is checked.

    Raises:
        ResultError: unreadable, of an unknown or newer schema, or a value would change.
        OutputError: a file cannot be written, or belongs to a frozen round.
    """
    if write and is_unfinished(path):
        rounds.require_open(path.parent)
        finish_set(path)
    outcomes = beside(path, "outcomes.parquet")
    payload = read_payload(path)
    first = payload.get("schema")
    if first not in CHAIN:
        require_schema(payload, path)
    table, run = read_raw_outcomes(outcomes)
    stored = Stored(payload, run, table)
    steps = []
    for schema in range(int(payload["schema"]), SCHEMA):
        CHAIN[schema](stored)
        stored.payload["schema"] = schema + 1
        steps.append(f"schema {schema} to schema {schema + 1}")
    before = json.loads(json.dumps(stored.payload))
    steps += _complete(stored)
    if not steps:
        read_beside(path, read_result(path))
        return Migrated(path, ())
    columns, record = typed_columns(stored.table, stored.run, outcomes)
    before.pop("files", None)  # digests of files that are written again
    result = score(columns, record, str(outcomes))
    changed = list(_changes(before, json.loads(encode_result(result))))
    if changed:
        raise ResultError(
            f"{path}: does not agree with the outcome table beside it, so nothing was migrated: "
            + "; ".join(changed[:10])
        )
    if write:
        rounds.require_open(path.parent)
        write_set(path, as_frame(stored.table), record)
    return Migrated(path, tuple(steps))


def _complete(stored: Stored) -> list[str]:
    """Fill in what schema 1 got later; says what."""
    import pyarrow as pa

    steps = []
    columns = stored.table.column_names
    missing = [name for name, column in CERTIFIER_COLUMNS.items() if column not in columns]
    for name in missing:
        nothing = pa.nulls(stored.table.num_rows, pa.bool_())
        stored.table = stored.table.append_column(CERTIFIER_COLUMNS[name], nothing)
        stored.run.setdefault("not_asked", {}).setdefault(name, NOT_ASKED)
    if missing:
        steps.append(f"not asked: {', '.join(missing)}")
    # A key that is None by default is left out where it was not asked.
    fields = Result.model_fields.items()
    keys = [field.alias or name for name, field in fields if field.default is not None]
    lacking = [key for key in keys if key not in stored.payload]
    if lacking:
        steps.append(f"keys that were added later: {', '.join(lacking)}")
    return steps


def _changes(before: object, after: object, key: str = "") -> Iterator[str]:
    """Values that were there and are gone or different; more keys are no change."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            inner = f"{key}.{name}".lstrip(".")
            if name in after:
                yield from _changes(value, after[name], inner)
            else:
                yield f"{inner}: would be lost"
    elif before != after:
        yield f"{key}: {before!r} would become {after!r}"
