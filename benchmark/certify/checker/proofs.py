"""Lower bounds of margins by interval bounds, CROWN-IBP and CROWN, over many boxes.

A margin is logit[label] - logit[other]. A bound above 0 proves that the label's logit is strictly
the larger of the two in every float32 deployment, for every image of the box: the rounding of the
logits themselves is part of the bound.

Shape suffixes: B images, M = classes - 1 margins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.cost import (
    bounded_values,
    cost_of_neurons,
    interval_bytes,
    open_neurons,
    row_cost,
)
from corobench.benchmark.certify.checker.intervals import FLAT, Interval
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.passes import Bounds, Line, Slopes
from corobench.benchmark.certify.checker.rounding import Array

METHODS = ("IBP", "CROWN-IBP", "CROWN")
"""Cheapest first. Each may use the proofs of those before it."""

_IMAGES_AT_ONCE = 64
_NEURONS_AT_ONCE = 128
_BYTES_AT_ONCE = 256 * 2**20
"""Memory that the rows of a backward pass may need at one layer, and images side by side."""


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
    size = min(_IMAGES_AT_ONCE, _images_at_once(network))
    for start in range(0, len(low), size):
        part = slice(start, start + size)
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
    size = max(1, min(8, _rows_at_once(network, last) // rows.shape[1]))
    for start in range(0, len(todo), size):
        part = todo[start : start + size]
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


class TooCostlyError(Exception):
    """CROWN would take more arithmetic for a box than it may."""


def crown_bounds(network: Network, low: Array, high: Array, max_macs: float = math.inf) -> Bounds:
    """Bounds of every value of one box, those before nonlinear steps tightened by CROWN.

    A layer that is tightened leaves fewer neurons of the next ones open, so that what an image
    costs shows layer by layer.

    Args:
        network: as deployed.
        low: float64 (1, C, H, W).
        high: float64 like `low`.
        max_macs: multiply-adds that tightening may take.

    Raises:
        TooCostlyError: the neurons that are open need more; told before they are bounded.
    """
    spent = 0
    tightest = bounded_values(network)

    def refine(known: Bounds, number: int) -> Interval | None:
        nonlocal spent
        if number not in tightest:
            return None
        neurons = np.flatnonzero(open_neurons(network, known, number))
        spent += cost_of_neurons(network, number, len(neurons))
        if spent > max_macs:
            raise TooCostlyError(f"CROWN takes more than {max_macs:.3g} multiply-adds")
        return tightened(network, known, number, neurons)

    with np.errstate(all="ignore"):
        return network.bounds(low, high, refine)


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
    size = min(_NEURONS_AT_ONCE, _rows_at_once(network, number) // 2)
    for places in _groups(neurons, shape, max(1, size)):
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


def _images_at_once(network: Network) -> int:
    """Images whose intervals are computed within `_BYTES_AT_ONCE`, as far as that goes."""
    return max(1, _BYTES_AT_ONCE // interval_bytes(network))


def _rows_at_once(network: Network, number: int) -> int:
    """Rows of a value whose backward pass stays within `_BYTES_AT_ONCE`."""
    return max(1, _BYTES_AT_ONCE // row_cost(network, number).num_bytes)


def _groups(
    neurons: NDArray[np.int64], shape: tuple[int, ...], size: int
) -> list[NDArray[np.int64]]:
    """Neurons bounded at once: of a map those at one place, which see the same part of the image.

    Args:
        neurons: of the flattened value.
        shape: of the value.
        size: most neurons at once.

    Returns:
        places in `neurons`.
    """
    parts = [np.arange(len(neurons))]
    if len(shape) == 3 and shape[1] * shape[2] > 1:
        at = neurons % (shape[1] * shape[2])
        order = np.argsort(at, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(at[order])) + 1)
    return [part[start : start + size] for part in parts for start in range(0, len(part), size)]


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
