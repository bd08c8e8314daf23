"""Arrays as the bytes of an npz file, and back from bytes that may come from anybody.

Values are plain numbers, bools and text. No object is made of a stranger's bytes, and nothing is
larger than the bytes that came.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.lib import format as npy

from corobench.benchmark.executors.wire import GarbageError

MAX_ARRAYS = 64
_KINDS = "biufU"
_NO_NPZ = (
    *(ValueError, KeyError, EOFError, TypeError, RuntimeError, OverflowError, SyntaxError),
    *(NotImplementedError, MemoryError, RecursionError, struct.error, zipfile.BadZipFile),
)


def pack(arrays: Mapping[str, object]) -> bytes:
    """The bytes of an uncompressed npz file.

    >>> sorted(unpack(pack({"a": np.arange(2), "b": np.array("x")})))
    ['a', 'b']
    """
    buffer = io.BytesIO()
    values = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(buffer, allow_pickle=False, **values)
    return buffer.getvalue()


def unpack(body: bytes) -> dict[str, np.ndarray]:
    """Arrays of an uncompressed npz file.

    Raises:
        GarbageError: it is none, or holds anything but plain arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS:
                raise ValueError(f"more than {MAX_ARRAYS} arrays")
            return {_name(member): _read(archive, member) for member in members}
    except _NO_NPZ as error:
        raise GarbageError(f"sent no arrays ({type(error).__name__})") from error


def _name(member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} is no array")
    return member.filename.removesuffix(".npy")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError("is compressed")
    stream = io.BytesIO(archive.read(member))
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("another version of npy")
    shape, is_fortran, dtype = npy.read_array_header_1_0(stream)
    content = stream.read()
    if dtype.kind not in _KINDS or len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError("an array of another kind or size")
    values = np.frombuffer(bytearray(content), dtype)
    if dtype.kind == "U":
        "".join(values.ravel().tolist())  # refuses code points that are none
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)
