"""Proofs by cases: a tree of signs of neurons, each leaf with slopes and multipliers of its own.

A search hands over leaves. Each says: on the images of the box where these neurons have these
signs, this margin has a lower bound, with these slopes (alpha) and multipliers (beta) of beta-CROWN
(Wang et al., NeurIPS 2021). The checker believes nothing of it: it computes every bound anew, and
the leaves of a margin count only where they cover every combination of signs.

Shape suffixes: N neurons of the tree, L leaves, M margins.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.intervals import Interval
from corobench.benchmark.certify.checker.network import Bounds, Network, Slopes
from corobench.benchmark.certify.checker.proofs import specification, tightened
from corobench.benchmark.certify.checker.rounding import Array

_LEAVES_AT_ONCE = 64


@dataclass
class Tree:
    """What a search claims about one box.

    Attributes:
        neurons: per part of the N neurons: which ReLU of the network it is in, counted from 0 in
            order, and the places in its flattened values. ReLUs ascend.
        margin_L: int, which margin a leaf bounds.
        sign_NL: +1 where z >= 0 is given, -1 where z <= 0 is, 0 where the sign is open.
        alpha_NL: slopes of the lower lines.
        beta_NL: multipliers of the given signs.
        tightening: per part of the neurons None, or slopes of all neurons before it, for better
            bounds of its own ones: (neurons before, 2 * its neurons), lower bounds first.
    """

    neurons: Sequence[tuple[int, NDArray[np.int64]]]
    margin_L: NDArray[np.int64]
    sign_NL: Array
    alpha_NL: Array
    beta_NL: Array
    tightening: Sequence[Array | None] = ()

    @property
    def slices(self) -> list[slice]:
        """Rows of the N neurons, per part."""
        ends = np.cumsum([0, *(len(places) for _, places in self.neurons)]).tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]


def margins_by_cases(network: Network, bounds: Bounds, label: int, tree: Tree) -> Array:
    """Rigorous lower bounds of the margins of one box from the leaves of a tree.

    Args:
        network: as deployed.
        bounds: of the box, such as those of `crown_bounds`.
        label: of the image.
        tree: what a search claims.

    Returns:
        float64 (M,); -inf for a margin whose leaves do not cover all signs.
    """
    found = np.full(network.num_classes - 1, -np.inf)
    if len(tree.margin_L) == 0 or not _fits(network, tree):
        return found
    rows = specification(np.array([label]), network.num_classes)[0]
    known = _with_tightening(network, bounds, tree)
    lower = np.empty(len(tree.margin_L))
    for start in range(0, len(lower), _LEAVES_AT_ONCE):
        part = slice(start, start + _LEAVES_AT_ONCE)
        slopes = _slopes(network, tree, known, part)
        chosen = rows[tree.margin_L[part]][None]
        lower[part] = network.lower(known, len(network.steps), chosen, slopes=slopes).bound_BR[0]
    for margin in np.unique(tree.margin_L):
        mine = tree.margin_L == margin
        if covers(tree.sign_NL[:, mine]):
            found[margin] = lower[mine].min()
    return found


def covers(sign_NL: Array) -> bool:
    """Whether leaves cover every combination of signs.

    Leaves that fix k signs hold 2**-k of all combinations. Where no two of them share one, they
    cover all if and only if these shares add up to 1.

    >>> covers(np.array([[1.0, -1.0, -1.0], [0.0, 1.0, -1.0]]))
    True
    >>> covers(np.array([[1.0, -1.0], [0.0, 1.0]]))
    False
    """
    active, inactive = (sign_NL > 0).astype(np.float64), (sign_NL < 0).astype(np.float64)
    shared = active.T @ inactive
    differ = (shared + shared.T) > 0
    np.fill_diagonal(differ, True)
    if not differ.all():
        return False
    depths = (active + inactive).sum(axis=0).astype(int).tolist()
    return sum(Fraction(1, 2**depth) for depth in depths) == 1


def _fits(network: Network, tree: Tree) -> bool:
    """Whether the neurons, shapes and numbers of a tree make sense for a network."""
    num_neurons, num_leaves = sum(len(p) for _, p in tree.neurons), len(tree.margin_L)
    if len(tree.tightening) not in (0, len(tree.neurons)):
        return False
    relus = [relu for relu, _ in tree.neurons]
    if relus != sorted(set(relus)) or (relus and not 0 <= relus[-1] < len(network.relus)):
        return False
    for relu, places in tree.neurons:
        size = int(np.prod(network.shapes[network.relus[relu]]))
        if len(set(places.tolist())) != len(places) or not _within(places, size):
            return False
    if not _within(tree.margin_L, network.num_classes - 1):
        return False
    arrays = (tree.sign_NL, tree.alpha_NL, tree.beta_NL)
    return all(a.shape == (num_neurons, num_leaves) and np.isfinite(a).all() for a in arrays)


def _within(numbers: NDArray[np.int64], end: int) -> bool:
    return bool(((numbers >= 0) & (numbers < end)).all())


def _with_tightening(network: Network, bounds: Bounds, tree: Tree) -> Bounds:
    """Bounds of the box with those that the tree's own slopes give."""
    if not any(one is not None for one in tree.tightening):
        return Bounds(bounds.values, bounds.num_images)
    parts = {network.relus[relu]: part for part, (relu, _) in enumerate(tree.neurons)}
    of_source = {network.steps[relu - 1].sources[0]: part for relu, part in parts.items()}

    def refine(known: Bounds, number: int) -> Interval:
        here, before = known.values[number], bounds.values[number]
        here = known.values[number] = replace(
            here, low=np.maximum(here.low, before.low), high=np.minimum(here.high, before.high)
        )
        part = of_source.get(number)
        alpha = None if part is None else tree.tightening[part]
        if part is None or alpha is None:
            return here
        places = tree.neurons[part][1]
        rows = sum(len(p) for _, p in tree.neurons[:part])
        if alpha.shape != (rows, 2 * len(places)) or not np.isfinite(alpha).all():
            return here
        slopes = {}
        for earlier in range(part):
            relu, where = tree.neurons[earlier]
            relu = network.relus[relu]
            low_slope = _default(network, known, relu, 2 * len(places))
            low_slope[:, where] = alpha[tree.slices[earlier]].T
            slopes[relu] = Slopes(low_slope.reshape(-1, *network.shapes[relu]))
        return tightened(network, known, number, places, slopes)

    with np.errstate(all="ignore"):
        values = bounds.values[0]
        return network.bounds(values.low, values.high, refine)


def _default(network: Network, known: Bounds, relu: int, num_rows: int) -> Array:
    """CROWN's lower slopes of a ReLU, (num_rows, values)."""
    given = known.values[network.steps[relu - 1].sources[0]]
    slope = (given.high > -given.low).astype(np.float64).reshape(1, -1)
    return np.repeat(slope, num_rows, axis=0)


def _slopes(network: Network, tree: Tree, known: Bounds, leaves: slice) -> dict[int, Slopes]:
    """What leaves choose for each ReLU."""
    found = {}
    for (number, where), rows in zip(tree.neurons, tree.slices, strict=True):
        relu = network.relus[number]
        alpha = tree.alpha_NL[rows, leaves].T
        low_slope = _default(network, known, relu, len(alpha))
        low_slope[:, where] = alpha
        sign, multiplier = np.zeros_like(low_slope), np.zeros_like(low_slope)
        sign[:, where] = tree.sign_NL[rows, leaves].T
        multiplier[:, where] = tree.beta_NL[rows, leaves].T
        shape = (-1, *network.shapes[relu])
        found[relu] = Slopes(
            low_slope.reshape(shape), sign.reshape(shape), multiplier.reshape(shape)
        )
    return found
