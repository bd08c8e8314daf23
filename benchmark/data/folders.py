"""Image folders: ``<root>/<split>/<class>/*.png|jpg|jpeg``.

The class folders are named in one of three ways, tried in this order: by the track's class
names (as in `corobench tracks`, "/" replaced by "-" or "_", case ignored); by class index; or, if
there are exactly as many folders as classes, by anything, in the sorted order of the names.
Images are read class by class in the order of the labels, within one by sorted name.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.pictures import MAX_PICTURE_BYTES, decode
from corobench.benchmark.data.read import Images, read_limited
from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import Track

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PICTURES = 1_000_000


def find(folder: Path, split: Split) -> Path | None:
    """``<folder>/<split>`` if it has folders inside, else None."""
    root = folder / split
    if root.is_dir() and any(child.is_dir() for child in root.iterdir()):
        return root
    return None


def read(root: Path, track: Track) -> Images:
    """Images and labels from a folder that :func:`find` returned.

    Raises:
        DatasetError: the folders do not say which class they are, or a picture does not fit.
    """
    pixels: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for label, folder in enumerate(_class_folders(root, track)):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if len(labels) + len(paths) > MAX_PICTURES:
            raise DatasetError(f"{root}: expected at most {MAX_PICTURES} pictures")
        for path in paths:
            content = read_limited(path, MAX_PICTURE_BYTES, "a picture")
            pixels.append(decode(content, track, str(path)))
            labels.append(label)
    if not labels:
        raise DatasetError(f"{root}: expected {', '.join(SUFFIXES)} files, but found none")
    return Images(np.stack(pixels), np.asarray(labels, dtype=np.int64), source=str(root))


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _class_folders(root: Path, track: Track) -> list[Path]:
    """The folder of every class, in the order of the labels."""
    folders = {child.name: child for child in sorted(root.iterdir()) if child.is_dir()}
    by_name = {_fold(name): folder for name, folder in folders.items()}
    wanted = [_fold(name) for name in track.classes]
    indices = [str(index) for index in range(track.num_classes)]
    if set(by_name) == set(wanted):
        return [by_name[name] for name in wanted]
    if set(folders) == set(indices):
        return [folders[index] for index in indices]
    if len(folders) == track.num_classes:
        return [folders[name] for name in sorted(folders)]
    raise DatasetError(
        f"{root}: expected one folder per class of {track.name}, named "
        f"{', '.join(track.classes)} or 0 to {track.num_classes - 1}, but found "
        f"{', '.join(list(folders)[:12]) or 'none'}"
    )
