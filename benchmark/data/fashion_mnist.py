"""`fashion-mnist`: Fashion-MNIST (Xiao, Rasul and Vollgraf 2017), as the published idx files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.idx import find_idx, parse_idx, read_idx_bytes
from corobench.benchmark.data.read import Images

#: Where Debian's package `dataset-fashion-mnist` puts the files.
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
#: Folders below a data root that may hold the files: itself, and torchvision's layout.
LAYOUTS = ("", "FashionMNIST/raw", "raw")

STEMS: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
#: sha256 of the published files, decompressed.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def find(folder: Path, split: Split) -> Path | None:
    """The folder below `folder` that holds both idx files of a split, or None."""
    for layout in LAYOUTS:
        candidate = folder / layout if layout else folder
        if all(find_idx(candidate, stem) for stem in STEMS[split]):
            return candidate
    return None


def read(folder: Path, split: Split) -> Images:
    """Images and labels from a folder that :func:`find` returned.

    Raises:
        DatasetError: a file is broken; names it.
    """
    arrays = []
    is_verified = True
    for stem, num_dimensions in zip(STEMS[split], (3, 1), strict=True):
        path = find_idx(folder, stem)
        assert path is not None
        content = read_idx_bytes(path)
        is_verified = is_verified and hashlib.sha256(content).hexdigest() == SHA256[stem]
        arrays.append(parse_idx(content, num_dimensions, path))
    pixels_NHW, labels_N = arrays
    return Images(
        pixels_NHW[:, None, :, :],
        labels_N.astype(np.int64),
        source=str(folder),
        is_verified=is_verified,
    )


def download(folder: Path, split: Split) -> None:
    """torchvision's own download into `folder`."""
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(folder), train=split == "train", download=True)
