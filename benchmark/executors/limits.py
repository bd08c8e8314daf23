"""Limits on the process that works on a submission."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
#: Memory that torch and its threads reserve without using it, on top of what is used.
RESERVED_BYTES = 4 * GIB


@dataclass(frozen=True)
class Limits:
    """What one process may use.

    Attributes:
        step_s: wall-clock seconds of one step, such as one chunk of one attack, and as many
            processor seconds for each thread.
        memory_bytes: resident memory.
        file_bytes: size of one file that is written.
    """

    step_s: float = 6 * 3600.0
    memory_bytes: int = 16 * GIB
    file_bytes: int = 8 * GIB

    def is_less_than(self, other: Limits) -> bool:
        """Whether anything is allowed less."""
        return self.step_s < other.step_s or self.memory_bytes < other.memory_bytes


#: Processes that may end on one submission before nothing more of it is tried.
MAX_ENDED = 3


def apply(limits: Limits) -> None:
    """Set what holds for the whole life of this process; a missing facility is left out.

    The parent watches resident memory. The limit set here, on memory that is reserved, is above it
    and stops what allocates faster than the parent looks.
    """
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    if sys.platform.startswith("linux"):
        reserved = limits.memory_bytes + RESERVED_BYTES
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (reserved, reserved))
        # Where the machine itself runs out, this process goes first and not the harness.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")


def allow_processor_time(seconds: float, num_threads: int) -> None:
    """Give the step that begins its processor seconds, counted from now."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    soft = math.ceil(spent + seconds * num_threads) + 1
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()
