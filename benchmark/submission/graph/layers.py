"""Layers of a network read from ONNX that torch does not have as modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class WithConstants(nn.Module):
    """An operator some of whose operands are stored tensors.

    Args:
        operator: the module that takes all operands.
        constants: operands in order; None where one comes from the graph.
    """

    def __init__(self, operator: nn.Module, constants: Sequence[Tensor | None]) -> None:
        super().__init__()
        self.operator = operator
        self.is_stored = [constant is not None for constant in constants]
        for position, constant in enumerate(constants):
            if constant is not None:
                self.register_buffer(f"constant{position}", constant)

    def forward(self, *values: Tensor) -> Tensor:
        rest = iter(values)
        operands = [
            getattr(self, f"constant{position}") if stored else next(rest)
            for position, stored in enumerate(self.is_stored)
        ]
        found: Tensor = self.operator(*operands)
        return found


class Reshape(nn.Module):
    """Each image's values in another shape; the batch stays.

    Args:
        shape: of one image.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


class Concat(nn.Module):
    """Tensors side by side along one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, dim=self.axis)


class Power(nn.Module):
    """Values to the power of a whole number."""

    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x**self.exponent


class Clip(nn.Module):
    """Values cut to a range, which are settings and no tensors."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


class Slice(nn.Module):
    """A part of each image's values.

    Args:
        parts: (axis, start, end, step) each; axes from 1, steps above 0.
    """

    def __init__(self, parts: Sequence[tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.parts = [tuple(part) for part in parts]

    def forward(self, x: Tensor) -> Tensor:
        index = [slice(None)] * x.ndim
        for axis, start, end, step in self.parts:
            index[axis] = slice(start, end, step)
        return x[tuple(index)]


class Pad(nn.Module):
    """A border of one value.

    Args:
        pads: before and after each axis, the last axis first, as torch has it.
        value: of the border.
    """

    def __init__(self, pads: Sequence[int], value: float) -> None:
        super().__init__()
        self.pads, self.value = list(pads), value

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, self.pads, value=self.value)


class Mean(nn.Module):
    """The mean over axes."""

    def __init__(self, axes: Sequence[int], keep: bool) -> None:
        super().__init__()
        self.axes, self.keep = list(axes), keep

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=self.keep)


class Elementwise(nn.Module):
    """A function of torch, value by value: of one tensor, or of two that are broadcast.

    Args:
        function: such as `torch.mul`; its name is the layer's.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    @property
    def op_name(self) -> str:
        return str(getattr(self.function, "__name__", ""))

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)


class Max(nn.Module):
    """The largest of one or more tensors, value by value; ties share a gradient evenly."""

    def forward(self, *values: Tensor) -> Tensor:
        return _stacked(values).amax(dim=0)


class Min(nn.Module):
    """The smallest of one or more tensors, value by value; ties share a gradient evenly."""

    def forward(self, *values: Tensor) -> Tensor:
        return _stacked(values).amin(dim=0)


def _stacked(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*values))  # type: ignore[no-untyped-call]


class PRelu(nn.Module):
    """Values below 0 times a slope, which is broadcast."""

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        return x.clamp(min=0) + x.clamp(max=0) * slope


class Hardsigmoid(nn.Module):
    """``alpha * x + beta``, cut to [0, 1]; torch has it for alpha = 1/6 alone."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.alpha + self.beta).clamp(0, 1)


class Flattened(nn.Module):
    """A layer that works on the last axis, with an axis and all behind it as one.

    Args:
        layer: keeps shapes.
        axis: the first of them.
    """

    def __init__(self, layer: nn.Module, axis: int) -> None:
        super().__init__()
        self.layer, self.axis = layer, axis

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x.flatten(self.axis))
        return found.reshape(x.shape)


