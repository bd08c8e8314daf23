"""Archives of images from anybody: one face, bounded sizes, and nothing that never ends."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.arrays_file import (
    array_names,
    count_images,
    read_arrays,
    read_images,
)
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.submission.strangers import stranger

SHAPE = (1, 8, 8)
IMAGES = np.full((3, *SHAPE), 0.5, dtype=np.float32)
DIGITS = Path(__file__).parents[3] / "leaderboard" / "results" / "1.1" / "digits"


def written(path: Path, save: Callable[..., None] = np.savez, **more: np.ndarray) -> Path:
    save(path, images=IMAGES, indices=np.arange(3), **more)
    return path


class _Pipe(io.RawIOBase):
    """A file that cannot be gone back in: sizes then follow the members."""

    def __init__(self, stream: io.BufferedWriter) -> None:
        self.stream = stream

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        return self.stream.write(content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    path = written(tmp_path / "a.npz", save)
    assert array_names(path) == ("images", "indices")
    assert np.array_equal(read_images(path, SHAPE), IMAGES)
    with (tmp_path / "piped.npz").open("wb") as stream:
        save(_Pipe(stream), images=IMAGES)
    assert np.array_equal(read_images(tmp_path / "piped.npz", SHAPE), IMAGES)
    with zipfile.ZipFile(tmp_path / "long.npz", "w") as archive:  # numbers of 64 bits in its list
        content = io.BytesIO()
        np.save(content, IMAGES)
        with archive.open("images.npy", "w", force_zip64=True) as member:
            member.write(content.getvalue())
    assert np.array_equal(read_images(tmp_path / "long.npz", SHAPE), IMAGES)


def _between(content: bytes) -> bytes:
    """Bytes between two members, with all later places moved."""
    first = content.index(b"PK\x03\x04", 4)
    listed = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", listed + 4)
    end = content.index(b"PK\x05\x06")
    moved = bytearray(content)
    moved[second + 42 : second + 46] = struct.pack("<L", first + 5)
    moved[end + 16 : end + 20] = struct.pack("<L", listed + 5)
    return bytes(moved[:first]) + b"12345" + bytes(moved[first:])


def _renamed(content: bytes) -> bytes:
    return content.replace(
        b"images.npy", b"imagez.npy", 1
    )  # in front of the member, not in the list


def _comment(content: bytes) -> bytes:
    return content[:-2] + struct.pack("<H", 5) + b"hello"


def _said(place: int, value: bytes) -> Callable[[bytes], bytes]:
    """Bytes of the header in front of the first member, which its list denies."""
    return lambda content: content[:place] + value + content[place + len(value) :]


def _with_extra(content: bytes) -> bytes:
    """A field of another kind in front of the first member, as long as numpy's own."""
    return content.replace(b"images.npy\x01\x00", b"images.npy\x75\x70", 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_said(8, b"\x08\x00"), "is described in two ways"),
        (_said(6, b"\x02\x00"), "is described in two ways"),
        (_with_extra, "bytes that belong to no array"),
        (lambda content: b"#!/bin/sh\n" + content, "is something that is no array"),
        (lambda content: content + b"tail", "bytes that belong to no array"),
        (_between, "is something that is no array"),
        (_comment, "bytes that belong to no array"),
        (_renamed, "has two names"),
    ],
)
def test_a_file_with_two_faces_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    path = written(tmp_path / "a.npz")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ResultError, match=words):
        read_arrays(path, ("images",))


