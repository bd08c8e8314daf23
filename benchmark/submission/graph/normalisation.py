"""A normalisation at the image, as the layer that networks by name have."""

from __future__ import annotations

from torch import nn

from corobench.benchmark.submission.architectures.parts import Normalize
from corobench.benchmark.submission.graph.layers import WithConstants


def with_normalisation(
    steps: list[nn.Module], sources: list[tuple[int, ...]], channels: int
) -> tuple[list[nn.Module], list[tuple[int, ...]]]:
    """A subtraction and a division per channel right at the image become one `Normalize`."""
    if len(steps) < 3 or sources[:2] != [(0,), (1,)]:
        return steps, sources
    if any(number < 2 for numbers in sources[2:] for number in numbers):
        return steps, sources
    numbers = []
    for step, kind in zip(steps[:2], ("sub", "div"), strict=True):
        if not isinstance(step, WithConstants) or step.is_stored != [False, True]:
            return steps, sources
        constant = step.get_buffer("constant1")
        name = getattr(step.operator, "op_name", type(step.operator).__name__).lower()
        is_per_channel = tuple(constant.shape) in (
            (channels, 1, 1),
            (1, channels, 1, 1),
            (),
            (1,),
        )
        if name != kind or not is_per_channel or (kind == "div" and bool((constant <= 0).any())):
            return steps, sources
        numbers.append(constant.reshape(-1).expand(channels).tolist())
    rest = [tuple(max(0, number - 1) for number in item) for item in sources[2:]]
    return [Normalize(*numbers), *steps[2:]], [(0,), *rest]
