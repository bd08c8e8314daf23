"""Jobs: the unit in which the work of an evaluation is handed out, and who computes them.

A job is a pure function of the network, the images and what the job says. Stages make lists of
jobs; an executor computes them, here or in other processes or on other machines, in any order;
the stages alone write what comes back. So a result is the same whoever computed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.files.atomic import canonical_json
from corobench.benchmark.files.steps import Ended

Arrays = dict[str, np.ndarray]
"""What a job gives back: arrays of numbers, bools and bounded strings, never objects."""


@dataclass(frozen=True)
class Job:
    """One piece of work on some images of one entry.

    Attributes:
        name: of its chunk; unique within an evaluation, and the name of its step.
        kind: what is done; see `benchmark.evaluation.workbench`.
        rows: positions of the images among the n of the evaluation.
        epsilon: exact radius as text; empty where none is needed.
        told: what else the work depends on, as JSON holds it.
    """

    name: str
    kind: str
    rows: tuple[int, ...]
    epsilon: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> NDArray[np.int64]:
        """`rows` as an array."""
        return np.asarray(self.rows, dtype=np.int64)

    @property
    def digest(self) -> str:
        """sha256 of all that the job says, by which a kept answer is recognised."""
        return hashlib.sha256(canonical_json(self.as_json()).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "name": self.name,
            "kind": self.kind,
            "rows": list(self.rows),
            "epsilon": self.epsilon,
            "told": dict(self.told),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Job:
        """The job that `as_json` wrote.

        >>> job = Job("clean-0000", "clean", (0, 1))
        >>> Job.from_json(job.as_json()) == job
        True
        """
        return cls(
            str(told["name"]),
            str(told["kind"]),
            tuple(int(row) for row in told["rows"]),
            str(told["epsilon"]),
            dict(told["told"]),
        )


class Executor(Protocol):
    """Who computes jobs."""

    def map(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Arrays | Ended]]:
        """Compute jobs, and give each back with its answer, in any order.

        What is not asked for any more, because the iterator is closed, need not be computed.

        Args:
            jobs: of one evaluation; none depends on another.

        Returns:
            Each job once, with its arrays, or with the reason why it has no answer.
        """
        ...


def in_order(
    jobs: Sequence[Job], answered: Iterator[tuple[Job, Arrays | Ended]]
) -> Generator[tuple[Job, Arrays | Ended], None, None]:
    """Answers that come in any order, in the order of the jobs.

    Closing it closes what gives the answers.
    """
    waiting: dict[str, Arrays | Ended] = {}
    wanted = iter(jobs)
    next_job = next(wanted, None)
    try:
        for job, answer in answered:
            waiting[job.name] = answer
            while next_job is not None and next_job.name in waiting:
                yield next_job, waiting.pop(next_job.name)
                next_job = next(wanted, None)
    finally:
        close = getattr(answered, "close", None)
        if close is not None:
            close()
