"""Images and labels of one evaluation, as a file that the workers of a machine share in memory."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from corobench.benchmark.files.atomic import write_atomic


def write_images(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, str]:
    """Write them once, one array behind the other.

    Args:
        folder: existing; the file is named after its content.
        x: float32 (n, C, H, W).
        y: int64 (n,).

    Returns:
        Name and sha256 of the file.
    """
    buffer = io.BytesIO()
    for values, kind in ((x, np.float32), (y, np.int64)):
        np.save(buffer, np.ascontiguousarray(values, dtype=kind), allow_pickle=False)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    write_atomic(folder / f"images-{digest}.npy", content)
    return f"images-{digest}.npy", digest


def read_images(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images and labels; their memory is the file's, and what is written to it stays here.

    Raises:
        ValueError: no such file.
    """
    with path.open("rb") as stream:
        x = _mapped(path, stream, np.float32)
        y = _mapped(path, stream, np.int64)
    if x.ndim != 4 or y.shape != x.shape[:1]:
        raise ValueError(f"{path}: expected images and as many labels")
    return x, y


def _mapped(path: Path, stream: IO[bytes], kind: type[np.generic]) -> np.ndarray:
    npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if dtype != kind:
        raise ValueError(f"{path}: expected {np.dtype(kind)}, but found {dtype}")
    values = np.memmap(path, dtype, "c", stream.tell(), shape)
    stream.seek(values.nbytes, io.SEEK_CUR)
    return np.asarray(values)
