"""Reader of idx files, the format of MNIST and its successors (LeCun), plain or gzip."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.data.read import read_limited
from corobench.benchmark.errors import DatasetError

#: Largest decompressed file that is read: four times the training images of Fashion-MNIST.
MAX_BYTES = 4 * 60000 * 28 * 28
UINT8_CODE = 0x08


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file `stem` or `stem`.gz in a folder, or None."""
    for name in (stem, f"{stem}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_idx_bytes(path: Path) -> bytes:
    """The decompressed bytes of an idx file.

    Raises:
        DatasetError: unreadable, a broken gzip, or larger than :data:`MAX_BYTES`.
    """
    content = read_limited(path, MAX_BYTES, "an idx file")
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            plain = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(
            f"{path}: expected a complete gzip file, but found a broken one ({error}); download "
            "it again"
        ) from error
    if len(plain) > MAX_BYTES:
        raise DatasetError(f"{path}: expected at most {MAX_BYTES} bytes after decompression")
    return plain


def parse_idx(content: bytes, num_dimensions: int, path: Path) -> NDArray[np.uint8]:
    """The array in the bytes of an idx file.

    Args:
        content: the decompressed file: two zero bytes, the type code 0x08, the number of
            dimensions, each size as big-endian uint32, then the values.
        num_dimensions: 3 for images, 1 for labels.
        path: to name in errors.

    Returns:
        uint8, with `num_dimensions` dimensions.

    Raises:
        DatasetError: another type or number of dimensions, or too few or too many bytes.
    """
    header_bytes = 4 + 4 * num_dimensions
    magic = bytes((0, 0, UINT8_CODE, num_dimensions))
    if content[:4] != magic or len(content) < header_bytes:
        raise DatasetError(
            f"{path}: expected an idx file of {num_dimensions} dimension(s), starting with "
            f"{magic.hex()}, but found {content[:4].hex() or 'nothing'}"
        )
    sizes = struct.unpack(f">{num_dimensions}I", content[4:header_bytes])
    expected = header_bytes + math.prod(sizes)
    if len(content) != expected:
        raise DatasetError(
            f"{path}: expected {expected} bytes for sizes {'x'.join(map(str, sizes))}, "
            f"but found {len(content)}: the file is truncated or damaged"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(sizes)
