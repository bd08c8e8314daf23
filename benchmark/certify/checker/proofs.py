"""Lower bounds of margins by interval bounds, CROWN-IBP and CROWN, over many boxes.

A margin is logit[label] - logit[other]. A bound above 0 proves that the label's logit is strictly
the larger of the two in every float32 deployment, for every image of the box: the rounding of the
logits themselves is part of the bound.

Shape suffixes: B images, M = classes - 1 margins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.activations import Relu
from corobench.benchmark.certify.checker.bends import Bend, Every, Extreme, Shift
from corobench.benchmark.certify.checker.exact import Pad, Pick, Reshape
from corobench.benchmark.certify.checker.intervals import FLAT, Interval
from corobench.benchmark.certify.checker.network import NONLINEAR, Network
from corobench.benchmark.certify.checker.passes import Bounds, Line, Slopes
from corobench.benchmark.certify.checker.rounding import Array

METHODS = ("IBP", "CROWN-IBP", "CROWN")
"""Cheapest first. Each may use the proofs of those before it."""

_IMAGES_AT_ONCE = 64
_ROWS_AT_ONCE = 128


def specification(labels: NDArray[np.int64], num_classes: int) -> Array:
    """Rows +1 at the label and -1 at another class, ascending: (B, M, classes).

    >>> specification(np.array([1]), 3)[0].tolist()
    [[-1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]
    """
    eye = np.eye(num_classes)
    rows: Array = eye[labels][:, None, :] - eye[None]
    others: Array = rows[np.arange(num_classes)[None] != labels[:, None]].reshape(
        len(labels), num_classes - 1, num_classes
    )
    return others


def margins(
    network: Network, low: Array, high: Array, labels: NDArray[np.int64], method: str
) -> Array:
    """Rigorous lower bounds of all margins, by a method or a cheaper one.

    Images that a cheaper method proves are left to it.

    Args:
        network: as deployed.
        low: float64 (B, C, H, W), lower corners of the boxes.
        high: float64 like `low`.
        labels: int64 (B,).
        method: one of METHODS.

    Returns:
        float64 (B, M); -inf where nothing is known. An image is proven where all are above 0.
    """
    rank = METHODS.index(method)
    found = np.full((len(low), network.num_classes - 1), -np.inf)
    for start in range(0, len(low), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        found[part] = _together(network, low[part], high[part], labels[part], rank)
    return found


def _together(
    network: Network, low: Array, high: Array, labels: NDArray[np.int64], rank: int
) -> Array:
    rows = specification(labels, network.num_classes)
    with np.errstate(all="ignore"):
        bounds = network.bounds(low, high)
    last = len(network.steps)
    found = network.lower(bounds, last, rows, to_the_image=False).bound_BR
    if rank == 0:
        return found
    todo = np.flatnonzero(~(found.min(axis=1) > 0))
    for start in range(0, len(todo), 8):
        part = todo[start : start + 8]
        some = taken(bounds, part)
        found[part] = np.maximum(found[part], network.lower(some, last, rows[part]).bound_BR)
    if rank == 1:
        return found
    for image in np.flatnonzero(~(found.min(axis=1) > 0)):
        one = slice(image, image + 1)
        tight = crown_bounds(network, low[one], high[one])
        found[one] = np.maximum(found[one], network.lower(tight, last, rows[one]).bound_BR)
    return found


def taken(bounds: Bounds, images: NDArray[np.int64]) -> Bounds:
    """The bounds of some images."""
    values = [
        Interval(
            one.low[images], one.high[images], None if one.noise is None else one.noise[images]
        )
        for one in bounds.values
    ]
    return Bounds(values, len(images))


def crown_bounds(network: Network, low: Array, high: Array) -> Bounds:
    """Bounds of every value of one box, those before nonlinear steps tightened by CROWN.

    Args:
        network: as deployed.
        low: float64 (1, C, H, W).
        high: float64 like `low`.
    """
    readers: dict[int, list[object]] = {}
    for step in network.steps:
        for source in step.sources:
            readers.setdefault(source, []).append(step.layer)

    def refine(known: Bounds, number: int) -> Interval | None:
        given = known.values[number]
        if network.depths[number] <= 1 or not _is_made_by_affine(network, number):
            return None
        is_open = np.ones(given.low.shape[1:], dtype=bool)
        bent = [layer for layer in readers[number] if isinstance(layer, NONLINEAR | Shift)]
        if all(isinstance(layer, Relu | Shift) for layer in bent):
            kinks = [layer.kink if isinstance(layer, Shift) else 0.0 for layer in bent]
            crosses = [(given.low < kink) & (given.high > kink) for kink in kinks]
            is_open = np.logical_or.reduce(crosses)[0]
        return tightened(network, known, number, np.flatnonzero(is_open))

    with np.errstate(all="ignore"):
        return network.bounds(low, high, refine)


def _is_made_by_affine(network: Network, number: int) -> bool:
    """Whether the last step before a value that computes anything is affine.

    An activation right after another one is as tight as what goes into the first, and a value less
    a kink as the value.
    """
    while number:
        step = network.steps[number - 1]
        if not isinstance(step.layer, Reshape | Pick | Pad | Every):
            return not isinstance(step.layer, NONLINEAR | Bend | Extreme | Shift)
        (number,) = step.sources
    return True


def tightened(
    network: Network,
    known: Bounds,
    number: int,
    neurons: NDArray[np.int64],
    slopes: Mapping[int, Slopes] | None = None,
    keep: Callable[[NDArray[np.int64], Line], None] | None = None,
) -> Interval:
    """The interval of a value, some of whose neurons are bounded by backward passes.

    Args:
        network: as deployed.
        known: bounds of one box, up to the value.
        number: of the value.
        neurons: which of its flattened values.
        slopes: ReLU -> slopes for the rows of the lower bounds of the neurons, then those of their
            upper bounds; CROWN's by default.
        keep: told which of `neurons` were bounded, and with which lines: theirs, then those of
            their negatives.
    """
    given, shape = known.values[number], network.shapes[number]
    low, high = given.low.copy(), given.high.copy()
    flat_low, flat_high = low.reshape(-1), high.reshape(-1)
    for places in _groups(neurons, shape):
        which = neurons[places]
        rows, origin = _unit_rows(which, shape)
        chosen = None
        if slopes is not None:
            both = np.concatenate([places, len(neurons) + places])
            chosen = {relu: Slopes(one.low_slope[both]) for relu, one in slopes.items()}
        found = network.lower(known, number, rows[None], origin, chosen)
        bound = found.bound_BR[0]
        if keep is not None and found.line is not None:
            keep(places, found.line)
        flat_low[which] = np.maximum(flat_low[which], bound[: len(which)])
        flat_high[which] = np.minimum(flat_high[which], -bound[len(which) :])
    return replace(given, low=low, high=high)


def _groups(neurons: NDArray[np.int64], shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Neurons bounded at once: of a map those at one place, which see the same part of the image.

    Returns:
        places in `neurons`.
    """
    if len(shape) != 3 or shape[1] * shape[2] == 1:
        size = _ROWS_AT_ONCE
        return [
            np.arange(start, min(start + size, len(neurons)))
            for start in range(0, len(neurons), size)
        ]
    at = neurons % (shape[1] * shape[2])
    order = np.argsort(at, kind="stable")
    ends = np.flatnonzero(np.diff(at[order])) + 1
    return [part for part in np.split(order, ends) if len(part)]


def _unit_rows(which: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[Array, tuple[int, int]]:
    """Rows that pick neurons, then their negatives; of a map as a window of one place."""
    num = len(which)
    if len(shape) != 3 or shape[1] * shape[2] == 1:
        rows = np.zeros((2 * num, int(np.prod(shape))))
        rows[np.arange(num), which] = 1.0
        rows[num + np.arange(num), which] = -1.0
        return rows.reshape(-1, *shape), FLAT
    channel, place = np.divmod(which, shape[1] * shape[2])
    rows = np.zeros((2 * num, shape[0], 1, 1))
    rows[np.arange(num), channel] = 1.0
    rows[num + np.arange(num), channel] = -1.0
    row, column = divmod(int(place[0]), shape[2])
    return rows, (row, column)
