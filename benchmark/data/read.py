"""What every reader returns, and the checks that no source may fail."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import Track


@dataclass(frozen=True, eq=False)
class Images:
    """Decoded images of one split, before it is known whether they are canonical.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,).
        source: where they were found.
        is_verified: whether the files' published checksums match.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    source: str
    is_verified: bool = False


def check_images(images: Images, track: Track, path: Path | str) -> None:
    """Refuse what does not fit the track.

    Args:
        images: as read.
        track: whose shape and classes are expected.
        path: file or folder to name.

    Raises:
        DatasetError: no image, another shape, or a label that is no class of the track.
    """
    if len(images.labels) == 0:
        raise DatasetError(f"{path}: expected images, but found none")
    if images.pixels.shape[1:] != track.shape:
        raise DatasetError(
            f"{path}: expected images of shape {_by(track.shape)} (track {track.name}), "
            f"but found {_by(images.pixels.shape[1:])}"
        )
    if len(images.pixels) != len(images.labels):
        raise DatasetError(
            f"{path}: expected one label per image, but found {len(images.pixels)} images and "
            f"{len(images.labels)} labels"
        )
    lowest, highest = int(images.labels.min()), int(images.labels.max())
    if lowest < 0 or highest >= track.num_classes:
        wrong = lowest if lowest < 0 else highest
        raise DatasetError(
            f"{path}: expected labels 0 to {track.num_classes - 1} (track {track.name}), "
            f"but found {wrong}"
        )


def read_limited(path: Path, limit_bytes: int, expected: str) -> bytes:
    """The bytes of a file that must not be larger than `limit_bytes`.

    Raises:
        DatasetError: unreadable or larger; names the file and what was expected.
    """
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise DatasetError(
                f"{path}: expected {expected} of at most {limit_bytes} bytes, but found {size}"
            )
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: expected {expected}, but cannot read it: {error}") from error


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
