"""`cifar10`: CIFAR-10 (Krizhevsky 2009), as the published Python batches."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np

from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.read import Images, read_limited
from corobench.benchmark.errors import DatasetError

#: Folders below a data root that may hold the batches: torchvision's layout, and the root.
LAYOUTS = ("cifar-10-batches-py", "")
BATCH_SIZE = 10000
BATCH_SHAPE = (BATCH_SIZE, 3, 32, 32)
MAX_BATCH_BYTES = 2 * BATCH_SIZE * 3 * 32 * 32

#: Published md5 of every batch (the ones torchvision checks).
MD5: dict[Split, dict[str, str]] = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}


def find(folder: Path, split: Split) -> Path | None:
    """The folder below `folder` that holds every batch of a split, or None."""
    for layout in LAYOUTS:
        candidate = folder / layout if layout else folder
        if all((candidate / name).is_file() for name in MD5[split]):
            return candidate
    return None


def read(folder: Path, split: Split) -> Images:
    """Images and labels from a folder that :func:`find` returned.

    The batches are pickles, which can run code when they are opened. So the very bytes whose
    published md5 was checked are opened, and no others ever are.

    Raises:
        DatasetError: a batch differs from the published one.
    """
    pixels, labels = [], []
    for name, md5 in MD5[split].items():
        path = folder / name
        content = read_limited(path, MAX_BATCH_BYTES, "a CIFAR-10 batch")
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise DatasetError(
                f"{path}: expected the published CIFAR-10 batch with md5 {md5}, but found "
                f"{found}; a pickle that differs is never opened. Download it again, or provide "
                "the images as "
                "parquet or as an image folder"
            )
        batch = pickle.loads(content, encoding="latin1")  # noqa: S301 -- md5 checked above
        pixels.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch["labels"], dtype=np.int64))
    return Images(
        np.concatenate(pixels), np.concatenate(labels), source=str(folder), is_verified=True
    )


def download(folder: Path, split: Split) -> None:
    """torchvision's own download into `folder`."""
    from torchvision.datasets import CIFAR10

    CIFAR10(str(folder), train=split == "train", download=True)
