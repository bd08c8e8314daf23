"""`digits`: the 1797 scans of handwritten digits inside scikit-learn (UCI, Alpaydin 1998).

They have no published split. Here images are sorted by the sha256 of ``digits-split:<index>``;
the first 500 are the test set and the other 1297 the training set, both in that order.
"""

from __future__ import annotations

import hashlib

import numpy as np

from corobench.benchmark.data.dataset import Split
from corobench.benchmark.data.read import Images

NUM_IMAGES = 1797
NUM_TEST = 500
MAX_PIXEL = 16


def split_order() -> list[int]:
    """All indices sorted by the sha256 of ``digits-split:<index>``."""
    return sorted(
        range(NUM_IMAGES),
        key=lambda index: hashlib.sha256(f"digits-split:{index}".encode()).hexdigest(),
    )


def read(split: Split) -> Images:
    """The scans of one split; pixels uint8 (N, 1, 8, 8) in 0..16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = split_order()
    indices = order[:NUM_TEST] if split == "test" else order[NUM_TEST:]
    pixels = bunch.images.astype(np.uint8)[indices][:, None, :, :]
    labels = bunch.target.astype(np.int64)[indices]
    return Images(pixels, labels, source="scikit-learn's load_digits()")
