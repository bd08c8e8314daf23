"""What a result says that its weights weigh, compared with what they do weigh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.places import is_at_result_place
from corobench.benchmark.records.result import Compactness, Result

#: How far a result lies below the folder that holds `leaderboard` and `submissions`.
ROOT_ABOVE = 4
#: Another release of zstandard may make a few bytes more or less of the same values.
UNSTEADY = {"bytes_packed_zstd"}
#: By how much such a key may differ: so many bytes, and one in so many.
UNSTEADY_BYTES, UNSTEADY_SHARE = 64, 100


def changed_keys(said: Compactness, measured: Compactness) -> Iterator[tuple[str, object, object]]:
    """Keys that are not what was measured, with what was said and what was measured.

    A key that was said and is not there is one of them. One that was not said is none: results of
    earlier versions have fewer.
    """
    old, new = said.model_dump(), measured.model_dump()
    for key in sorted(old):
        if key == "layers":
            yield from _layers(old[key], new[key])
        elif old[key] != new.get(key) and not _is_release(key, old[key], new.get(key)):
            yield key, old[key], new.get(key)


def require_weighed(result: Result, measured: Compactness, path: Path, weights: Path) -> None:
    """Refuse a result whose weights do not weigh what it says.

    Args:
        result: as read from `path`.
        measured: of its weights.
        path: of the result file.
        weights: what was measured: a folder, or a result of the same weights.

    Raises:
        ResultError: names both files, the first key that differs and both values.
    """
    for key, said, found in changed_keys(result.compactness, measured):
        raise ResultError(
            f"{path}: compactness.{key}: the result says {said!r}, but the weights of {weights} "
            f"have {found!r}"
        )


def folder_at_hand(path: Path, entry: str) -> Path | None:
    """The folder of a result's entry, where one is: beside the results, or in the current folder.

    Args:
        path: of the result file, such as ``leaderboard/results/1.0/digits/lwm.json``.
        entry: its id.
    """
    places = [Path()]
    real = path.resolve()
    if is_at_result_place(real) and len(real.parents) > ROOT_ABOVE:
        places.insert(0, real.parents[ROOT_ABOVE])
    folders = (place / "submissions" / entry for place in places)
    return next((one for one in folders if (one / "submission.toml").is_file()), None)


def _layers(said: object, measured: object) -> Iterator[tuple[str, object, object]]:
    old, new = list(said), list(measured)  # type: ignore[call-overload]
    for number, (one, other) in enumerate(zip(old, new, strict=False)):
        for key in one:
            if one[key] != other[key]:
                yield f"layers.{number}.{key}", one[key], other[key]
    if len(old) != len(new):
        yield "layers", f"{len(old)} layers", f"{len(new)} layers"


def _is_release(key: str, said: object, measured: object) -> bool:
    """Whether a difference is as small as another release of the library makes it."""
    if key not in UNSTEADY or not isinstance(said, int) or not isinstance(measured, int):
        return False
    return abs(said - measured) <= UNSTEADY_BYTES + measured // UNSTEADY_SHARE
