"""What `--workers`, `--device`, `--workers-per-device` and `--ray` say; imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corobench.benchmark.errors import ConfigError

#: A single entry that takes less than this is computed in its own process, without workers.
SMALL_S = 20.0


@dataclass(frozen=True)
class Crew:
    """Who computes.

    Attributes:
        num_workers: processes that compute; None for as many as the cores or devices have room
            for.
        devices: such as "cpu", or "cuda:0" and "cuda:1".
        per_device: workers of each device; of no meaning for "cpu".
        ray: address of a Ray cluster, "auto" or "local"; None for processes of this machine.
    """

    num_workers: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    per_device: int = 1
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"--workers: expected at least 1, but found {self.num_workers}")
        if self.ray is not None and not self.ray.strip():
            raise ConfigError('--ray: expected an address, "auto" or "local", but found nothing')
        if self.per_device < 1:
            raise ConfigError(f"--workers-per-device: expected at least 1, found {self.per_device}")
        if not self.devices or ("cpu" in self.devices and len(self.devices) > 1):
            raise ConfigError("--device: expected cpu, or accelerators alone")

    @property
    def size(self) -> int:
        """How many workers there are.

        >>> Crew(3).size, Crew(devices=("cuda:0", "cuda:1"), per_device=4).size
        (3, 8)
        """
        if self.num_workers is not None:
            return self.num_workers
        if self.devices == ("cpu",):
            return num_cores()
        return len(self.devices) * self.per_device

    def computes_apart(self, costs_s: tuple[float, ...]) -> bool:
        """Whether workers compute, and not the process of each entry itself.

        Args:
            costs_s: estimated seconds of each entry; 0 where nothing is known.

        >>> Crew(1).computes_apart((9e9,)), Crew(2).computes_apart((1.0,))
        (False, True)
        >>> Crew().computes_apart((1.0,))
        False
        """
        if self.ray is not None:
            return True
        if self.num_workers is None and len(costs_s) == 1 and 0 < costs_s[0] < SMALL_S:
            return False
        return self.size > 1


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
