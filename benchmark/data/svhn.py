"""`svhn`: the cropped Street View House Numbers (Netzer et al. 2011), as published .mat files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.read import Images, read_limited
from corobench.benchmark.errors import DatasetError

#: The published files, their md5 (the ones torchvision checks) and their number of images.
FILES: dict[Split, tuple[str, str]] = {
    "train": ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test": ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
}
MAX_FILE_BYTES = 256 * 1024 * 1024


def find(folder: Path, split: Split) -> Path | None:
    """The .mat file of a split directly in `folder`, or None."""
    path = folder / FILES[split][0]
    return path if path.is_file() else None


def read(path: Path, split: Split) -> Images:
    """Images and labels from a file that :func:`find` returned; the published label 10 is a 0.

    Only the published bytes are opened: a .mat file can ask for any amount of memory.

    Raises:
        DatasetError: the file differs from the published one.
    """
    from scipy.io import loadmat

    md5 = FILES[split][1]
    content = read_limited(path, MAX_FILE_BYTES, "an SVHN .mat file")
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DatasetError(
            f"{path}: expected the published SVHN file with md5 {md5}, but found {found}; "
            "download it again, or provide the images as parquet or as an image folder"
        )
    arrays = loadmat(io.BytesIO(content), variable_names=["X", "y"])
    labels = arrays["y"].astype(np.int64).reshape(-1) % 10
    pixels_NCHW = np.ascontiguousarray(arrays["X"].astype(np.uint8).transpose(3, 2, 0, 1))
    return Images(pixels_NCHW, labels, source=str(path), is_verified=True)


def download(folder: Path, split: Split) -> None:
    """torchvision's own download into `folder`."""
    from torchvision.datasets import SVHN

    SVHN(str(folder), split=split, download=True)
