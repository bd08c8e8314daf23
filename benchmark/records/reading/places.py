"""Where results lie, and what the path of one says of it."""

from __future__ import annotations

import re
from pathlib import Path

from corobench.benchmark.records.result import Result
from corobench.benchmark.tracks import PROTOCOL, TRACKS, get_track, round_of, standard_subset

LAYOUT = "<protocol>/<track>/<entry>.json"

#: Rounds whose rules this corobench knows, oldest first.
ROUNDS = ("1.0", round_of(PROTOCOL))

_PROTOCOL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")


def beside(path: Path, ending: str) -> Path:
    """The file of another kind that belongs to a result file."""
    return path.with_name(f"{path.stem}.{ending}")


def result_stem(entry: str, n: int, standard_n: int) -> str:
    """File name of a result without its ending: another n than the standard one is named.

    >>> result_stem("lwm-10x", 1000, 1000), result_stem("lwm-10x", 100, 1000)
    ('lwm-10x', 'lwm-10x@100')
    """
    return entry if n == standard_n else f"{entry}@{n}"


def is_protocol(text: str) -> bool:
    """Whether a text can be a protocol version and so a folder's name."""
    return _PROTOCOL.fullmatch(text) is not None


def is_at_result_place(path: Path) -> bool:
    """Whether a path ends as a result file's does.

    >>> is_at_result_place(Path("results/1.0/digits/lwm.json"))
    True
    >>> is_at_result_place(Path("results/notes/digits/lwm.json"))
    False
    """
    return (
        path.suffix == ".json"
        and path.parent.name in TRACKS
        and is_protocol(path.parent.parent.name)
    )


def misplaced(path: Path, result: Result) -> list[str]:
    """Faults of a file at a result's place whose folder or name says something else than it holds.

    Args:
        path: of the file.
        result: what it holds; its track is known.
    """
    real = path.resolve()
    if not is_at_result_place(real) or result.track not in TRACKS:
        return []
    stem, _, size = real.stem.partition("@")
    standard = standard_subset(get_track(result.track))
    said = {
        "protocol": (real.parent.parent.name, round_of(result.protocol)),
        "track": (real.parent.name, result.track),
        "entry": (stem, result.entry),
        "n": (size or str(standard), str(result.n)),
    }
    faults = [
        f"{key}: expected {expected!r} as in the file's path, found {found!r}"
        for key, (expected, found) in said.items()
        if expected != found
    ]
    expected_stem = result_stem(result.entry, result.n, standard)
    if not faults and real.stem != expected_stem:
        faults.append(f"the file's name: expected {expected_stem}.json, found {real.name}")
    return faults
