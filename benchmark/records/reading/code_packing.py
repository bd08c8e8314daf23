"""Codes of values -> few bytes and back, with the size known before anything is unpacked.

Codes 0 and 1, the two that an attack leaves most, say up or down, and neighbours agree. So four
neighbours are one byte: 2 x 2 values with 0, 1 or 2 each, where 2 stands for any other code. Those
others follow in an array of their own. Both are packed by xz. Imports no torch.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.records.reading.attack_values import Codes

#: In a block: this value has a code above 1, which is among the others.
OTHER = 2
#: What a place in a block counts: upper left, upper right, lower left, lower right.
_WEIGHTS = np.array([[1, 3], [9, 27]], dtype=np.uint8)
#: Number of a block -> its upper and its lower pair of values, two bytes seen as one number.
_UPPER, _LOWER = np.ascontiguousarray(
    np.moveaxis(np.arange(81, dtype=np.uint8)[:, None, None] // _WEIGHTS % 3, 1, 0)
).view(np.uint16)[..., 0]
#: Memory that unpacking may take; the writer's dictionary is 8 MiB.
_MEMORY = 64 * 1024**2


def in_order(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order in which the codes of the images are packed: those of few steps first."""
    return np.argsort(steps, kind="stable")


def pack_codes(codes: Codes, shape: tuple[int, int, int]) -> tuple[Codes, Codes]:
    """The arrays ``blocks`` and ``others``.

    Args:
        codes: uint8 (m, C*H*W), in the order of packing.
        shape: C, H, W.
    """
    kinds = np.minimum(codes, OTHER).reshape(-1, *shape)
    even = [(0, 0), (0, 0), (0, shape[1] % 2), (0, shape[2] % 2)]
    tiles = _tiles(np.pad(kinds, even))
    blocks = (tiles * _WEIGHTS).sum(axis=(-2, -1), dtype=np.uint8)
    return pack(blocks.tobytes(), context_bits=4), pack(codes[codes >= OTHER].tobytes())


def unpack_codes(
    arrays: Mapping[str, NDArray[np.generic]], num: int, shape: tuple[int, int, int]
) -> Codes:
    """The codes of ``blocks`` and ``others``: uint8 (num, C*H*W), in the order of packing.

    Raises:
        ValueError: not so many bytes, or one that no writer writes.
        lzma.LZMAError: damaged.
    """
    channels, height, width = shape
    tall, wide = -(-height // 2), -(-width // 2)
    blocks = unpacked(arrays, "blocks", num * channels * tall * wide)
    if int(blocks.max(initial=0)) >= 81:
        raise ValueError("blocks: expected numbers below 81")
    pairs = np.empty((num, channels, tall, 2, wide), np.uint16)
    pairs[:, :, :, 0] = _UPPER[blocks].reshape(num, channels, tall, wide)
    pairs[:, :, :, 1] = _LOWER[blocks].reshape(num, channels, tall, wide)
    padded = pairs.view(np.uint8).reshape(num, channels, 2 * tall, 2 * wide)
    if padded[:, :, height:].any() or padded[:, :, :, width:].any():
        raise ValueError("blocks: expected 0 beyond the border of an image")
    codes = padded[:, :, :height, :width].reshape(num, channels * height * width)
    is_other = codes == OTHER
    others = unpacked(arrays, "others", int(np.count_nonzero(is_other)))
    if int(others.min(initial=OTHER)) < OTHER:
        raise ValueError(f"others: expected codes from {OTHER} on")
    codes[is_other] = others
    return codes


def pack(content: bytes, context_bits: int = 0) -> Codes:
    """Bytes as xz packs them, as an array.

    Args:
        content: the bytes.
        context_bits: bits of the byte before that foretell a byte, 0 to 4.
    """
    filters = [
        {
            "id": lzma.FILTER_LZMA2,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": 8 * 1024**2,
            "lc": context_bits,
            "lp": 0,
            "pb": 0,
        }
    ]
    packed = lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    return np.frombuffer(packed, np.uint8)


def unpacked(arrays: Mapping[str, NDArray[np.generic]], name: str, size: int) -> Codes:
    """The `size` bytes that an array packs; nothing beyond them is unpacked.

    Raises:
        ValueError: no bytes, or not so many once unpacked.
        lzma.LZMAError: damaged, or more memory needed than is allowed.
    """
    found = arrays[name]
    if found.dtype != np.uint8 or found.ndim != 1:
        raise ValueError(f"{name}: expected bytes, found {found.dtype} {found.shape}")
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    content = unpacker.decompress(found.tobytes(), max_length=size + 1)
    # The checksum at the end of a stream is read when more is asked for.
    if len(content) == size and not unpacker.eof:
        content += unpacker.decompress(b"", max_length=1)
    if len(content) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"{name}: expected {size} bytes once unpacked, found another number")
    return np.frombuffer(content, np.uint8)


def _tiles(values: Codes) -> Codes:
    """Values (m, C, H, W) seen as blocks (m, C, H/2, W/2, 2, 2); no copy."""
    num, channels, height, width = values.shape
    tiles = values.reshape(num, channels, height // 2, 2, width // 2, 2)
    return tiles.transpose(0, 1, 2, 4, 3, 5)
