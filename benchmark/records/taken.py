"""Which class each stored adversarial image of a result is taken for.

It is a file of its own, beside no result: no number of a result, no identity, no digest and no rank
depends on it, and results that are published already stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from corobench.benchmark.records.base import Identifier, Sha256, ShortText, StoredRecord
from corobench.benchmark.records.result import Result

SCHEMA: Final = 1
#: Folder of all such files below the folder of results; frozen rounds stay as they are.
FOLDER = "taken"
ENDING = ".taken"
#: Instead of a class, where a logit is not finite.
NO_CLASS = -1
MAX_IMAGES = 1_000_000


class Taken(StoredRecord):
    """The classes of one result.

    Attributes:
        entry, track, n, fingerprint, weights_sha256: those of the result.
        adversarial_sha256: of the file of adversarial images.
        predicted: class per row of that file, each image alone; at a tie with the true class,
            another one; :data:`NO_CLASS` where a logit is not finite.
    """

    schema_: Literal[1] = Field(alias="schema")
    entry: Identifier
    track: ShortText
    n: int = Field(ge=1)
    fingerprint: Sha256
    weights_sha256: Sha256
    adversarial_sha256: Sha256
    predicted: tuple[Annotated[int, Field(ge=NO_CLASS, lt=100_000)], ...] = Field(
        max_length=MAX_IMAGES
    )


def taken_path(result_path: Path) -> Path:
    """Where the classes of a result lie.

    >>> taken_path(Path("results/1.1/digits/lwm@100.json")).as_posix()
    'results/taken/1.1/digits/lwm@100.taken'
    """
    folder = result_path.parent
    place = folder.parent.parent / FOLDER / folder.parent.name / folder.name
    return place / f"{result_path.stem}{ENDING}"


def faults_of_taken(taken: Taken, result: Result, adversarial_sha256: str) -> list[str]:
    """Why classes are not those of a result, or not of these images."""
    expected = {
        "entry": result.entry,
        "track": result.track,
        "n": result.n,
        "fingerprint": result.data.fingerprint,
        "weights_sha256": result.weights_sha256,
        "adversarial_sha256": adversarial_sha256,
    }
    return [
        f"{key}: expected {value!r} as in the result, found {getattr(taken, key)!r}"
        for key, value in expected.items()
        if getattr(taken, key) != value
    ]
