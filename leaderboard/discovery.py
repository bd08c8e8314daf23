"""Which files under the given paths are result files.

A folder holds results as ``<protocol>/<track>/<entry>.json``, or ``<entry>@<n>.json`` where n is
not the track's standard one: the path is the key. Other JSON files are left alone, and said so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.places import LAYOUT, is_at_result_place


@dataclass(frozen=True)
class Candidate:
    """A file to read as a result.

    Attributes:
        path: as reached from what the user named.
        named: whether the user named the file itself; then its place says nothing.
    """

    path: Path
    named: bool


@dataclass(frozen=True)
class Ignored:
    """A JSON file that was found and not read, and why."""

    path: Path
    reason: str


def find_result_files(paths: Sequence[Path]) -> tuple[list[Candidate], list[Ignored]]:
    """Result files under `paths`, sorted, each file once.

    Args:
        paths: result files, or folders that are searched recursively.

    Returns:
        Files to read, and JSON files that are not at ``<protocol>/<track>/<entry>.json``.

    Raises:
        ResultError: a path that is not there, or no path at all.
    """
    if not paths:
        raise ResultError("no results given: expected result files or folders with them")
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise ResultError(
            f"{', '.join(missing)}: expected a result file or a folder of {LAYOUT}, found nothing"
        )
    named = {path.resolve(): path for path in sorted(paths) if path.is_file()}
    candidates = {real: Candidate(path, named=True) for real, path in named.items()}
    ignored: dict[Path, Ignored] = {}
    for folder in sorted(path for path in paths if path.is_dir()):
        for path in _walk_json(folder):
            real = path.resolve()
            if real in candidates or real in ignored:
                continue
            if is_at_result_place(real):
                candidates[real] = Candidate(path, named=False)
            else:
                ignored[real] = Ignored(path, f"not at {LAYOUT}")
    by_path = sorted(candidates.values(), key=lambda candidate: str(candidate.path))
    return by_path, sorted(ignored.values(), key=lambda item: str(item.path))


def _walk_json(folder: Path) -> Iterator[Path]:
    """JSON files under a folder in sorted order; hidden folders and links are not entered."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".json"):
                yield Path(parent, name)
