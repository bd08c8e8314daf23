"""Much work of one kind by several processes, in the order of its items.

A forked process sees everything that was read already, so that nothing but results is handed over.
Where there is little work, one processor or no safe fork, it is done here, one after another. The
results are the same.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import current_process, get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")

#: Fewer items are not worth a process.
MANY = 300
#: More processes would wait for the one that collects.
MOST_PROCESSES = 4
_AT_ONCE = 16

_job: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def in_order(work: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    """``[work(item) for item in items]``.

    Args:
        work: depends on its item alone, and changes nothing that matters later.
        items: any number.

    Raises:
        Whatever `work` raises.
    """
    global _job
    num_processes = min(_num_processors(), MOST_PROCESSES)
    if len(items) < MANY or num_processes < 2 or not _may_fork():
        return [work(item) for item in items]
    _job = work, items
    try:
        with warnings.catch_warnings():
            # Python warns of a fork beside threads, such as idle ones of a library for matrices:
            # none of them holds what a child asks for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pool = get_context("fork").Pool(num_processes)
        with pool:
            return pool.map(_call, range(len(items)), chunksize=_AT_ONCE)
    finally:
        _job = None


def _call(place: int) -> Any:
    assert _job is not None
    work, items = _job
    return work(items[place])


def _num_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _may_fork() -> bool:
    is_alone = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and is_alone and not current_process().daemon
