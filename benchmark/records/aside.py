"""Records of one result that are files of their own, beside no result.

No number of a result, no identity, no digest and no rank depends on them, and results that are
published already stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from corobench.benchmark.records.base import (
    FirstSchema,
    Identifier,
    Sha256,
    ShortText,
    StoredRecord,
)
from corobench.benchmark.records.result import Result

SCHEMA: Final = 1


class Aside(StoredRecord):
    """What such a record says of the result it belongs to.

    Attributes:
        entry, track, n, fingerprint, weights_sha256: those of the result.
    """

    schema_: FirstSchema = Field(alias="schema")
    entry: Identifier
    track: ShortText
    n: int = Field(ge=1)
    fingerprint: Sha256
    weights_sha256: Sha256


def owner(result: Result) -> dict[str, Any]:
    """The keys of an :class:`Aside` that name its result."""
    return {
        "entry": result.entry,
        "track": result.track,
        "n": result.n,
        "fingerprint": result.data.fingerprint,
        "weights_sha256": result.weights_sha256,
    }


def aside_path(result_path: Path, folder: str, ending: str) -> Path:
    """Where the record of a result lies; frozen rounds stay as they are.

    Args:
        result_path: of the result file.
        folder: of all records of this kind, below the folder of results.
        ending: of their files.

    >>> aside_path(Path("results/1.1/digits/lwm@100.json"), "curves", ".curve").as_posix()
    'results/curves/1.1/digits/lwm@100.curve'
    """
    round_ = result_path.parent.parent
    return (
        round_.parent
        / folder
        / round_.name
        / result_path.parent.name
        / f"{result_path.stem}{ending}"
    )


def faults_of_owner(record: Aside, expected: Mapping[str, object]) -> list[str]:
    """Keys of a record that are not those of its result, one line each.

    Args:
        record: as read.
        expected: key -> value, such as those of :func:`owner`.
    """
    return [
        f"{key}: expected {value!r} as in the result, found {getattr(record, key)!r}"
        for key, value in expected.items()
        if getattr(record, key) != value
    ]
