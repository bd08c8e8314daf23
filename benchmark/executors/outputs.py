"""Results that are finished below a folder, and evaluations that were interrupted there."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.errors import printable
from corobench.benchmark.files.chunks import ABOUT, CHUNKS, SUFFIX
from corobench.benchmark.records.reading.places import is_at_result_place
from corobench.benchmark.records.reading.result_file import parse_object

MAX_ABOUT_BYTES = 4096
MAX_FOLDERS = 10_000
_KEY = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class Finished:
    """A result file.

    Attributes:
        path: of it.
        round, track, name: as its path says; it is not opened.
        age_s: seconds since it was written.
    """

    path: Path
    round: str
    track: str
    name: str
    age_s: float


@dataclass(frozen=True)
class Unfinished:
    """Finished chunks of an evaluation whose result is not written.

    Attributes:
        entry: its name with the number of images; empty where the folder does not say.
        track: it is evaluated on.
        num_chunks: finished ones.
        last: name of the chunk that was written last.
        age_s: seconds since then.
    """

    entry: str
    track: str
    num_chunks: int
    last: str
    age_s: float


def finished(root: Path) -> list[Finished]:
    """The result files below a folder, by path; none is opened."""
    found = []
    now = time.time()
    for path in sorted(root.glob("*/*/*.json")):
        if is_at_result_place(path) and not path.name.startswith("."):
            with contextlib.suppress(OSError):
                age_s = max(now - path.stat().st_mtime, 0.0)
                round_, track, name = map(
                    printable, (path.parent.parent.name, path.parent.name, path.stem)
                )
                found.append(Finished(path, round_, track, name, age_s))
    return found


def unfinished(root: Path) -> list[Unfinished]:
    """The evaluations below a folder that have chunks and no result, the latest first."""
    found = []
    for number, folder in enumerate(_folders(root / CHUNKS)):
        if number >= MAX_FOLDERS:
            break
        newest, num = (0.0, ""), 0
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    num += 1
                    newest = max(newest, (entry.stat().st_mtime, entry.name))
        if num:
            name, track = _about(folder / ABOUT)
            last = printable(newest[1].removesuffix(SUFFIX))[:120]
            found.append(Unfinished(name, track, num, last, max(time.time() - newest[0], 0.0)))
    return sorted(found, key=lambda one: (one.age_s, one.entry))


def _folders(root: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if _KEY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _about(path: Path) -> tuple[str, str]:
    """What a folder of chunks says of itself: the entry and its track, or nothing."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return "", ""
        with path.open("rb") as stream:
            content = stream.read(MAX_ABOUT_BYTES + 1)
        if len(content) > MAX_ABOUT_BYTES:
            return "", ""
        table = parse_object(content.decode("utf-8"))
    except (OSError, ValueError):
        return "", ""
    entry, track, n = (table.get(key) for key in ("entry", "track", "n"))
    if not isinstance(entry, str) or not isinstance(track, str) or type(n) is not int:
        return "", ""
    return printable(f"{entry}@{n}")[:200], printable(track)[:100]
