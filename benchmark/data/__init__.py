"""Datasets of the tracks: found, checked, fingerprinted and put into the published order.

>>> test = load_test("digits")
>>> images, labels, indices = subset(test, 100)
>>> test.kind, images.shape, labels.dtype.name
('canonical', (100, 1, 8, 8), 'int64')
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from corobench.benchmark.data.dataset import Dataset, Kind, Split, subset
from corobench.benchmark.data.digits import MAX_PIXEL as DIGITS_MAX_PIXEL
from corobench.benchmark.data.fingerprint import compute_fingerprint
from corobench.benchmark.data.read import check_images
from corobench.benchmark.data.sources import list_places, read_split
from corobench.benchmark.errors import DatasetError
from corobench.benchmark.tracks import get_track

__all__ = ["Dataset", "Place", "find", "load_test", "load_train", "subset"]

#: Fingerprints of canonical training sets, where known; those of the test sets are in `tracks`.
TRAIN_FINGERPRINTS = {
    "digits": "2c3ffb3cf631b82902aedcdc09fe3c5d5b33d13f9ef8e0d56e214c9973f94f8e",
    "fashion-mnist": "6355de89ffc5bdb6de86ae57016ab97a6d5a98eb69398a26f763a2e7346313f9",
}


class Place(NamedTuple):
    """One place where a dataset may be, as `corobench doctor` shows it."""

    where: str
    is_found: bool
    what: str


def load_test(track: str, data_root: Path | None = None) -> Dataset:
    """The full test set of a track, in its own order.

    Args:
        track: name of the track.
        data_root: searched first; None for the variable ``COROBENCH_DATA``.

    Raises:
        ConfigError: no such track.
        DatasetError: the images are missing or broken.
    """
    return _load(track, "test", data_root)


def load_train(track: str, data_root: Path | None = None) -> Dataset:
    """The full training set of a track, in its own order; see :func:`load_test`."""
    return _load(track, "train", data_root)


def _load(name: str, split: Split, data_root: Path | None) -> Dataset:
    track = get_track(name)
    images = read_split(track, split, data_root)
    check_images(images, track, images.source)
    fingerprint = compute_fingerprint(images.pixels, images.labels)
    known = track.fingerprint if split == "test" else TRAIN_FINGERPRINTS.get(name, "")
    kind: Kind = "canonical" if images.is_verified or fingerprint == known else "mirror"
    return Dataset(
        name=name,
        pixels=images.pixels,
        max_pixel=DIGITS_MAX_PIXEL if name == "digits" else 255,
        labels=images.labels,
        kind=kind,
        fingerprint=fingerprint,
        source=images.source,
    )


def find(track: str, data_root: Path | None = None) -> list[Place]:
    """Every place a track's test images may be, in the order of the search, without a download.

    Raises:
        ConfigError: no such track.

    >>> find("digits")
    [Place(where='scikit-learn', is_found=True, what='embedded')]
    """
    try:
        return [
            Place(where, finding is not None, missing if finding is None else finding.what)
            for where, missing, finding in list_places(get_track(track), "test", data_root)
        ]
    except DatasetError as error:
        return [Place(str(data_root or "COROBENCH_DATA"), False, error.message)]