def _deflated(path: Path, header: bytes, num_zeros: int, fill: bytes = b"\0") -> Path:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as member,
    ):
        member.write(header)
        for _ in range(num_zeros // 2**20):
            member.write(fill * 2**20)
    return path


def test_small_files_do_not_unpack_to_much(tmp_path: Path) -> None:
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": True, "shape": (2**19, *SHAPE)}
    np.lib.format.write_array_header_1_0(header, about)
    many = _deflated(tmp_path / "many.npz", header.getvalue(), 2**27)
    claim = b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**24)
    long = _deflated(tmp_path / "long.npz", claim, 2**24, b" ")
    for path, words in ((many, "at most 100 times as many"), (long, "its header claims")):
        tracemalloc.start()
        try:
            with pytest.raises(ResultError, match=words):
                read_images(path, SHAPE, num_rows=1)
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices are of POSIX")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_has_no_end_is_not_opened(tmp_path: Path, kind: str) -> None:
    """A pipe waits for ever, and /dev/zero never ends."""

    def put(name: str) -> Path:
        path = tmp_path / name
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        return path

    readers: dict[str, Callable[[Path], object]] = {
        "a.json": read_result,
        "a.outcomes.parquet": read_outcomes,
        "a.npz": array_names,
    }
    for name, read in readers.items():
        with pytest.raises(ResultError, match="a pipe or a device, and no file"):
            read(put(name))
    assert "a pipe or a device" in stranger(put("weights.pt"))
    entry = "digits-adv-lwm-10x"
    for path in DIGITS.glob(f"{entry}.*"):
        shutil.copy(path, tmp_path / path.name)
    read_result(tmp_path / f"{entry}.json")
    for ending in ("adversarial.npz", "outcomes.parquet"):
        put(f"{entry}.{ending}")
        with pytest.raises(ResultError, match=f"{ending}: cannot be read"):
            read_result(tmp_path / f"{entry}.json")
        (tmp_path / f"{entry}.{ending}").unlink()
        shutil.copy(DIGITS / f"{entry}.{ending}", tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': ('<f4',), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': (), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ((),), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 20 + ")}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "'''",
        "((((" * 50,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}  # hidden",
    ],
)
def test_whatever_a_header_says_is_one_error(tmp_path: Path, header: str) -> None:
    text = header.encode()
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\0" * 4
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content)
    for read in (lambda: read_images(path, SHAPE), lambda: count_images(path)):
        with pytest.raises(ResultError, match="expected an npz file with"):
            read()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_nothing_is_hidden_behind_packed_bytes(tmp_path: Path, method: int) -> None:
    content = io.BytesIO()
    np.save(content, IMAGES)
    raw, name = content.getvalue(), b"images.npy"
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(raw) + packer.flush() if method else raw

    def archive(hidden: bytes) -> Path:
        body = packed + hidden
        sizes = struct.pack("<LLL", zlib.crc32(raw), len(body), len(raw))
        common = struct.pack("<HHHHH", 20, 0, method, 0, 33) + sizes
        member = b"PK\x03\x04" + common + struct.pack("<HH", len(name), 0) + name + body
        places = struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, 0, 0)
        listed = b"PK\x01\x02" + struct.pack("<H", 20) + common + places + name
        end = struct.pack("<HHHHLLH", 0, 0, 1, 1, len(listed), len(member), 0)
        path = tmp_path / "a.npz"
        path.write_bytes(member + listed + b"PK\x05\x06" + end)
        return path

    assert np.array_equal(read_images(archive(b""), SHAPE), IMAGES)
    with pytest.raises(ResultError, match="bytes that belong to no array"):
        read_images(archive(b"hidden"), SHAPE)


@pytest.mark.parametrize("more", [-1, 0, 1, 100])
@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_what_unpacks_to_just_about_what_is_unpacked_at_once_is_read(
    tmp_path: Path, num_parts: int, more: int
) -> None:
    """All packed bytes may be taken up while some of what they stand for is still to come."""
    content = io.BytesIO()
    np.save(content, np.zeros(2**10, dtype=np.uint8))
    header = len(content.getvalue()) - 2**10
    values = np.zeros(num_parts * 2**20 - header + more, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=values)
    found = read_arrays(tmp_path / "a.npz", ("images",))["images"]
    assert np.array_equal(found, values)
