"""The first clean images of a track, beside its results, so that a page can show them.

Result files hold adversarial images only. A page that shows what an attack changed, or the images
on which two entries differ, needs the clean ones, and the page is built without any dataset.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark import store
from benchmark.data import load_test, subset
from benchmark.errors import ResultError
from benchmark.tracks import TRACKS

#: Images kept: the first of the published order.
NUM_KEPT = 200


def clean_images_path(folder: Path, fingerprint: str) -> Path:
    """Where they lie: in the folder of a track's results, by the fingerprint of the data."""
    return folder / f"clean-images.{fingerprint[:8]}.npz"


def write_clean_images(
    folder: Path, fingerprint: str, images: NDArray[np.float32], indices: NDArray[np.int64]
) -> Path:
    """Write the first :data:`NUM_KEPT` images, unless they are there.

    Args:
        folder: of the track's results.
        fingerprint: of the dataset.
        images: float32 (n, C, H, W) in [0, 1], in the published order.
        indices: (n,) their indices in the test set.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = clean_images_path(folder, fingerprint)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=images[:NUM_KEPT].astype(np.float32),
        indices=np.asarray(indices[:NUM_KEPT], dtype=np.int32),
        fingerprint=np.asarray(fingerprint),
    )
    content = buffer.getvalue()
    if not path.is_file() or len(path.read_bytes()) < len(content):
        store.write_atomic(path, content)
    return path


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
        result = store.read_result(path)
        target = clean_images_path(path.parent, result.data.fingerprint)
        if target in written:
            continue
        dataset = load_test(result.track, data_root)
        if dataset.info.fingerprint != result.data.fingerprint:
            raise ResultError(
                f"{path}: data.fingerprint: evaluated on {result.data.fingerprint[:12]}, but "
                f"{dataset.info.source} has {dataset.info.fingerprint[:12]}; name the same data "
                "with --data-root"
            )
        images, _, indices = subset(dataset, min(NUM_KEPT, len(dataset)))
        written.add(write_clean_images(path.parent, result.data.fingerprint, images, indices))
    if not written:
        raise ResultError(f"{results}: expected results at <protocol>/<track>/<entry>.json")
    return sorted(written)
