"""Affine layers: what they do to intervals, and to rows of coefficients on the way back.

Shape suffixes: B images, R rows of coefficients, C channels, H and W height and width. An array of
coefficients belongs to a *window* of a map: `origin` is the place (top, left) of its first value.
Arrays without height and width have the origin (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import as_strided

from benchmark.certify.checker.rounding import LARGEST, MAX_TERMS, SMALLEST, Array, centre, noise_of

Origin = tuple[int, int]
Shape = tuple[int, ...]
FLAT: Origin = (0, 0)


class UncheckableError(Exception):
    """The checker does not know an operator, or a use of it."""


@dataclass
class Interval:
    """Bounds of what a step gives, for B images.

    Attributes:
        low: float64 (B, ...), lower bounds in the deployed network.
        high: float64 like `low`.
        noise: float64 like `low`, bounds of the rounding that this step adds; 0 where it is exact.
    """

    low: Array
    high: Array
    noise: Array | None = None

    @property
    def size(self) -> Array:
        """Bounds of the absolute values."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


class Affine:
    """A layer that is affine in its operands; subclasses give the linear part.

    Attributes:
        bias: float64, broadcastable to one image's output.
        num_terms: terms of each sum that are not zero, broadcastable.
        reach: sum of the absolute weights of each sum, broadcastable.
        undivided: how many times larger than the result a partial sum may be: means divide last.
    """

    bias: Array
    num_terms: Array
    reach: Array
    undivided = 1.0

    def linear(self, x: Array) -> Array:
        """W x for (N, ...)."""
        raise NotImplementedError

    def absolute(self, x: Array) -> Array:
        """|W| x for (N, ...)."""
        raise NotImplementedError

    def lost_if_flushed(self, size: Array) -> Array | float:
        """What weights below `SMALLEST` contribute at most."""
        return 0.0

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        """Rows (N, ...) on the output as rows on the operand, of the shape `shape`."""
        raise NotImplementedError

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        """The interval of the output, and the noise of its rounding."""
        (given,) = operands
        mid, rad = centre(given.low, given.high)
        spread = self.absolute(rad)
        size = self.absolute(np.abs(mid)) + spread + np.abs(self.bias)
        flushed = 2.0 * SMALLEST * (self.reach + 4.0 * self.num_terms + 8.0)
        noise = noise_of(size, self.num_terms, flushed + self.lost_if_flushed(given.size))
        noise = np.where(size * self.undivided < LARGEST, noise, np.inf)
        middle = self.linear(mid) + self.bias
        return Interval(middle - spread - noise, middle + spread + noise, noise)


def _check_terms(num_terms: Array) -> None:
    if num_terms.size and num_terms.max() > MAX_TERMS:
        raise UncheckableError(f"a sum of more than {MAX_TERMS} terms")


def _tiny(weight: Array) -> Array | None:
    """The absolute weights that a deployment may flush to zero; None where there are none."""
    size = np.abs(weight)
    is_tiny = (size > 0) & (size < SMALLEST)
    return np.where(is_tiny, size, 0.0) if is_tiny.any() else None


class Linear(Affine):
    """x W.T + b.

    Args:
        weight: (out, in).
        bias: (out,).
    """

    def __init__(self, weight: Array, bias: Array) -> None:
        self.weight, self.bias = weight, bias
        self._size, self._tiny = np.abs(weight), _tiny(weight)
        self.num_terms = np.count_nonzero(weight, axis=1).astype(np.float64)
        _check_terms(self.num_terms)
        self.reach = self._size.sum(axis=1)

    def linear(self, x: Array) -> Array:
        return x @ self.weight.T

    def absolute(self, x: Array) -> Array:
        return x @ self._size.T

    def lost_if_flushed(self, size: Array) -> Array | float:
        return 0.0 if self._tiny is None else size @ self._tiny.T

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient @ self.weight, FLAT


