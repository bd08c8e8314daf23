"""A graph as text that identifies it: its steps, what they are set to and how they are wired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import nn

from corobench.benchmark.submission.graph.layers import Elementwise, Slice, WithConstants
from corobench.benchmark.submission.graph.rules import (
    MAX_NUMBERS,
    MAX_WIRES,
    WIRES_PER_LAYER,
    GraphFaultError,
)


def described(steps: Sequence[nn.Module], sources: Sequence[Sequence[int]]) -> list[list[Any]]:
    """One line for each step: its kind, its settings, the numbers of its operands.

    Raises:
        GraphFaultError: so many different numbers stand in attributes, or so much is taken apart
            and joined, that it may hold weights, which would not be counted.
    """
    _require_little_wiring(steps, sources)
    settings = [_settings(step) for step in steps]
    found = {number for one in settings for number in _floats(list(one.values()))}
    if len(found) > MAX_NUMBERS:
        raise GraphFaultError(
            "onnx-attribute",
            f"{len(found)} different numbers stand in attributes such as `alpha`, `min` and "
            f"`max`, expected at most {MAX_NUMBERS}; store them as tensors, as PRelu, Max and Min "
            "take them, so that they are counted",
        )
    return [
        [_kind(step), setting, list(numbers)]
        for step, setting, numbers in zip(steps, settings, sources, strict=True)
    ]


def _require_little_wiring(steps: Sequence[nn.Module], sources: Sequence[Sequence[int]]) -> None:
    """Which value is multiplied with which of a few factors says a weight, too."""
    joined = sum(max(0, len(numbers) - 1) for numbers in sources)
    taken = sum(isinstance(part, Slice) for step in steps for part in step.modules())
    weighted = sum(any(True for _ in step.state_dict()) for step in steps)
    most = MAX_WIRES + WIRES_PER_LAYER * weighted
    if joined + taken > most:
        raise GraphFaultError(
            "onnx-too-large",
            f"{joined + taken} values are taken out of others or joined, expected at most {most} "
            f"beside {weighted} layers with stored numbers; write products with Gemm, Conv or "
            "MatMul, whose weights are counted",
        )


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _floats(one)


def _kind(step: nn.Module) -> str:
    inner = step.operator if isinstance(step, WithConstants) else step
    return str(getattr(inner, "op_name", type(inner).__name__))


def _settings(step: nn.Module) -> dict[str, Any]:
    """What a step is set to, beside its weights: plain numbers and text, of its parts as well.

    Of parts their kind, too; that of a step, or of its operator beside constants, is `_kind`.
    """
    found: dict[str, Any] = {}
    for prefix, part in step.named_modules():
        if prefix and not (isinstance(step, WithConstants) and prefix == "operator"):
            found[f"{prefix}.kind"] = type(part).__name__
        for key, value in vars(part).items():
            if key.startswith("_") or key == "training":
                continue
            if isinstance(value, np.ndarray):
                value = value.tolist()
            if isinstance(value, bool | int | float | str | list | tuple | None):
                found[f"{prefix}.{key}"] = list(value) if isinstance(value, tuple) else value
            elif key == "function":
                # Published hashes have the function of an element-wise layer as its "forward".
                key = "forward" if isinstance(part, Elementwise) else key
                found[f"{prefix}.{key}"] = getattr(value, "__name__", "")
    return found
