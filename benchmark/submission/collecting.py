"""Every tensor in what a training script saved, under one name each, as plain dense numbers.

A state dict may lie under a key, under a key of a key, or beside others; masks may be a list. Here
all of it becomes one flat table, so that what belongs together is found by name alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from corobench.benchmark.submission.weights import MAX_LISTED, State

MAX_DEPTH = 12
MAX_TENSORS = 100_000
#: Values of a tensor that is stored sparsely: those of the largest file that is read.
MAX_VALUES = 2**29


@dataclass
class Collected:
    """What a file holds.

    Attributes:
        tensors: by name: keys and the names behind them, joined by dots; ``key[3]`` in a list.
        containers: what the names of each mapping or list of tensors begin with, in order; "" is
            the file itself.
        what: the file's keys, or what else it is, for messages.
        not_tensors: names of what else is there and is not a single number or text.
        faults: why tensors cannot be used, with their names.
    """

    tensors: State = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)
    what: str = ""
    not_tensors: list[str] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def list_faults(self) -> list[str]:
        """One line for each reason, with the first tensor that it is about."""
        return [
            f"tensor `{names[0]}`{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {fault}"
            for fault, names in self.faults.items()
        ]


def collect(content: Any) -> Collected:
    """All tensors of a file that was read.

    Args:
        content: mappings and lists of tensors and other things, nested.
    """
    what = type(content).__name__
    if isinstance(content, Tensor):
        what = "a single tensor"
    elif isinstance(content, Mapping):
        keys = ", ".join(str(key) for key in list(content)[:MAX_LISTED])
        what = f"the keys {keys}" if keys else "nothing in the file"
    found = Collected(what=what)
    _visit(content, "", found, 0)
    return found


def _visit(value: Any, name: str, found: Collected, depth: int) -> None:
    if isinstance(value, Tensor):
        if len(found.tensors) < MAX_TENSORS:
            _add(value, name, found)
        return
    if isinstance(value, Mapping | list | tuple) and not value:
        return
    if depth > MAX_DEPTH or not _may_hold_tensors(value, depth):
        if not isinstance(value, int | float | str | None) and name:
            found.not_tensors.append(name)
        return
    is_named = isinstance(value, Mapping)
    parts: list[tuple[str, Any]] = (
        [(f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
        if isinstance(value, Mapping)
        else [(f"{name}[{number}]", one) for number, one in enumerate(value)]
    )
    if any(isinstance(one, Tensor) for _, one in parts):
        found.containers.append(name + "." if is_named and name else name)
    for part, one in parts:
        _visit(one, part, found, depth + 1)


def _may_hold_tensors(value: Any, depth: int) -> bool:
    """Whether something nested is a mapping, or a list with a tensor or a mapping inside."""
    if isinstance(value, Tensor | Mapping):
        return True
    if depth > MAX_DEPTH or not isinstance(value, list | tuple):
        return False
    return any(_may_hold_tensors(one, depth + 1) for one in value)


def _add(tensor: Tensor, name: str, found: Collected) -> None:
    plain, fault = _plain(tensor.detach())
    if plain is None:
        found.faults.setdefault(fault, []).append(name)
    else:
        found.tensors[name] = plain


def _plain(tensor: Tensor) -> tuple[Tensor | None, str]:
    """A tensor as dense numbers, or why it has none."""
    if tensor.is_meta:
        return None, (
            "on the meta device, which holds shapes and no values; load the weights into the "
            "model before it is saved, and save that"
        )
    if tensor.is_quantized:
        return None, (
            f"quantised by torch ({str(tensor.dtype).removeprefix('torch.')}), which only "
            "torch's integer kernels compute with; import the float32 weights from before, or an "
            "ONNX file with QuantizeLinear and DequantizeLinear pairs (onnxruntime's "
            "quantize_static with quant_format=QuantFormat.QDQ)"
        )
    if tensor.layout == torch.strided:
        return tensor, ""
    if tensor.numel() > MAX_VALUES:
        return None, f"sparse with {tensor.numel()} values; at most {MAX_VALUES} are read"
    try:
        return tensor.to_dense(), ""
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return None, f"in the layout {tensor.layout}; save it dense: tensor.to_dense()"
