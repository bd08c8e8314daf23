"""Files of a submission: read without leaving its folder, written in one step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from corobench.benchmark.errors import OutputError
from corobench.benchmark.files.atomic import replace_whole

#: How a pointer of Git LFS begins, which a checkout without LFS has in place of a file.
LFS_POINTER = b"version https://git-lfs"
NOT_PULLED = "is a pointer of Git LFS and not the file itself; get it with `git lfs pull`"


class FileFaultError(Exception):
    """Why a file of a submission is refused; its text is the fault."""


def read_plain_file(folder: Path, name: str, limit_bytes: int) -> bytes:
    """The bytes of a regular file directly inside a submission's folder.

    What could lead elsewhere or never end is refused before it is opened: a path with a folder in
    it, a symbolic link, a device, a pipe, a file above the limit.

    Args:
        folder: of the submission.
        name: of a file in it.
        limit_bytes: largest size that is read.

    Raises:
        FileFaultError: the file is refused, missing or unreadable.
    """
    if name in ("", ".", "..") or any(separator in name for separator in ("/", "\\", "\0")):
        raise FileFaultError(f"{name!r}: expected the name of a file in the folder, not a path")
    path = folder / name
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise FileFaultError(f"{name}: expected a regular file, but found a symbolic link")
        if not stat.S_ISREG(mode):
            raise FileFaultError(f"{name}: expected a regular file, but found something else")
        # The link was excluded above; O_NOFOLLOW excludes one that is put there in between.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit_bytes:
                raise FileFaultError(
                    f"{name}: expected at most {limit_bytes} bytes, but found {size}"
                )
            content = stream.read(limit_bytes)
    except FileNotFoundError as error:
        raise FileFaultError(f"{name}: expected this file in the folder, but it is missing") from (
            error
        )
    except OSError as error:
        raise FileFaultError(f"{name}: cannot read it: {error.strerror or error}") from error
    if content.startswith(LFS_POINTER):
        raise FileFaultError(f"{name}: {NOT_PULLED}")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there at all.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    try:
        replace_whole(path, content)
    except OSError as error:
        raise OutputError(f"{path}: cannot write it: {error.strerror or error}") from error
