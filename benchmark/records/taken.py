"""Which class each stored adversarial image of a result is taken for: a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from corobench.benchmark.records.aside import Aside, aside_path, faults_of_owner, owner
from corobench.benchmark.records.base import Sha256
from corobench.benchmark.records.result import Result

#: Folder of all such files below the folder of results.
FOLDER = "taken"
ENDING = ".taken"
#: Instead of a class, where a logit is not finite.
NO_CLASS = -1
MAX_IMAGES = 1_000_000


class Taken(Aside):
    """The classes of one result.

    Attributes:
        adversarial_sha256: of the file of adversarial images.
        predicted: class per row of that file, each image alone; at a tie with the true class,
            another one; :data:`NO_CLASS` where a logit is not finite.
    """

    adversarial_sha256: Sha256
    predicted: tuple[Annotated[int, Field(ge=NO_CLASS, lt=100_000)], ...] = Field(
        max_length=MAX_IMAGES
    )


def taken_path(result_path: Path) -> Path:
    """Where the classes of a result lie.

    >>> taken_path(Path("results/1.1/digits/lwm@100.json")).as_posix()
    'results/taken/1.1/digits/lwm@100.taken'
    """
    return aside_path(result_path, FOLDER, ENDING)


def faults_of_taken(taken: Taken, result: Result, adversarial_sha256: str) -> list[str]:
    """Why classes are not those of a result, or not of these images."""
    return faults_of_owner(taken, owner(result) | {"adversarial_sha256": adversarial_sha256})
