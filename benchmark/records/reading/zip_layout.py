"""Whether every byte of a zip archive is of one of its members, or of the list of them.

What stands in front of an archive, between its members or behind it is read by other programs and
not by this one: a file with two faces. Layout: APPNOTE.TXT of the zip format, section 4.3.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import IO

from corobench.benchmark.errors import printable

_MEMBER, _LISTED, _SIZES = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
#: Bytes behind the list of members, without and with numbers of 64 bits; no comment.
_ENDS = (22, 22 + 20 + 56)
_SIZES_FOLLOW = 0x08
#: Bytes that are unpacked at once.
_AT_ONCE = 2**20
#: In place of a number that needs 64 bits.
_LONG = 0xFFFFFFFF


def require_whole(archive: zipfile.ZipFile, stream: IO[bytes], num_bytes: int) -> None:
    """Refuse an archive with bytes of its own between its parts, or a member of two names.

    Args:
        archive: opened from `stream`.
        stream: the file.
        num_bytes: its length.

    Raises:
        ValueError: says what is wrong.
    """
    place = 0
    for member in sorted(archive.infolist(), key=lambda one: one.header_offset):
        if member.header_offset != place:
            raise ValueError(f"{place} bytes into it is something that is no array")
        place = _end_of_member(stream, member)
    if archive.start_dir != place or num_bytes - _end_of_list(stream, place) not in _ENDS:
        raise ValueError("it holds bytes that belong to no array")


def _end_of_member(stream: IO[bytes], member: zipfile.ZipInfo) -> int:
    stream.seek(member.header_offset)
    header, name = stream.read(30), printable(member.filename)
    if len(header) < 30 or header[:4] != _MEMBER:
        raise ValueError(f"{name}: does not begin like a member")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    if stream.read(name_length) != member.orig_filename.encode():
        raise ValueError(f"{name}: has two names")
    extra = stream.read(extra_length)
    told = struct.unpack("<HHHHHLLL", header[4:26])
    flags, method, crc, packed, size = told[1], told[2], *told[5:]
    known = (member.CRC, member.compress_size, member.file_size)
    is_elsewhere = bool(flags & _SIZES_FOLLOW) or _LONG in (packed, size)
    is_told = is_elsewhere or (crc, packed, size) == known
    if (flags, method) != (member.flag_bits, member.compress_type) or not is_told:
        raise ValueError(f"{name}: is described in two ways")
    if member.comment or not (_is_plain(extra) and _is_plain(member.extra)):
        raise ValueError(f"{name}: holds bytes that belong to no array")
    end: int = member.header_offset + 30 + name_length + extra_length + member.compress_size
    if not member.flag_bits & _SIZES_FOLLOW:
        return end
    stream.seek(end)
    follows = stream.read(24)
    if follows[:4] == _SIZES:
        follows, end = follows[4:], end + 4
    sizes = struct.pack("<QQ", member.compress_size, member.file_size)
    return end + (20 if follows[4:20] == sizes else 12)


def require_packed(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse packed bytes behind the end of what they unpack to.

    Args:
        archive: that the member is of.
        member: stored, or deflated to no more than its size.

    Raises:
        ValueError: says what is wrong.
    """
    if member.compress_type != zipfile.ZIP_DEFLATED:
        if member.compress_size != member.file_size:
            raise ValueError(f"{printable(member.filename)}: holds bytes that belong to no array")
        return
    stream, unpacker = archive.fp, zlib.decompressobj(-zlib.MAX_WBITS)
    assert stream is not None
    stream.seek(_begin(stream, member))
    left, packed, made = member.compress_size, b"", b"."
    while not unpacker.eof and (made or packed or left):
        if not packed:
            packed = stream.read(min(left, _AT_ONCE))
            left -= len(packed) or left  # a file that has become shorter has no more
        # All that is packed may be taken up before all that it stands for is given out.
        made = unpacker.decompress(packed, _AT_ONCE)
        packed = unpacker.unconsumed_tail
    if left or unpacker.unused_data or not unpacker.eof:
        raise ValueError(f"{printable(member.filename)}: holds bytes that belong to no array")


def _begin(stream: IO[bytes], member: zipfile.ZipInfo) -> int:
    stream.seek(member.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", stream.read(4))
    return member.header_offset + 30 + int(name_length) + int(extra_length)


def _is_plain(extra: bytes) -> bool:
    """Nothing, or numbers of 64 bits: one field of kind 1, of two numbers at most here."""
    return not extra or (extra[:2] == b"\x01\x00" and len(extra) in (4, 12, 20, 28))


def _end_of_list(stream: IO[bytes], place: int) -> int:
    while True:
        stream.seek(place)
        entry = stream.read(46)
        if len(entry) < 46 or entry[:4] != _LISTED:
            return place
        place += 46 + sum(struct.unpack("<HHH", entry[28:34]))
