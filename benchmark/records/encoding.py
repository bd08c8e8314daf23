"""Result files and outcome tables as bytes: equal records give equal bytes."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from corobench.benchmark.records.reading.table_file import RUN_KEY
from corobench.benchmark.records.result import OUTCOME_COLUMNS, Result, Run

if TYPE_CHECKING:
    import pandas as pd

#: Keys of the result file that are left out where they are null.
ADDED_LATER = ("recognition", "constants", "files", "halved_batches", "earlier")


def encode_result(result: Result) -> bytes:
    """The bytes of a result file; equal results give equal bytes."""
    payload = result.model_dump(mode="json", by_alias=True)
    for key in ADDED_LATER:  # older results keep their bytes
        if payload[key] is None:
            del payload[key]
    return (json.dumps(payload, indent=1, ensure_ascii=False) + "\n").encode()


def encode_outcomes(table: pd.DataFrame, run: Run) -> bytes:
    """An outcome table as parquet; the run's record travels in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table[list(OUTCOME_COLUMNS)], preserve_index=False)
    record = run.model_dump_json(by_alias=True).encode()
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), RUN_KEY: record})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    return buffer.getvalue()
