"""What identifies a dataset: a hash of its decoded images and labels, not of its files.

Layout of the hashed bytes, in this order and without separators:

1. the ASCII text ``corobench-fingerprint-1\\n``;
2. the ASCII text ``<N> <C> <H> <W>\\n``, decimal numbers;
3. the images in the order of the dataset, uint8, C order of (N, C, H, W);
4. the labels in the same order, unsigned 16-bit little-endian.

Pixels are hashed as the whole numbers the dataset publishes: 0..255, and 0..16 for `digits`.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def compute_fingerprint(pixels_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> str:
    """sha256 over the layout above, as 64 hex digits.

    Args:
        pixels_NCHW: uint8 (N, C, H, W).
        labels_N: int64 (N,), 0..65535.

    >>> compute_fingerprint(np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int64))[:16]
    '3a298ddb8279967c'
    """
    digest = hashlib.sha256(b"corobench-fingerprint-1\n")
    digest.update((" ".join(str(size) for size in pixels_NCHW.shape) + "\n").encode("ascii"))
    digest.update(np.ascontiguousarray(pixels_NCHW).tobytes())
    digest.update(labels_N.astype("<u2").tobytes())
    return digest.hexdigest()
