"""Quotients of activations, and the norms and curves that exporters write with them.

x / sqrt(mean(x**2) + eps), x / max(sqrt(sum x**2), eps) and x / (1 + |x|) are known as one step:
bounded operator by operator, x and what it is divided by would be taken apart, and a sum of squares
would lose that it is not below 0.

d / sqrt(mean(d**2) + eps) with d = x - mean(x) is a layer norm. A runtime that sees one may compute
the variance in one pass, from x, and onnxruntime does not look at the exponent either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from corobench.benchmark.certify.checker.averages import Mean
from corobench.benchmark.certify.checker.bends import Bend
from corobench.benchmark.certify.checker.boxed import Norm, Product
from corobench.benchmark.certify.checker.curves import CURVES, Smooth
from corobench.benchmark.certify.checker.exact import Pick
from corobench.benchmark.certify.checker.intervals import UncheckableError
from corobench.benchmark.certify.checker.layers import Add, Scale
from corobench.benchmark.certify.checker.network import Step
from corobench.benchmark.certify.checker.roots import (
    Length,
    LengthOf,
    Normalised,
    Power,
    Quotient,
    Root,
)


def divided(steps: list[Step], shapes: list[Any], first: int, second: int) -> tuple[Any, Any]:
    """The layer of a quotient of two activations, and its sources.

    Args:
        steps: of the network so far.
        shapes: of its values, for one image.
        first: number of the dividend.
        second: number of the divisor.

    Raises:
        UncheckableError: unequal ranks, or nearly a layer norm.
    """
    if len(shapes[first]) != len(shapes[second]):
        raise UncheckableError("the operator div of two activations of unequal ranks")
    if _is_one_and_size(steps, first, second):
        return Smooth(CURVES["softsign"]), (first,)
    return _norm_under(steps, shapes, first, second) or (Quotient(), (first, second))


def times_reciprocal(
    steps: list[Step], shapes: list[Any], first: int, second: int
) -> tuple[Any, Any] | None:
    """The same for a product with 1 / divisor; None where neither factor is such a reciprocal."""
    for one, other in ((first, second), (second, first)):
        if np.broadcast_shapes(shapes[one], shapes[other]) != shapes[one]:
            continue
        step = _made(steps, _unrepeated(steps, shapes, other))
        if step is not None and isinstance(step.layer, Quotient) and len(step.sources) == 1:
            norm = _norm_under(steps, shapes, one, step.sources[0])
            if norm is not None:
                return norm
    return None


def _norm_under(
    steps: list[Step], shapes: list[Any], first: int, divisor: int
) -> tuple[Any, Any] | None:
    """The layer of a quotient that is a norm, and its sources; else None."""
    norm = _layer_norm_under(steps, shapes, first, divisor)
    if norm is not None:
        return norm
    length = length_under(steps, shapes, first, divisor)
    return None if length is None else (Normalised(length, np.ones(())), (first,))


def _layer_norm_under(
    steps: list[Step], shapes: list[Any], first: int, divisor: int
) -> tuple[Norm, tuple[int]] | None:
    """The layer norm that a quotient is, without weights, and what it norms; else None.

    Raises:
        UncheckableError: the exponent is not 2.
    """
    centred = _centred(steps, shapes, first)
    root = _made(steps, _unrepeated(steps, shapes, divisor))
    if centred is None or root is None or not isinstance(root.layer, Root):
        return None
    inside = _plus_eps(steps, root.sources[0])
    if inside is None:
        return None
    (mean, powers), eps = inside
    step, base, is_square = _made(steps, powers), powers, False
    if step is not None and isinstance(step.layer, Product):
        base, is_square = step.sources[0], step.layer.is_square
        if not is_square:
            return None
    elif step is not None and isinstance(step.layer, Power):
        (base,) = step.sources
    is_variance = _centred(steps, shapes, base) == centred and centred[1] == mean.axes
    if not is_variance or not mean.is_mean or eps == 0.0:
        return None
    if not is_square:
        raise UncheckableError("a layer norm with an exponent that is not 2")
    source, axes = centred
    return Norm(axes, tuple(shapes[source]), np.ones(()), np.zeros(()), eps), (source,)


def _centred(
    steps: list[Step], shapes: list[Any], number: int
) -> tuple[int, tuple[int, ...]] | None:
    """x and the axes, where a value is x less its mean over axes; else None."""
    step = _made(steps, number)
    if step is None or not isinstance(step.layer, Add):
        return None
    for source, other in (step.sources, step.sources[::-1]):
        sign = 1.0
        for _ in range(3):  # a change of sign, and a repetition before it or after it
            other = _unrepeated(steps, shapes, other)
            made = _made(steps, other)
            if made is None or not isinstance(made.layer, Scale) or made.layer.scale.size != 1:
                break
            sign *= float(made.layer.scale.item()) if not made.layer.bias.any() else np.nan
            other = made.sources[0]
        made = _made(steps, other)
        if made is None or made.sources != (source,) or sign != -1.0:
            continue
        if isinstance(made.layer, Mean) and made.layer.is_mean:
            return source, made.layer.axes
    return None


def _plus_eps(steps: list[Step], inside: int) -> tuple[tuple[Mean, int], float] | None:
    """The mean, what it is of, and the number that is added to it; None for anything else."""
    eps, step = 0.0, _made(steps, inside)
    if step is not None and isinstance(step.layer, Scale):
        layer = step.layer
        if layer.scale.size != 1 or layer.scale.item() != 1.0 or layer.bias.size != 1:
            return None
        eps = float(layer.bias.item())
        step = _made(steps, step.sources[0])
    if step is None or not isinstance(step.layer, Mean) or eps < 0 or not step.layer.keep:
        return None
    return (step.layer, step.sources[0]), eps


def length_under(steps: list[Step], shapes: list[Any], source: int, divisor: int) -> Length | None:
    """The length of a value's rows, where the divisor is one; else None.

    A divisor repeated along an axis on which the value has size 1 repeats the value as well.
    """
    if np.broadcast_shapes(shapes[source], shapes[divisor]) != shapes[source]:
        return None
    divisor = _unrepeated(steps, shapes, divisor)
    floor, step = 0.0, _made(steps, divisor)
    if step is not None and isinstance(step.layer, Bend):
        found = _floor_of(step.layer)
        if found is None:
            return None
        floor, divisor = found, step.sources[0]
        step = _made(steps, divisor)
    if step is None or shapes[divisor] != _kept(step, shapes, source):
        return None
    if isinstance(step.layer, LengthOf):
        is_it = step.sources == (source,) and step.layer.length.floor == 0.0
        return replace(step.layer.length, floor=floor) if is_it else None
    if isinstance(step.layer, Root) and floor == 0.0:
        return _root_of_squares(steps, source, step.sources[0])
    return None


def _root_of_squares(steps: list[Step], source: int, inside: int) -> Length | None:
    """sqrt(mean(x**2) + eps), or of the sum."""
    found = _plus_eps(steps, inside)
    if found is None:
        return None
    (mean, powers), eps = found
    squares = _made(steps, powers)
    if squares is None or not isinstance(squares.layer, Product) or not squares.layer.is_square:
        return None
    if squares.sources != (source, source):
        return None
    return Length(mean.axes, mean.shape, mean.is_mean, eps)


def _kept(step: Step, shapes: list[Any], source: int) -> Any:
    """The shape of a value, those axes 1 that a length of it is over; None for another step."""
    over: tuple[int, ...] = ()
    if isinstance(step.layer, LengthOf):
        over = step.layer.length.axes
    elif not isinstance(step.layer, Root):
        return None
    else:
        return shapes[step.sources[0]]
    return tuple(1 if axis + 1 in over else size for axis, size in enumerate(shapes[source]))


def _floor_of(bend: Bend) -> float | None:
    """The number that values are cut to from below; None where a bend does something else."""
    if len(bend.kinks) != 1 or bend.kinks[0].size != 1 or not bend.is_exact:
        return None
    slopes = [float(one.item()) for one in bend.slopes if one.size == 1]
    floor = float(bend.kinks[0].item())
    return floor if slopes == [0.0, 1.0] and floor > 0 else None


def _unrepeated(steps: list[Step], shapes: list[Any], number: int) -> int:
    """What a value repeats along axes of size 1, or the value itself."""
    step = _made(steps, number)
    if step is None or not isinstance(step.layer, Pick):
        return number
    have, shape = shapes[step.sources[0]], shapes[number]
    if len(have) != len(shape):
        return number
    try:
        places = np.broadcast_to(np.arange(int(np.prod(have))).reshape(have), shape)
    except ValueError:
        return number
    return step.sources[0] if np.array_equal(places, step.layer.places) else number


def _is_one_and_size(steps: list[Step], first: int, second: int) -> bool:
    """Whether the second value is 1 + |first|."""
    step = _made(steps, second)
    if step is None or not isinstance(step.layer, Scale):
        return False
    layer = step.layer
    if layer.scale.size != 1 or layer.bias.size != 1:
        return False
    inner = _made(steps, step.sources[0])
    if inner is None or not isinstance(inner.layer, Bend) or inner.sources[0] != first:
        return False
    bend = inner.layer
    numbers = [*bend.kinks, *bend.slopes, layer.scale, layer.bias]
    if any(one.size != 1 for one in numbers) or len(bend.kinks) != 1:
        return False
    return [float(one.item()) for one in numbers] == [0.0, -1.0, 1.0, 1.0, 1.0]


def _made(steps: list[Step], number: int) -> Step | None:
    """The step that gives a value; None for the image."""
    return steps[number - 1] if number else None
