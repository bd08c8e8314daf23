"""Files of strangers are opened only if they are files: a pipe or a device has no end."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read its bytes, or refuse what is none; nothing waits.

    Raises:
        OSError: as `open` does, and for folders, pipes, sockets and devices.
    """
    number = os.open(path, _FLAGS)
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "a pipe or a device, and no file", str(path))
        return io.BufferedReader(io.FileIO(number, "rb"))
    except BaseException:
        os.close(number)
        raise
