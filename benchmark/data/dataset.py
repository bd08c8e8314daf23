"""The record of a loaded dataset, and the subsets that entries are scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.errors import DatasetError
from corobench.benchmark.records.result import DataInfo
from corobench.benchmark.tracks import published_order

Split = Literal["train", "test"]
Kind = Literal["canonical", "mirror"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one split, in the order of their source.

    Attributes:
        name: of the track.
        pixels: uint8 (N, C, H, W), the whole numbers the dataset publishes.
        max_pixel: the number that stands for 1.0: 255, and 16 for `digits`.
        labels: int64 (N,), 0..classes-1.
        kind: "canonical" if these are the published images, else "mirror".
        fingerprint: of the images and labels, 64 hex digits.
        source: where they were found, for people.
    """

    name: str
    pixels: NDArray[np.uint8]
    max_pixel: int
    labels: NDArray[np.int64]
    kind: Kind
    fingerprint: str
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """All images, float32 (N, C, H, W) in [0, 1]; made once, four times the uint8 memory."""
        return self._to_float(self.pixels)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some images, float32 (len(indices), C, H, W) in [0, 1], without making the others."""
        return self._to_float(self.pixels[np.asarray(indices, dtype=np.int64)])

    @property
    def info(self) -> DataInfo:
        """What a result says of the data."""
        return DataInfo(kind=self.kind, fingerprint=self.fingerprint, source=self.source)

    def _to_float(self, pixels_NCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ascontiguousarray(pixels_NCHW, dtype=np.float32) / np.float32(self.max_pixel)


def subset(
    dataset: Dataset, n: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The first `n` test images of the published order.

    Args:
        dataset: a test set; one with fewer images keeps the order of those it has.
        n: 1..len(dataset).

    Returns:
        Images float32 (n, C, H, W) in [0, 1], labels int64 (n,), and the indices int64 (n,) of
        the images in the dataset.

    Raises:
        DatasetError: `n` is below 1 or more than there is.
    """
    if not 1 <= n <= len(dataset):
        raise DatasetError(
            f"{dataset.name}: expected a subset of 1 to {len(dataset)} images (all that "
            f"{dataset.source} has), but got {n}"
        )
    indices = np.asarray(published_order(dataset.name, len(dataset))[:n], dtype=np.int64)
    return dataset.take(indices), dataset.labels[indices], indices
