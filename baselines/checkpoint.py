"""Checkpoints: what a stage needs to go on, or to start from; written at once or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.files.atomic import write_atomic

Identity = dict[str, Any]


def save(path: Path, identity: Identity, state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: file.
        identity: everything that decides the stage's outcome; a resume must ask for the same.
        state: tensors, numbers, texts and containers of them.
    """
    buffer = io.BytesIO()
    torch.save({"identity": identity, "state": dict(state)}, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path, identity: Identity, device: torch.device) -> dict[str, Any] | None:
    """Read a checkpoint of the same identity, or None where there is no file.

    Raises:
        ConfigError: the file is another recipe's, or damaged.
    """
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        found, state = content["identity"], content["state"]
    except Exception as error:
        raise ConfigError(
            f"{path}: not a readable checkpoint ({error}); delete it to train this stage again"
        ) from error
    changes = differences(found, identity)
    if changes:
        lines = "\n".join(f"  - {change}" for change in changes)
        raise ConfigError(
            f"{path}: was trained by another recipe\n{lines}\n"
            f"delete {path.parent} to train again, or choose another --out"
        )
    return dict(state)


def differences(found: object, wanted: object, where: str = "") -> list[str]:
    """One line per leaf that differs.

    >>> differences({"a": {"b": 1}}, {"a": {"b": 2}})
    ['a.b: 1 -> 2']
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted({*found, *wanted}):
            place = f"{where}.{key}" if where else str(key)
            lines += differences(found.get(key), wanted.get(key), place)
        return lines
    return [] if found == wanted else [f"{where}: {found!r} -> {wanted!r}"]
