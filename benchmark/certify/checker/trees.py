"""Proofs by cases: a tree of signs of neurons, with the steps that close its leaves.

A search hands over nodes and steps. A node is a set of images of the box: those of its parent on
which one more neuron has one sign. A step bounds the margin over a node, with slopes (alpha) and
multipliers (beta) of beta-CROWN (Wang et al., NeurIPS 2021), and may bound neurons with that (see
`clipping`): what follows holds for the images of the node whose margin is at most a threshold. A
node is closed by a bound above the threshold, by a neuron for which no value is left, or by two
halves that are closed and differ in the sign of one neuron.

The checker believes nothing of it: it computes every bound anew, whatever slopes and multipliers
are given, and a margin counts only where a root of its own is closed.

Shape suffixes: N neurons of the tree, K nodes, T steps, M margins, R rows of one backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.certify.checker.clipping import Constraint, NeuronRows
from corobench.benchmark.certify.checker.intervals import Interval
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.passes import Bounds, Line, Slopes
from corobench.benchmark.certify.checker.proofs import specification, tightened
from corobench.benchmark.certify.checker.rounding import Array, centre

_NODES_AT_ONCE = 64

Whole = NDArray[np.int64]


@dataclass
class Tree:
    """What a search claims about one box.

    Attributes:
        neurons: per part of the N neurons: which ReLU of the network it is in, counted from 0 in
            order, and the places in its flattened values. ReLUs ascend.
        margin_K: int, which margin the tree of a node is about.
        parent_K: int, a node before it; -1 for a root.
        neuron_K: int, where the parent was split; unused for a root.
        sign_K: +1 where its operand is at least 0, -1 where it is at most 0.
        node_T: int, the node of a step; the steps of a node are in order.
        alpha_NT: slopes of the lower lines.
        beta_NT: multipliers of the signs that are known.
        exponent_RT: uint8 (2 N, T), multipliers of the constraint: those of lower bounds, then
            those of upper ones; see `clipping.gamma_of`.
        threshold: t of the constraint, at least 0.
        tightening: per part of the neurons None, or slopes of all neurons before it, for better
            bounds of its own ones: (neurons before, 2 * its neurons), lower bounds first.
    """

    neurons: Sequence[tuple[int, Whole]]
    margin_K: Whole
    parent_K: Whole
    neuron_K: Whole
    sign_K: Array
    node_T: Whole
    alpha_NT: Array
    beta_NT: Array
    exponent_RT: NDArray[np.uint8]
    threshold: float = 0.0
    tightening: Sequence[Array | None] = ()

    @property
    def slices(self) -> list[slice]:
        """Rows of the N neurons, per part."""
        ends = np.cumsum([0, *(len(places) for _, places in self.neurons)]).tolist()
        return [slice(start, end) for start, end in itertools.pairwise(ends)]


def margins_by_cases(network: Network, bounds: Bounds, label: int, tree: Tree) -> Array:
    """Rigorous lower bounds of the margins of one box from the trees of a search.

    Args:
        network: as deployed.
        bounds: of the box, such as those of `crown_bounds`.
        label: of the image.
        tree: what a search claims.

    Returns:
        float64 (M,); -inf for a margin without a closed root. At most the threshold, where the
        tree bounds neurons under it.
    """
    found = np.full(network.num_classes - 1, -np.inf)
    if len(tree.margin_K) == 0 or not _fits(network, tree):
        return found
    own_K = _Walk(network, bounds, label, tree).run()
    for margin, value in _roots(tree, own_K):
        found[margin] = max(found[margin], value)
    return found


def _roots(tree: Tree, own_K: Array) -> list[tuple[int, float]]:
    """The margin of each root and what its tree proves, from what each node does by itself."""
    best = own_K.copy()
    halves: dict[int, dict[tuple[int, bool], float]] = {}
    roots = []
    for node in range(len(best) - 1, -1, -1):
        below = halves.pop(node, {})
        for neuron, is_active in list(below):
            if is_active and (neuron, False) in below:
                both = min(below[neuron, True], below[neuron, False])
                best[node] = max(best[node], both)
        parent, margin = int(tree.parent_K[node]), int(tree.margin_K[node])
        if parent < 0:
            roots.append((margin, float(best[node])))
        else:
            key = int(tree.neuron_K[node]), bool(tree.sign_K[node] > 0)
            others = halves.setdefault(parent, {})
            others[key] = max(others.get(key, -np.inf), float(best[node]))
    return roots


class _Walk:
    """Goes down the trees, level by level, with the bounds of the neurons in every node."""

    def __init__(self, network: Network, bounds: Bounds, label: int, tree: Tree) -> None:
        self.network, self.tree = network, tree
        self.rows = specification(np.array([label]), network.num_classes)[0]
        box = bounds.values[0]
        self.radius = centre(box.low[0], box.high[0])[1]
        self.lines: list[NeuronRows] = []
        self.known = _with_tightening(network, bounds, tree)
        if tree.exponent_RT.any():
            self._find_lines()
        self.own_K = np.full(len(tree.margin_K), -np.inf)
        self.steps_of: list[list[int]] = [[] for _ in tree.margin_K]
        for step, node in enumerate(tree.node_T.tolist()):
            self.steps_of[node].append(step)

    def run(self) -> Array:
        """Float64 (K,), what each node proves of its margin by itself."""
        tree = self.tree
        children: list[list[int]] = [[] for _ in tree.margin_K]
        for node, parent in enumerate(tree.parent_K.tolist()):
            if parent >= 0:
                children[parent].append(node)
        low, high = _root_bounds(self.network, self.known, tree)
        level = {
            node: (low, high, False) for node, up in enumerate(tree.parent_K.tolist()) if up < 0
        }
        while level:
            below: dict[int, tuple[Array, Array, bool]] = {}
            nodes = list(level)
            for start in range(0, len(nodes), _NODES_AT_ONCE):
                part = nodes[start : start + _NODES_AT_ONCE]
                below |= self._through(part, [level.pop(node) for node in part], children)
            level = below
        return self.own_K

    def _through(
        self,
        nodes: list[int],
        given: list[tuple[Array, Array, bool]],
        children: list[list[int]],
    ) -> dict[int, tuple[Array, Array, bool]]:
        """Do the steps of some nodes; what their children start from."""
        low = np.stack([one[0] for one in given], axis=1)
        high = np.stack([one[1] for one in given], axis=1)
        is_clipped = np.array([one[2] for one in given])
        for column, node in enumerate(nodes):
            if self.tree.parent_K[node] >= 0:
                neuron = self.tree.neuron_K[node]
                if self.tree.sign_K[node] > 0:
                    low[neuron, column] = max(low[neuron, column], 0.0)
                else:
                    high[neuron, column] = min(high[neuron, column], 0.0)
        for number in range(max(len(self.steps_of[node]) for node in nodes)):
            self._close_empty(nodes, low, high, is_clipped)
            columns = np.array(
                [
                    column
                    for column, node in enumerate(nodes)
                    if number < len(self.steps_of[node]) and self.own_K[node] == -np.inf
                ],
                dtype=np.int64,
            )
            if len(columns):
                self._step(nodes, columns, number, low, high, is_clipped)
        self._close_empty(nodes, low, high, is_clipped)
        return {
            child: (low[:, column], high[:, column], bool(is_clipped[column]))
            for column, node in enumerate(nodes)
            if self.own_K[node] == -np.inf
            for child in children[node]
        }

    def _close_empty(
        self, nodes: list[int], low: Array, high: Array, is_clipped: NDArray[np.bool_]
    ) -> None:
        for column in np.flatnonzero((low > high).any(axis=0)):
            self._close(nodes[column], np.inf, bool(is_clipped[column]))

    def _close(self, node: int, bound: float, is_clipped: bool) -> None:
        value = min(bound, self.tree.threshold) if is_clipped else bound
        self.own_K[node] = max(self.own_K[node], value)

    def _step(
        self,
        nodes: list[int],
        columns: Whole,
        number: int,
        low: Array,
        high: Array,
        is_clipped: NDArray[np.bool_],
    ) -> None:
        """One step of some nodes: bound the margin, and neurons where it says so; in place."""
        tree, network = self.tree, self.network
        steps = np.array([self.steps_of[nodes[column]][number] for column in columns])
        slopes = _slopes(network, tree, self.known, steps, low[:, columns], high[:, columns])
        chosen = self.rows[tree.margin_K[[nodes[column] for column in columns]]][None]
        found = network.lower(self.known, len(network.steps), chosen, slopes=slopes)
        for column, bound in zip(columns.tolist(), found.bound_BR[0].tolist(), strict=True):
            if bound > (tree.threshold if is_clipped[column] else 0.0):
                self._close(nodes[column], bound, bool(is_clipped[column]))
        exponent = tree.exponent_RT[:, steps]
        bounds_neurons = exponent.any(axis=0)
        if found.line is None or not bounds_neurons.any():
            return
        constraint = Constraint(found.line, self.radius, tree.threshold)
        half = len(tree.alpha_NT)
        for one in self.lines:
            num = len(one.neurons)
            bytes_ = exponent[np.concatenate([one.neurons, half + one.neurons])]
            bound = constraint.bounds(one, bytes_)
            at = np.ix_(one.neurons, columns)
            low[at] = np.maximum(low[at], bound[:num])
            high[at] = np.minimum(high[at], -bound[num:])
        is_clipped[columns] |= bounds_neurons

    def _find_lines(self) -> None:
        """Linear bounds of all neurons of the tree, with the slopes of the tightening."""
        network, tree = self.network, self.tree
        for part, (relu, places) in enumerate(tree.neurons):
            number = network.steps[network.relus[relu] - 1].sources[0]
            start = tree.slices[part].start

            def keep(which: Whole, line: Line, start: int = start) -> None:
                self.lines.append(NeuronRows.of(start + which, line, self.radius))

            slopes = _inner_slopes(network, tree, self.known, part)
            with np.errstate(all="ignore"):
                tightened(network, self.known, number, places, slopes, keep)


def _root_bounds(network: Network, known: Bounds, tree: Tree) -> tuple[Array, Array]:
    """What is known of the neurons over the whole box, each (N,)."""
    sides: list[list[Array]] = [[np.zeros(0)], [np.zeros(0)]]
    for relu, places in tree.neurons:
        given = known.values[network.steps[network.relus[relu] - 1].sources[0]]
        sides[0].append(given.low.reshape(-1)[places])
        sides[1].append(given.high.reshape(-1)[places])
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def _fits(network: Network, tree: Tree) -> bool:
    """Whether the neurons, shapes and numbers of a tree make sense for a network."""
    num_neurons = sum(len(p) for _, p in tree.neurons)
    num_nodes, num_steps = len(tree.margin_K), len(tree.node_T)
    if len(tree.tightening) not in (0, len(tree.neurons)):
        return False
    relus = [relu for relu, _ in tree.neurons]
    num_relus = len(network.relus)
    if relus != sorted(set(relus)) or (relus and not 0 <= relus[0] <= relus[-1] < num_relus):
        return False
    for relu, places in tree.neurons:
        size = int(np.prod(network.shapes[network.relus[relu]]))
        if len(set(places.tolist())) != len(places) or not _within(places, 0, size):
            return False
    if not (np.isfinite(tree.threshold) and tree.threshold >= 0.0):
        return False
    per_node = (tree.parent_K, tree.neuron_K, tree.sign_K)
    if any(one.shape != (num_nodes,) for one in per_node):
        return False
    is_inner = tree.parent_K >= 0
    if not (
        _within(tree.margin_K, 0, network.num_classes - 1)
        and bool((tree.parent_K < np.arange(num_nodes)).all())
        and _within(tree.neuron_K[is_inner], 0, num_neurons)
        and _within(tree.node_T, 0, num_nodes)
        and bool((np.abs(tree.sign_K[is_inner]) == 1.0).all())
        and bool((tree.margin_K[is_inner] == tree.margin_K[tree.parent_K[is_inner]]).all())
    ):
        return False
    if tree.exponent_RT.shape != (2 * num_neurons, num_steps):
        return False
    arrays = (tree.alpha_NT, tree.beta_NT)
    return all(a.shape == (num_neurons, num_steps) and np.isfinite(a).all() for a in arrays)


def _within(numbers: Whole, start: int, end: int) -> bool:
    return bool(((numbers >= start) & (numbers < end)).all())


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
        slopes = None if part is None else _inner_slopes(network, tree, known, part)
        if part is None or slopes is None:
            return here
        return tightened(network, known, number, tree.neurons[part][1], slopes)

    with np.errstate(all="ignore"):
        values = bounds.values[0]
        return network.bounds(values.low, values.high, refine)


def _inner_slopes(
    network: Network, tree: Tree, known: Bounds, part: int
) -> Mapping[int, Slopes] | None:
    """The slopes that the tree gives for the bounds of one part of its neurons; None for none."""
    alpha = tree.tightening[part] if len(tree.tightening) else None
    if alpha is None:
        return None
    num = 2 * len(tree.neurons[part][1])
    before = sum(len(p) for _, p in tree.neurons[:part])
    if alpha.shape != (before, num) or not np.isfinite(alpha).all():
        return None
    slopes = {}
    for earlier in range(part):
        number, where = tree.neurons[earlier]
        relu = network.relus[number]
        given = known.values[network.steps[relu - 1].sources[0]]
        low_slope = _spread(alpha[tree.slices[earlier]], where, _crown_slope(given))
        slopes[relu] = Slopes(low_slope.reshape(-1, *network.shapes[relu]))
    return slopes


def _crown_slope(given: Interval) -> Array:
    """CROWN's lower slopes of a ReLU on this operand."""
    return (given.high > -given.low).astype(np.float64)


def _spread(values: Array, where: Whole, rest: Array) -> Array:
    """Rows (R, values) of a whole layer: `values` (n, R) at n places, `rest` at the others."""
    full = np.repeat(rest.reshape(1, -1), values.shape[1], axis=0)
    full[:, where] = values.T
    return full


def _slopes(
    network: Network, tree: Tree, known: Bounds, steps: Whole, low: Array, high: Array
) -> dict[int, Slopes]:
    """What steps choose for each ReLU, and what is known of its operand there.

    Args:
        network, tree, known: of the box.
        steps: int (R,).
        low: float64 (N, R), bounds of the neurons of the tree.
        high: likewise.
    """
    found = {}
    for (number, where), rows in zip(tree.neurons, tree.slices, strict=True):
        relu = network.relus[number]
        given = known.values[network.steps[relu - 1].sources[0]]
        shape = (-1, *network.shapes[relu])
        parts = (
            _spread(tree.alpha_NT[rows][:, steps], where, _crown_slope(given)),
            _spread(low[rows], where, given.low),
            _spread(high[rows], where, given.high),
            _spread(tree.beta_NT[rows][:, steps], where, np.zeros_like(given.low)),
        )
        found[relu] = Slopes(*(part.reshape(shape) for part in parts))
    return found
