"""Npz files of images that may come from anybody -> arrays, or one error that names the file.

No pickles, no bytes that belong to no array, and every size is compared with the archive before
anything is unpacked.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.errors import MAX_NAMED, ResultError, printable
from corobench.benchmark.files.regular import open_regular
from corobench.benchmark.records.reading.zip_layout import require_packed, require_whole

#: Largest array that is read from an npz file, in bytes once unpacked.
MAX_ARRAY_BYTES = 2 * 1024**3
#: Arrays above the first unpack to at most so many times their packed bytes: images do not.
FREE_BYTES, MAX_RATIO = 32 * 1024**2, 100
#: Longest header of an array, which says its type and shape.
MAX_HEADER_BYTES = 4096
MAX_AXES = 8
#: Arrays that show a file of coded images (`benchmark.records.reading.coded_images`).
CODED = ("about", "rows", "blocks")
#: What libraries raise on files that are no npz, or a damaged one.
_NO_NPZ = (
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    RuntimeError,
    OverflowError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """Arrays of an npz file.

    Args:
        path: the file.
        names: arrays it must hold.

    Raises:
        ResultError: unreadable, no npz, an array missing, of objects, or too large.
    """
    with _opened(path, names) as archive:
        return {name: _read(archive, name) for name in names}


def read_images(
    path: Path, shape: tuple[int, int, int], num_rows: int | None = None
) -> NDArray[np.float32]:
    """Adversarial images of a result, or the first of them.

    Args:
        path: npz file with the array ``images``.
        shape: channels, height, width of the track's images.
        num_rows: unpack no more than the first so many; all by default.

    Returns:
        float32 (m, C, H, W) in [0, 1]; fewer than `num_rows` where the file has fewer.

    Raises:
        ResultError: unreadable, no npz, or no images of this kind.
    """
    with _opened(path, ("images",)) as archive:
        images = _read(archive, "images", num_rows)
    if images.dtype == np.float32 and images.shape in ((0,), (0, *shape)):
        return np.zeros((0, *shape), dtype=np.float32)
    if images.dtype != np.float32 or images.shape[1:] != shape or images.ndim != 4:
        raise ResultError(
            f"{path}: images: expected float32 (m, {', '.join(map(str, shape))}), but found "
            f"{images.dtype} {images.shape}"
        )
    found = images.astype(np.float32, copy=False)
    if not ((found >= 0) & (found <= 1)).all():
        raise ResultError(f"{path}: images: expected values in [0, 1], but found others")
    return found


def array_names(path: Path) -> tuple[str, ...]:
    """The names of the arrays in an npz file, as they follow one another.

    Raises:
        ResultError: unreadable, or no archive.
    """
    with _opened(path, ("images",)) as archive:
        return tuple(member.filename.removesuffix(".npy") for member in archive.infolist())


def count_images(path: Path) -> int:
    """How many adversarial images a file holds, coded or not; nothing is unpacked.

    Raises:
        ResultError: unreadable, or no npz with an array ``images``, or ``rows`` of coded ones.
    """
    name = "images" if "images" in array_names(path) else "rows"
    with _opened(path, ("images",)) as archive, archive.open(_member(archive, name)) as stream:
        shape, _, _ = _header(stream, name)
    return shape[0] if shape else 0


@contextmanager
def _opened(path: Path, names: tuple[str, ...]) -> Iterator[zipfile.ZipFile]:
    """The archive, with one kind of error for whatever is wrong in it."""
    try:
        with open_regular(path) as stream:
            if (num_bytes := stream.seek(0, io.SEEK_END)) > MAX_ARRAY_BYTES:
                raise ValueError(f"more than {MAX_ARRAY_BYTES} bytes")
            with zipfile.ZipFile(stream) as archive:
                require_whole(archive, stream, num_bytes)
                yield archive
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _NO_NPZ as error:
        wanted = " and ".join(f"`{name}`" for name in names)
        raise ResultError(f"{path}: expected an npz file with {wanted} ({error})") from error


def _read(archive: zipfile.ZipFile, name: str, num_rows: int | None = None) -> NDArray[np.generic]:
    """One array, after its header was compared with its size in the file."""
    member = _member(archive, name)
    with archive.open(member) as stream:
        shape, is_fortran, dtype = _header(stream, name)
        header = stream.tell()
        num_bytes = _num_bytes(name, shape, dtype)
        if num_bytes + header != member.file_size:
            raise ValueError(f"{name}: its header says {num_bytes} bytes, but the file is shorter")
        if num_rows is not None and shape and num_rows < shape[0] and not is_fortran:
            shape = (num_rows, *shape[1:])
        content = stream.read(_num_bytes(name, shape, dtype))
        if len(content) == num_bytes:
            stream.read(1)  # reading to the end compares the checksum
    require_packed(archive, member)
    values = np.frombuffer(content, dtype)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(members) > 1:
        raise ValueError(f"{name}: is there twice")
    if not members:
        raise ValueError(_missing(archive, name))
    (member,) = members
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{name}: compressed by method {member.compress_type}, which is not supported"
        )
    if member.file_size > max(FREE_BYTES, MAX_RATIO * member.compress_size):
        raise ValueError(
            f"{name}: {member.compress_size} bytes unpack to {member.file_size}; at most "
            f"{MAX_RATIO} times as many are allowed above {FREE_BYTES}"
        )
    return member


def _missing(archive: zipfile.ZipFile, name: str) -> str:
    """What a file holds instead of an array, and what to give in its place."""
    held = [printable(member.filename.removesuffix(".npy")) for member in archive.infolist()]
    if set(CODED) <= set(held):
        return (
            f"no array named {name}: it holds the adversarial images of a result as codes, as "
            "`corobench evaluate` writes them. Those count already; give images of your own: "
            "np.savez(path, images=..., indices=...)"
        )
    more = ", ..." if len(held) > MAX_NAMED else ""
    return f"no array named {name}; it has {', '.join(held[:MAX_NAMED]) or 'none'}{more}"


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name}: array format {version} is not supported")
    prefix = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"{name}: its header claims {length} bytes")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    text = stream.read(length)
    if b"#" in text:  # numpy passes over it
        raise ValueError(f"{name}: its header holds a comment")
    header = io.BytesIO(prefix + text)
    try:
        shape, is_fortran, dtype = read(header)  # type: ignore[no-untyped-call]
        lengths = tuple(int(length) for length in shape)
    except Exception as error:  # numpy runs a parser of Python over it, which fails in many ways
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise ValueError(f"{name}: its header cannot be read ({reason})") from error
    if dtype.hasobject:
        raise ValueError(f"{name}: contains objects, not numbers")
    is_plain = dtype.kind in "biufU" and dtype.isnative and 1 <= dtype.itemsize <= 1024
    if not is_plain or len(lengths) > MAX_AXES or not all(0 <= n < 2**40 for n in lengths):
        raise ValueError(
            f"{name}: expected numbers or texts of this machine in at most {MAX_AXES} axes"
        )
    return lengths, bool(is_fortran), dtype


def _num_bytes(name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> int:
    num_bytes = dtype.itemsize
    for length in shape:
        num_bytes *= length
    if not 0 <= num_bytes <= MAX_ARRAY_BYTES or any(length < 0 for length in shape):
        raise ValueError(f"{name}: {num_bytes} bytes; at most {MAX_ARRAY_BYTES} are allowed")
    return num_bytes