class Conv(Affine):
    """A convolution of maps (C, H, W) with zero padding.

    Args:
        weight: (out, in / groups, kernel height, kernel width).
        bias: (out,).
        stride: down, across.
        pads: top, left, bottom, right.
        dilation: down, across.
        groups: of channels.
    """

    def __init__(
        self,
        weight: Array,
        bias: Array,
        stride: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> None:
        self.weight, self.stride, self.pads = weight, stride, pads
        self.dilation, self.groups = dilation, groups
        self.bias = bias[:, None, None]
        self._size, self._tiny = np.abs(weight), _tiny(weight)
        self.num_terms = np.count_nonzero(weight, axis=(1, 2, 3))[:, None, None].astype(np.float64)
        _check_terms(self.num_terms)
        self.reach = self._size.sum(axis=(1, 2, 3))[:, None, None]

    def linear(self, x: Array) -> Array:
        return self._convolve(x, self.weight)

    def absolute(self, x: Array) -> Array:
        return self._convolve(x, self._size)

    def lost_if_flushed(self, size: Array) -> Array | float:
        return 0.0 if self._tiny is None else self._convolve(size, self._tiny)

    def _convolve(self, x: Array, weight: Array) -> Array:
        top, left, bottom, right = self.pads
        patches = windows(
            np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))),
            weight.shape[2:],
            self.stride,
            self.dilation,
        )
        num, _, height, width = patches.shape[:4]
        out, per_group = len(weight) // self.groups, weight.shape[1]
        parts = []
        for group in range(self.groups):
            channels = slice(group * per_group, (group + 1) * per_group)
            columns = patches[:, channels].transpose(0, 2, 3, 1, 4, 5)
            columns = columns.reshape(num * height * width, -1)
            rows = weight[group * out : (group + 1) * out].reshape(out, -1)
            parts.append((columns @ rows.T).reshape(num, height, width, out))
        return np.ascontiguousarray(np.concatenate(parts, axis=3).transpose(0, 3, 1, 2))

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        num, _, height, width = coefficient.shape
        down, across = self.stride
        step_down, step_across = self.dilation
        out, per_group, kernel_height, kernel_width = self.weight.shape
        # Rows go last in memory, where they are many and the rest of a window is small.
        found = np.zeros(
            (
                per_group * self.groups,
                (height - 1) * down + (kernel_height - 1) * step_down + 1,
                (width - 1) * across + (kernel_width - 1) * step_across + 1,
                num,
            )
        )
        last = coefficient.transpose(1, 2, 3, 0)
        per_out = out // self.groups
        for group in range(self.groups):
            given = last[group * per_out : (group + 1) * per_out].reshape(per_out, -1)
            weight = self.weight[group * per_out : (group + 1) * per_out].transpose(2, 3, 1, 0)
            spread = (weight.reshape(-1, per_out) @ given).reshape(
                kernel_height, kernel_width, per_group, height, width, num
            )
            into = found[group * per_group : (group + 1) * per_group]
            for i in range(kernel_height):
                for j in range(kernel_width):
                    top, left = i * step_down, j * step_across
                    into[
                        :,
                        top : top + (height - 1) * down + 1 : down,
                        left : left + (width - 1) * across + 1 : across,
                    ] += spread[i, j]
        place = (origin[0] * down - self.pads[0], origin[1] * across - self.pads[1])
        return crop(found.transpose(3, 0, 1, 2), place, shape)


