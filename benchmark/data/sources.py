"""Where images come from, in the one order of the protocol.

1. the data root: an argument, or else the variable ``COROBENCH_DATA``; it may be the folder of
   the dataset itself or a parent that holds a folder named after the track;
2. a system copy (Debian's package ``dataset-fashion-mnist``);
3. torchvision's own download, kept in the user's cache; never tried when ``COROBENCH_OFFLINE``
   is set to anything but 0.

`digits` is inside scikit-learn and needs none of them. The first place that has the split is the
one that is used: what is broken there is an error and never passed over in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import platformdirs

from corobench.benchmark.data import cifar10, digits, fashion_mnist, folders, parquet, svhn
from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.download import fetch, is_offline
from corobench.benchmark.data.read import Images
from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import TRACKS, Track

DATA_VARIABLE = "COROBENCH_DATA"

#: Modules that read a dataset's published files: `find`, `read` and `download`.
PUBLISHED: dict[str, ModuleType] = {
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "svhn": svhn,
}
#: What to install or place for the system copy of a track.
SYSTEM: dict[str, tuple[Path, str]] = {
    "fashion-mnist": (fashion_mnist.SYSTEM_FOLDER, "apt-get install dataset-fashion-mnist"),
}


@dataclass(frozen=True)
class Finding:
    """A place that holds the wanted split.

    Attributes:
        where: the place, for people.
        what: its format, for people.
        read: decodes it.
    """

    where: str
    what: str
    read: Callable[[], Images]


def cache_folder(track: str) -> Path:
    """Where downloads of a track are kept."""
    return Path(platformdirs.user_cache_dir("corobench")) / "data" / track


def get_data_root(data_root: Path | None) -> Path | None:
    """The data root of the argument, or else of ``COROBENCH_DATA``, or None.

    Raises:
        DatasetError: it is not a folder.
    """
    named = "--data-root"
    if data_root is None and os.environ.get(DATA_VARIABLE):
        data_root, named = Path(os.environ[DATA_VARIABLE]), DATA_VARIABLE
    if data_root is None:
        return None
    data_root = Path(data_root).expanduser()
    if not data_root.is_dir():
        raise DatasetError(
            f"{named}: expected a folder with images, but {data_root} is not one; name the folder, "
            "or leave it out for the usual places"
        )
    return data_root


def belongs_elsewhere(folder: Path, track: Track) -> bool:
    """Whether the folder's own name says that it holds another track's images.

    CIFAR-10 and SVHN have the same shapes, so a folder ``cifar10-png`` must not pass as SVHN.
    """
    name = folder.resolve().name.lower().replace("_", "-")
    others = [other for other in TRACKS if other != track.name and other in name]
    return bool(others) and track.name not in name


def find_in(folder: Path, track: Track, split: Split) -> Finding | None:
    """The split in one folder: published files, else parquet, else an image folder.

    Raises:
        DatasetError: the folder may not be read.
    """
    try:
        return _find_in(folder, track, split)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot look for images in it: {error}") from error


def _find_in(folder: Path, track: Track, split: Split) -> Finding | None:
    published = PUBLISHED.get(track.name)
    if published is not None and (place := published.find(folder, split)) is not None:
        return Finding(str(place), "published files", lambda: published.read(place, split))
    if shards := parquet.find(folder, split):
        where = str(shards[0].parent)
        return Finding(where, f"{len(shards)} parquet file(s)", lambda: parquet.read(shards, track))
    if (root := folders.find(folder, split)) is not None:
        return Finding(str(root), "image folder", lambda: folders.read(root, track))
    return None


def _folders_of_root(data_root: Path, track: Track) -> Iterator[Path]:
    """The folder named after the track, if there is one, then the root itself."""
    named = data_root / track.name
    if named.is_dir():
        yield named
    if not belongs_elsewhere(data_root, track):
        yield data_root


def list_places(
    track: Track, split: Split, data_root: Path | None
) -> Iterator[tuple[str, str, Finding | None]]:
    """Every place in order, as (where, what is missing there, finding or None). No download."""
    root = get_data_root(data_root) if track.name != "digits" or data_root is not None else None
    if track.name == "digits":
        where = "scikit-learn"
        yield where, "", Finding(where, "embedded", lambda: digits.read(split))
        return
    if root is None:
        yield f"--data-root / {DATA_VARIABLE}", "not set", None
    else:
        found = (find_in(folder, track, split) for folder in _folders_of_root(root, track))
        hit = next((finding for finding in found if finding is not None), None)
        yield str(root), f"no {split} images of {track.name}", hit
    if track.name in SYSTEM:
        folder, command = SYSTEM[track.name]
        yield str(folder), f"not installed: {command}", find_in(folder, track, split)
    cache = cache_folder(track.name)
    missing = "not downloaded yet" + (" (COROBENCH_OFFLINE is set)" if is_offline() else "")
    yield str(cache), missing, find_in(cache, track, split)


def read_split(track: Track, split: Split, data_root: Path | None) -> Images:
    """The images of a split from the first place that has them, downloading as a last resort.

    Raises:
        DatasetError: no place has them (lists the three ways), or the first that has is broken.
    """
    for _, _, finding in list_places(track, split, data_root):
        if finding is not None:
            return finding.read()
    published = PUBLISHED[track.name]
    cache = cache_folder(track.name)
    reason = fetch(published.download, cache, split)
    finding = find_in(cache, track, split)
    if finding is None:
        raise DatasetError(_missing(track, split, reason))
    return finding.read()


def _missing(track: Track, split: Split, reason: str) -> str:
    """The one error of a missing dataset."""
    system = "there is none for this track"
    if track.name in SYSTEM:
        folder, command = SYSTEM[track.name]
        system = f"`{command}` puts one into {folder}"
    return (
        f"the {split} images of {track.name} ({track.title}) were not found. Three ways to "
        "provide them:\n"
        f"  1. a folder: --data-root PATH or {DATA_VARIABLE}=PATH, with the published files, "
        f"{split}-*.parquet, or {split}/<class>/*.png inside PATH or PATH/{track.name}\n"
        f"  2. a system copy: {system}\n"
        f"  3. torchvision's download into {cache_folder(track.name)}: {reason}"
    )
