"""Submission folders on disk, valid until a test breaks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor

from corobench.benchmark.submission import write_weights
from corobench.benchmark.submission.architectures import build

TABLE: dict[str, Any] = {
    "schema": 1,
    "id": "entry",
    "title": "An entry",
    "authors": ["Ada"],
    "licence": "MIT",
    "track": "digits",
    "sparsity": 0.0,
    "model": {"architecture": "cnn-small", "arguments": {"width": 0.1}},
    "method": {"name": "dense", "pipeline": "none", "pretrain_objective": "natural"},
    "training": {"data": "digits"},
}


def merge(table: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `table`; None takes a key away."""
    merged = dict(table)
    for key, value in over.items():
        if value is None:
            merged.pop(key)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def make_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights of the network of TABLE."""
    torch.manual_seed(seed)
    return build("cnn-small", (1, 8, 8), 10, {"width": 0.1}).state_dict()


def make_folder(
    root: Path,
    state: dict[str, Tensor] | None = None,
    **over: Any,
) -> Path:
    """A valid folder named "entry", with keys of the manifest replaced."""
    folder = root / "entry"
    folder.mkdir()
    (folder / "submission.toml").write_bytes(tomli_w.dumps(merge(TABLE, over)).encode())
    write_weights(folder / "model.safetensors", make_state() if state is None else state)
    return folder


def raw_safetensors(header: Any, values: bytes = b"", size: int | None = None) -> bytes:
    """A safetensors file byte by byte."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + values
