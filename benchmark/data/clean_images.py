"""The first clean images of a track, beside its results, so that a page can show them.

Result files hold adversarial images only. A page that shows what an attack changed, or the images
on which two entries differ, needs the clean ones, and the page is built without any dataset.
"""

from __future__ import annotations

import io
import re
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.data import load_test, subset
from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.records.reading.arrays_file import read_arrays
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.tracks import TRACKS

#: Images kept: the first of the published order.
NUM_KEPT = 200
_NAME = re.compile(r"clean-images\.[0-9a-f]{8}\.npz")
_ARRAYS = ("images", "indices", "fingerprint")


def clean_images_path(folder: Path, fingerprint: str) -> Path:
    """Where they lie: in the folder of a track's results, by the fingerprint of the data."""
    return folder / f"clean-images.{fingerprint[:8]}.npz"


def is_clean_images(path: PurePath) -> bool:
    """Whether a file is called like one of clean images."""
    return _NAME.fullmatch(path.name) is not None


def find_fault(path: Path, track: str, data_root: Path | None = None) -> str:
    """Why a file is not what `corobench pictures` writes for a track; empty where it is.

    Args:
        path: of the file, which may come from anybody.
        track: in whose folder of results it lies.
        data_root: where the dataset is; the usual places by default.
    """
    try:
        found = read_arrays(path, _ARRAYS)
    except ResultError as error:
        return error.message
    dataset = load_test(track, data_root)
    images, _, indices = subset(dataset, min(NUM_KEPT, len(dataset)))
    num = min(found["indices"].size, len(images))
    expected: tuple[np.ndarray, ...] = (
        images[:num],
        indices[:num],
        np.asarray(dataset.fingerprint),
    )
    same = all(
        np.array_equal(found[name], one) for name, one in zip(_ARRAYS, expected, strict=True)
    )
    if num and same and path == clean_images_path(path.parent, dataset.fingerprint):
        return ""
    return (
        f"{path}: expected the first images of {dataset.source}, as `corobench pictures` writes "
        "them, but found others; leave the file out"
    )


def write_clean_images(
    folder: Path, fingerprint: str, images: NDArray[np.float32], indices: NDArray[np.int64]
) -> Path:
    """Write the first :data:`NUM_KEPT` images, unless as many are there.

    Args:
        folder: of the track's results.
        fingerprint: of the dataset.
        images: float32 (n, C, H, W) in [0, 1], in the published order.
        indices: (n,) their indices in the test set.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = clean_images_path(folder, fingerprint)
    if _num_there(path) >= min(NUM_KEPT, len(images)):
        return path
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=images[:NUM_KEPT].astype(np.float32),
        indices=np.asarray(indices[:NUM_KEPT], dtype=np.int32),
        fingerprint=np.asarray(fingerprint),
    )
    write_atomic(path, buffer.getvalue())
    return path


def _num_there(path: Path) -> int:
    """How many images a file holds; 0 for none, or one that cannot be read."""
    try:
        return read_arrays(path, _ARRAYS)["indices"].size
    except ResultError:
        return 0


def add_clean_images(results: Path, data_root: Path | None = None) -> list[Path]:
    """Write the clean images of every track that has results below a folder.

    Args:
        results: folder with ``<protocol>/<track>/<entry>.json``.
        data_root: where the datasets are; the usual places by default.

    Returns:
        The files, sorted.

    Raises:
        ResultError: no results there, or the data found differ from what the results used.
        DataError: a dataset is missing.
    """
    written = set()
    for path in sorted(results.glob("*/*/*.json")):
        if path.parent.name not in TRACKS:
            continue
        result = read_result(path)
        target = clean_images_path(path.parent, result.data.fingerprint)
        if target in written:
            continue
        dataset = load_test(result.track, data_root)
        if dataset.info.fingerprint != result.data.fingerprint:
            raise ResultError(
                f"{path}: data.fingerprint: evaluated on {result.data.fingerprint[:12]}, but "
                f"{dataset.info.source} has {dataset.info.fingerprint[:12]}; use the same data "
                "with --data-root"
            )
        images, _, indices = subset(dataset, min(NUM_KEPT, len(dataset)))
        written.add(write_clean_images(path.parent, result.data.fingerprint, images, indices))
    if not written:
        raise ResultError(f"{results}: expected results at <protocol>/<track>/<entry>.json")
    return sorted(written)
