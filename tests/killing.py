"""End a piece of code at its k-th file operation, as a kill would: nothing after it happens.

Python reports every opening, renaming and removing of a file before it is done ("audit events").
From the k-th on, each raises `Killed`, so that no clean-up of the code under test works either.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")


class Killed(BaseException):
    """The process is dead."""


class _Counter:
    below: str = ""
    left: int | None = None
    num_seen = 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left is None or event not in FILE_EVENTS:
            return
        if not str(arguments[0]).startswith(self.below):
            return
        self.num_seen += 1
        if self.num_seen > self.left:
            raise Killed


_counter = _Counter()
_installed: list[bool] = []


def killed_at(step: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do `work` until it begins its file operation number `step` below a folder, from 0.

    Returns:
        Whether it was killed, and not done before.
    """
    if not _installed:
        sys.addaudithook(_counter.hook)  # stays for good, and does nothing while not armed
        _installed.append(True)
    _counter.below, _counter.num_seen, _counter.left = os.fspath(folder), 0, step
    try:
        work()
    except Killed:
        return True
    finally:
        _counter.left = None
    return False
