"""What a result claims and what was measured, where the two differ; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.errors import ResultError, printable

#: Image ids that one line names, and characters of a claim that it shows.
MAX_NAMED = 8
MAX_SHOWN = 80


@dataclass(frozen=True)
class Mismatch:
    """One difference.

    Attributes:
        what: column of the outcome table, or key of the result.
        claimed: by the file; of the first image, where several differ.
        measured: here; likewise.
        epsilon: radius, or empty.
        images: ids in the test set, or positions where the ids themselves are at fault.
    """

    what: str
    claimed: object
    measured: object
    epsilon: str = ""
    images: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" at {self.epsilon}" if self.epsilon else ""
        if self.images:
            named = ", ".join(map(str, self.images[:MAX_NAMED]))
            left = len(self.images) - MAX_NAMED
            where += f", image{'s' if len(self.images) > 1 else ''} {named}"
            where += f" and {left} more" if left > 0 else ""
        return (
            f"{self.what}{where}: claimed {shown(self.claimed)}, "
            f"but measured {shown(self.measured)}"
        )


def shown(value: object) -> str:
    """A value of a file for people, printable and cut."""
    text = value if isinstance(value, str) else str(value)
    text = printable(text) or "nothing"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def refuse(path: Path, found: Iterable[Mismatch], hint: str = "") -> None:
    """Refuse a result where anything differs.

    Raises:
        ResultError: one line for each difference.
    """
    lines: Sequence[str] = [f"{path}: {one}" for one in found]
    if lines:
        raise ResultError("\n".join([*lines, *([hint] if hint else [])]))
