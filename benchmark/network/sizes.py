"""Bytes that weights need under codings that a deployment could use.

All are lossless on the effective weights, and of what the file has nothing but values counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BYTES_PER_VALUE = 4
#: zstandard's level of compression, its default; higher ones cost minutes and win little.
ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Codes:
    """Weights that a quantised file holds as 8-bit whole numbers.

    Attributes:
        num_values: of them.
        num_scales: a number and a zero point each, that give the weights.
    """

    num_values: int
    num_scales: int

    def bytes_with(self, bytes_dense: int) -> int:
        """Bytes of all values where these have one byte each and the rest is dense.

        >>> Codes(num_values=100, num_scales=2).bytes_with(bytes_dense=440)
        150
        """
        scales = self.num_scales * (BYTES_PER_VALUE + 1)
        return bytes_dense - self.num_values * (BYTES_PER_VALUE - 1) + scales


def mask_bytes(tensor: Tensor) -> int:
    """Bytes of one bit per value."""
    return -(-tensor.numel() // 8)


def packed_bytes(tensor: Tensor) -> int:
    """Bytes of one tensor: the smaller of dense float32 and bitmask plus non-zero values.

    >>> packed_bytes(torch.tensor([0.0] * 15 + [1.0]))
    6
    >>> packed_bytes(torch.ones(8))
    32
    """
    dense = tensor.numel() * BYTES_PER_VALUE
    num_nonzero = int(torch.count_nonzero(tensor))
    return min(dense, mask_bytes(tensor) + num_nonzero * BYTES_PER_VALUE)


def coded_bytes(tensor: Tensor) -> int:
    """Bytes of one tensor where each value is a number into a table of its distinct values.

    ``u`` distinct values need a table of ``4 u`` bytes and ``ceil(log2(u))`` bits a value, in whole
    bytes; either of all values, or of the non-zero ones beside a bitmask. The smallest of both and
    of :func:`packed_bytes` counts. Quantised weights have few distinct values.

    >>> coded_bytes(torch.tensor([0.0, 0.5, -0.5, 0.5] * 16))  # 8 of mask, 48 bits, 2 values
    22
    """
    kept = tensor[tensor != 0]
    with_mask = mask_bytes(tensor) + _table_bytes(kept)
    return min(packed_bytes(tensor), with_mask, _table_bytes(tensor))


def _table_bytes(values: Tensor) -> int:
    num_distinct = len(values.unique())
    width = max(0, num_distinct - 1).bit_length()
    return num_distinct * BYTES_PER_VALUE + -(-values.numel() * width // 8)


def zstd_bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes after zstandard of the packed values of all tensors, mask first, one after another."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    return len(compressor.compress(b"".join(_packed(tensor) for tensor in tensors)))


def _packed(tensor: Tensor) -> bytes:
    """The bytes that :func:`packed_bytes` counts."""
    values: NDArray[np.float32] = tensor.detach().cpu().to(torch.float32).reshape(-1).numpy()
    kept = values != 0
    if mask_bytes(tensor) + BYTES_PER_VALUE * int(kept.sum()) >= BYTES_PER_VALUE * len(values):
        return values.astype("<f4").tobytes()
    mask = np.packbits(kept, bitorder="little").tobytes()
    return mask + bytes(values[kept].astype("<f4").tobytes())