class Transpose(nn.Module):
    """Axes in another order.

    Args:
        dims: the order; None turns it round.
    """

    def __init__(self, dims: Sequence[int] | None) -> None:
        super().__init__()
        self.dims = None if dims is None else list(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(*(range(x.ndim)[::-1] if self.dims is None else self.dims))


class GlobalAveragePool(nn.Module):
    """The mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(tuple(range(2, x.ndim)), keepdim=True)


class GlobalMaxPool(nn.Module):
    """The largest value of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(tuple(range(2, x.ndim)), keepdim=True)


class UnitLength(nn.Module):
    """Values divided by the root of the sum of their squares along one axis; zeros stay zeros."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=self.axis, keepdim=True)
        return x / torch.where(length > 0, length, torch.ones_like(length))


class LowestPad(nn.Module):
    """A border that is never the largest value, for maxima over windows.

    Args:
        padding: before and after each axis, the last axis first, as torch has it.
    """

    def __init__(self, padding: Sequence[int]) -> None:
        super().__init__()
        self.padding = list(padding)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, self.padding, value=-math.inf)


class AveragePool(nn.Module):
    """Means over windows of a padded input in which the border does not count.

    Args:
        pool: means in which it counts.
        pad: adds a border of zeros.
    """

    def __init__(self, pool: nn.Module, pad: nn.Module) -> None:
        super().__init__()
        self.pool, self.pad = pool, pad

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = self.pool(self.pad(x))
        shares: Tensor = self.pool(self.pad(torch.ones_like(x)))
        return torch.where(shares > 0, means / shares, torch.zeros_like(means))


class DilatedAveragePool(nn.Module):
    """Means over windows with gaps; no layer of torch has them.

    Args:
        kernel_size: values of a window, for each axis behind the channels.
        stride: from one window to the next.
        dilation: from one value of a window to the next.
    """

    def __init__(
        self, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = list(kernel_size), list(stride)
        self.dilation = list(dilation)

    def forward(self, x: Tensor) -> Tensor:
        windows = x
        settings = zip(self.kernel_size, self.stride, self.dilation, strict=True)
        for axis, (kernel, stride, dilation) in enumerate(settings, start=2):
            windows = windows.unfold(axis, (kernel - 1) * dilation + 1, stride)
        parts = (slice(None, None, dilation) for dilation in self.dilation)
        index: tuple[Any, ...] = (..., *parts)
        return windows[index].flatten(-len(self.kernel_size)).mean(-1)


class Quantise(nn.Module):
    """Values rounded to whole steps and back, as an integer engine holds them between layers.

    ``(clamp(round(x / scale) + zero, low, high) - zero) * scale``, rounded half to even. The
    gradient passes as if nothing were rounded, and is 0 where the value is clamped.

    Args:
        scale: float32, of one value or one per channel, broadcastable to the input.
        zero: whole numbers of the same shape, as float32.
        low: smallest whole number.
        high: largest whole number.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, zero: Tensor, low: int, high: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        low, high = (self.low - self.zero) * self.scale, (self.high - self.zero) * self.scale
        clamped = torch.minimum(torch.maximum(x, low), high)
        steps = (torch.round(x / self.scale) + self.zero).clamp(self.low, self.high)
        return clamped + ((steps - self.zero) * self.scale - clamped).detach()


class GraphNetwork(nn.Module):
    """Steps in order, each on values that were made before it.

    Args:
        steps: modules.
        sources: for each step the numbers of its operands: 0 is the image, i + 1 the output of
            step i. The last step gives the logits.
    """

    def __init__(self, steps: Sequence[nn.Module], sources: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.sources = [tuple(numbers) for numbers in sources]
        last = {number: step for step, numbers in enumerate(self.sources) for number in numbers}
        self.done = [
            [number for number in set(numbers) if last[number] == step]
            for step, numbers in enumerate(self.sources)
        ]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        values = {0: x_BCHW}
        for number, (step, sources) in enumerate(zip(self.steps, self.sources, strict=True)):
            values[number + 1] = step(*(values[source] for source in sources))
            for source in self.done[number]:
                del values[source]
        return values[len(self.sources)]
