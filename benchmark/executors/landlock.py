"""Linux' Landlock: this process gives up, for good, to write outside some folders, and more.

Three system calls without a wrapper in the standard library; the packages that wrap them are
development releases or younger than a year. See ``man 7 landlock``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH, _PR_SET_NO_NEW_PRIVS = 1, 1, 38
#: Rights over files that change something, by the version of the interface that knows them first:
#: write a file, remove folder and file, make everything that can be made; refer; truncate.
_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_TCP = 0b11  # bind and connect, from version 4 on
_SIGNALS = 0b10  # from version 6 on


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Version of Landlock that the kernel offers, 0 where it offers none."""
    if not sys.platform.startswith("linux"):
        return 0
    found = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(0, int(found))


def allow_writes_below(folders: Sequence[Path]) -> bool:
    """Keep this thread and its later children from changing files elsewhere and from TCP.

    From the memory of other processes, too, and from signals to them where the kernel knows that.

    Args:
        folders: existing folders or files in which everything stays allowed.

    Returns:
        Whether the kernel holds it; False where it has no Landlock.
    """
    known = version()
    if not known:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    changes = _CHANGES | (_REFER if known >= 2 else 0) | (_TRUNCATE if known >= 3 else 0)
    wanted = _Ruleset(changes, _TCP if known >= 4 else 0, _SIGNALS if known >= 6 else 0)
    size = ctypes.sizeof(wanted) if known >= 6 else (16 if known >= 4 else 8)
    rules = libc.syscall(_CREATE_RULESET, ctypes.byref(wanted), size, 0)
    if rules < 0:
        return False
    try:
        for folder in folders:
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            allowed = changes if folder.is_dir() else changes & (_WRITE_FILE | _TRUNCATE)
            rule = _Beneath(allowed, descriptor)
            failed = libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(rule), 0)
            os.close(descriptor)
            if failed:
                return False
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return int(libc.syscall(_RESTRICT_SELF, rules, 0)) == 0
    finally:
        os.close(rules)