def windows(
    x: Array, kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Array:
    """Every window of a map: a view (N, C, height, width, kernel height, kernel width)."""
    num, channels, height, width = x.shape
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    out = [(size - r) // s + 1 for size, r, s in zip((height, width), reach, stride, strict=True)]
    steps = x.strides
    return as_strided(
        x,
        (num, channels, out[0], out[1], kernel[0], kernel[1]),
        (
            steps[0],
            steps[1],
            steps[2] * stride[0],
            steps[3] * stride[1],
            steps[2] * dilation[0],
            steps[3] * dilation[1],
        ),
        writeable=False,
    )


def crop(window: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
    """The part of a window (..., h, w) that lies on the map: what hangs over is padding."""
    top, left = max(0, -origin[0]), max(0, -origin[1])
    height = min(window.shape[-2], shape[-2] - origin[0])
    width = min(window.shape[-1], shape[-1] - origin[1])
    return window[..., top:height, left:width], (origin[0] + top, origin[1] + left)


class Scale(Affine):
    """x scale + shift, value by value: a batch-norm, a normalisation, a stored factor or summand.

    Args:
        scale: broadcastable to one image.
        shift: likewise.
        parts: likewise, sum of the absolute values that `shift` is computed from.
        inside: likewise, the largest factor on the way, such as 1 / sqrt(variance).
        before: likewise, the largest summand before a factor, such as the mean.
    """

    def __init__(
        self,
        scale: Array,
        shift: Array,
        parts: Array | None = None,
        inside: Array | None = None,
        before: Array | None = None,
    ) -> None:
        self.scale, self.bias = scale, shift
        self._parts = np.abs(shift) if parts is None else parts
        self._inside = np.abs(scale) if inside is None else np.maximum(np.abs(scale), inside)
        self._before = np.zeros(()) if before is None else np.abs(before)
        self.num_terms = np.ones(())
        self.reach = 2.0 * self._inside + 2.0

    def linear(self, x: Array) -> Array:
        return x * self.scale

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        mid, rad = centre(given.low, given.high)
        spread = np.abs(self.scale) * rad
        size = np.abs(self.scale) * (np.abs(mid) + rad) + self._parts
        flushed = 2.0 * SMALLEST * (self.reach + 16.0)
        tiny = _tiny(np.broadcast_to(self.scale, given.low.shape[1:]))
        if tiny is not None:
            flushed = flushed + tiny * given.size
        noise = noise_of(size, 1.0, flushed)
        on_the_way = (given.size + self._before) * np.maximum(self._inside, 1.0)
        noise = np.where(on_the_way < LARGEST, noise, np.inf)
        middle = mid * self.scale + self.bias
        return Interval(middle - spread - noise, middle + spread + noise, noise)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient * cut(self.scale, origin, coefficient.shape), origin


def cut(full: Array, origin: Origin, like: Shape) -> Array:
    """The part of an array (..., H, W) that a window of the shape `like` covers.

    Sizes of 1, which broadcast, stay; arrays without height and width stay as they are.
    """
    if full.ndim < 2 or len(like) < 4 or full.shape[-2:] == tuple(like[-2:]):
        return full
    rows = slice(None) if full.shape[-2] == 1 else slice(origin[0], origin[0] + like[-2])
    columns = slice(None) if full.shape[-1] == 1 else slice(origin[1], origin[1] + like[-1])
    return full[..., rows, columns]


class AveragePool(Affine):
    """The mean of every window of a map.

    Args:
        kernel: height, width.
        stride: down, across.
        pads: top, left, bottom, right.
        counts_padding: whether padding counts in the divisor.
        shape: of the operand.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        pads: tuple[int, int, int, int],
        counts_padding: bool,
        shape: Shape,
    ) -> None:
        self.kernel, self.stride, self.pads = kernel, stride, pads
        self.bias = np.zeros(())
        self.undivided = float(kernel[0] * kernel[1])
        self.num_terms = np.full((), self.undivided + 2)
        self.reach = np.ones(())
        top, left, bottom, right = pads
        inside = np.pad(
            np.ones((1, 1, *shape[-2:])),
            ((0, 0), (0, 0), (top, bottom), (left, right)),
            constant_values=float(counts_padding),
        )
        self._share = 1.0 / windows(inside, kernel, stride).sum(axis=(4, 5))[0]

    def linear(self, x: Array) -> Array:
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        return windows(padded, self.kernel, self.stride).sum(axis=(4, 5)) * self._share

    def absolute(self, x: Array) -> Array:
        return self.linear(x)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        shared = coefficient * cut(self._share, origin, coefficient.shape)
        return spread_out(
            [[shared] * self.kernel[1]] * self.kernel[0], self.stride, self.pads, origin, shape
        )


def whole(window: Array, origin: Origin, shape: Shape) -> Array:
    """A window (N, ...) put on the whole value of the shape `shape`, zeros elsewhere."""
    if tuple(window.shape[1:]) == tuple(shape):
        return window
    found = np.zeros((len(window), *shape))
    top, left = origin
    found[..., top : top + window.shape[-2], left : left + window.shape[-1]] = window
    return found


def spread_out(
    parts: Sequence[Sequence[Array]],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    origin: Origin,
    shape: Shape,
) -> tuple[Array, Origin]:
    """Rows on windows as rows on the map they are taken from.

    Args:
        parts: for each place of the kernel what its value counts, (N, C, h, w).
        stride: down, across.
        pads: top, left, bottom, right.
        origin: of the rows on the output.
        shape: of the map.
    """
    num, channels, height, width = parts[0][0].shape
    down, across = stride
    found = np.zeros(
        (
            num,
            channels,
            (height - 1) * down + len(parts),
            (width - 1) * across + len(parts[0]),
        )
    )
    for i, line in enumerate(parts):
        for j, part in enumerate(line):
            found[
                :,
                :,
                i : i + (height - 1) * down + 1 : down,
                j : j + (width - 1) * across + 1 : across,
            ] += part
    return crop(found, (origin[0] * down - pads[0], origin[1] * across - pads[1]), shape)


@dataclass
class Mean(Affine):
    """The mean over axes of one image, as `mean` or a global pooling gives it.

    Attributes:
        axes: from 1, the batch being 0.
        keep: whether the axes stay with size 1.
        shape: of the operand.
    """

    axes: tuple[int, ...]
    keep: bool
    shape: Shape
    bias: Array = field(default_factory=lambda: np.zeros(()))
    reach: Array = field(default_factory=lambda: np.ones(()))

    def __post_init__(self) -> None:
        self.undivided = self._count = float(np.prod([self.shape[axis - 1] for axis in self.axes]))
        self.num_terms = np.full((), self._count + 2)
        _check_terms(self.num_terms)

    def linear(self, x: Array) -> Array:
        return x.sum(axis=self.axes, keepdims=self.keep) / self._count

    def absolute(self, x: Array) -> Array:
        return self.linear(x)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        kept = [1 if axis + 1 in self.axes else size for axis, size in enumerate(shape)]
        share = coefficient.reshape(len(coefficient), *kept) / self._count
        return np.broadcast_to(share, (len(coefficient), *shape)).copy(), FLAT


class Add(Affine):
    """The sum of two operands of equal shape."""

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        first, second = operands
        size = first.size + second.size
        noise = noise_of(size, 1.0, 4.0 * SMALLEST)
        return Interval(first.low + second.low - noise, first.high + second.high + noise, noise)


class Reshape:
    """Each image's values in another shape; exact.

    Args:
        shape: of one image afterwards.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        return Interval(
            given.low.reshape(-1, *self.shape), given.high.reshape(-1, *self.shape), None
        )

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return coefficient.reshape(-1, *shape), FLAT


class Pick:
    """Some of the operand's values, each at most once; exact: a slice or a transposition.

    Args:
        places: int, of the output's shape: which value of the flattened operand.
    """

    def __init__(self, places: np.ndarray) -> None:
        self.places = places

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        low, high = (side.reshape(len(side), -1) for side in (given.low, given.high))
        return Interval(low[:, self.places], high[:, self.places], None)

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        found = np.zeros((len(coefficient), int(np.prod(shape))))
        found[:, self.places.reshape(-1)] = coefficient.reshape(len(coefficient), -1)
        return found.reshape(-1, *shape), FLAT


class Concat:
    """Operands side by side along one axis; exact.

    Args:
        axis: from 1, the batch being 0.
        shapes: of the operands, for one image.
    """

    def __init__(self, axis: int, shapes: Sequence[Shape]) -> None:
        self.axis = axis
        self.ends = np.cumsum([shape[axis - 1] for shape in shapes]).tolist()

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        low = np.concatenate([one.low for one in operands], axis=self.axis)
        return Interval(low, np.concatenate([one.high for one in operands], axis=self.axis), None)

    def parts(self, coefficient: Array) -> list[Array]:
        """The rows of each operand."""
        return np.split(coefficient, self.ends[:-1], axis=self.axis)


class Pad:
    """A border of one value around a map; exact.

    Args:
        pads: top, left, bottom, right.
        value: of the border.
    """

    def __init__(self, pads: tuple[int, int, int, int], value: float) -> None:
        self.pads, self.value = pads, value

    def bounds(self, operands: Sequence[Interval]) -> Interval:
        (given,) = operands
        top, left, bottom, right = self.pads
        border = ((0, 0), (0, 0), (top, bottom), (left, right))
        low, high = (
            np.pad(side, border, constant_values=self.value) for side in (given.low, given.high)
        )
        return Interval(low, high, None)

    def constant(self, shape: Shape) -> Array:
        """What the layer gives for an image of zeros of the shape `shape`."""
        zero = np.zeros((1, *shape))
        return self.bounds([Interval(zero, zero)]).low[0]

    def back(self, coefficient: Array, origin: Origin, shape: Shape) -> tuple[Array, Origin]:
        return crop(coefficient, (origin[0] - self.pads[0], origin[1] - self.pads[1]), shape)
