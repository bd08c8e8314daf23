"""Results to make, and who watches how they are made; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.evaluation.settings import Evaluated, Settings


@dataclass(frozen=True)
class Work:
    """One result to make.

    Attributes:
        folder: of the submission.
        settings: what the user chose.
        cost_s: estimated seconds of one worker, for the order; 0 where nothing is known.
        entry: id in the manifest; empty where it is not read yet.
    """

    folder: Path
    settings: Settings
    cost_s: float = 0.0
    entry: str = ""


class Watch(Protocol):
    """Shows how the results are made. It is called by one thread and must not block."""

    def began(self, work: Work) -> None:
        """The process of an entry has started; again where an earlier one was lost."""
        ...

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """What the process of an entry says.

        Args:
            work: that it makes.
            message: ``kind`` is "title", "stage", "advance", "note", "finish" or "say"; ``text``
                and ``number`` are as in `benchmark.executors.remote`.
        """
        ...

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """A result is there, or will not be."""
        ...

    def workers(self, text: str) -> None:
        """One line about the workers, such as "2 workers"."""
        ...


class Unwatched:
    """Shows nothing."""

    def began(self, work: Work) -> None:
        pass

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        pass

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        pass

    def workers(self, text: str) -> None:
        pass
