"""Whether every byte of a zip archive is of one of its members, or of the list of them.

What stands in front of an archive, between its members or behind it is read by other programs and
not by this one: a file with two faces. Layout: APPNOTE.TXT of the zip format, section 4.3.
"""

from __future__ import annotations

import struct
import zipfile
from typing import IO

from corobench.benchmark.errors import printable

_MEMBER, _LISTED, _SIZES = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
#: Bytes behind the list of members, without and with numbers of 64 bits; no comment.
_ENDS = (22, 22 + 20 + 56)
_SIZES_FOLLOW = 0x08


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
    header = stream.read(30)
    if len(header) < 30 or header[:4] != _MEMBER:
        raise ValueError(f"{printable(member.filename)}: does not begin like a member")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    if stream.read(name_length) != member.orig_filename.encode():
        raise ValueError(f"{printable(member.filename)}: has two names")
    end: int = member.header_offset + 30 + name_length + extra_length + member.compress_size
    if not member.flag_bits & _SIZES_FOLLOW:
        return end
    stream.seek(end)
    follows = stream.read(24)
    if follows[:4] == _SIZES:
        follows, end = follows[4:], end + 4
    sizes = struct.pack("<QQ", member.compress_size, member.file_size)
    return end + (20 if follows[4:20] == sizes else 12)


def _end_of_list(stream: IO[bytes], place: int) -> int:
    while True:
        stream.seek(place)
        entry = stream.read(46)
        if len(entry) < 46 or entry[:4] != _LISTED:
            return place
        place += 46 + sum(struct.unpack("<HHH", entry[28:34]))
