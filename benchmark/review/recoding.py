"""Stored adversarial images -> the same images, coded, in a fraction of the space.

No number and no bit of an image changes: the codes are decoded before anything is written. A result
with digests is written as one set; of one without, the file of images alone is replaced. In a
frozen round the checksums of these files are made anew, and the old ones are kept in ``RECODED``
beside the sha256 of the images themselves. docs/decisions/0009 says why that is no change of a
round. Imports no torch.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from corobench.benchmark.data import Dataset, load_test
from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.records.image_coding import encode
from corobench.benchmark.records.reading.coded_images import CodedImages, read_adversarial
from corobench.benchmark.records.result_set import ADVERSARIAL, beside, verify_set
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import finish_set, write_set
from corobench.benchmark.scoring.scored import read_scored
from corobench.benchmark.tracks import get_track


def recode(path: Path, data_root: Path | None = None, *, write: bool = False) -> str:
    """Store the adversarial images of a result as codes.

    Args:
        path: of the result file; its outcome table and images lie beside it.
        data_root: folder of the dataset, or None for the usual search.
        write: replace the files.

    Returns:
        What changed or would change, in a line; empty where the images are coded already.

    Raises:
        ResultError: a file is missing or at fault, or the data are not those of the result.
        DatasetError: the dataset is missing.
        OutputError: a file cannot be written, or the round was changed since it was frozen.
    """
    folder = path.parent.parent
    is_frozen = rounds.is_frozen(folder)
    if write:
        if is_frozen:
            rounds.finish_recoding(folder)
        else:
            finish_set(path)
    result, table, run = read_scored(path)
    stored = beside(path, ADVERSARIAL)
    images = read_adversarial(stored, get_track(run.track).shape)
    verify_set(path, result)
    if isinstance(images, CodedImages):
        return ""
    dataset = _dataset(run.track, data_root)
    if dataset.fingerprint != run.data.fingerprint:
        raise ResultError(
            f"{path}: data.fingerprint: evaluated on {run.data.fingerprint[:12]}, but "
            f"{dataset.source} has {dataset.fingerprint[:12]}; name the same data with --data-root"
        )
    content = encode(images, table, run, dataset)
    before = stored.stat().st_size
    if write:
        if is_frozen:
            rounds.recode(folder, stored, content, hashlib.sha256(images.tobytes()).hexdigest())
        elif run.files is None:
            write_atomic(stored, content)
        else:
            write_set(path, table, run, images, dataset)
    return f"images: {before} bytes to {len(content)}"


@cache
def _dataset(track: str, data_root: Path | None) -> Dataset:
    """Read once for all results of a track."""
    return load_test(track, data_root)
