"""An accelerator within the process that works on one submission."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def device_of(arguments: Mapping[str, Any]) -> str:
    """The device that a task is asked to work on.

    >>> device_of({"folder": "x"}), device_of({"settings": {"device": "cuda"}})
    ('cpu', 'cuda')
    """
    settings = arguments.get("settings")
    asked = settings or arguments
    if not isinstance(asked, Mapping):
        asked = vars(asked)
    return str(asked.get("device") or "cpu")


def wake(device: str) -> tuple[Path, ...]:
    """Start an accelerator's driver, which opens its files, before writing is given up.

    Args:
        device: for example "cpu" or "cuda".

    Returns:
        Its device files, which stay writable; none for a CPU.

    Raises:
        ConfigError: no such device here.
    """
    if device == "cpu":
        return ()
    import torch

    from corobench.benchmark.network.device import resolve_device

    found = resolve_device(device)
    torch.ones(1, device=found).add(1.0).item()
    return tuple(sorted(Path("/dev").glob("nvidia*"))) if found.type == "cuda" else ()
