"""Trees of a search: halves must meet, and whatever is altered the bound stays sound."""

from __future__ import annotations

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from certify_nets import Residual, boxes, cnn, seeded
from float32_nets import float64
from hypothesis import given, settings
from hypothesis import strategies as st
from milp_margins import exact_margins
from torch import nn

from corobench.benchmark.certify import BranchBudget, Prover, prover
from corobench.benchmark.certify.bab.budget import Ascent
from corobench.benchmark.certify.bab.reduced import relu_inputs
from corobench.benchmark.certify.checker.proofs import crown_bounds
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.trees import Tree, _roots, _Walk, margins_by_cases

TINY = (1, 2, 2)


@functools.cache
def found_trees():
    """(network, bounds, label, exact margins, tree) of boxes that needed splits."""
    found = []
    real = prover.margins_by_cases

    def noted(network, bounds, label, tree):
        is_split, is_clipped = (tree.parent_K >= 0).any(), tree.exponent_RT.any()
        if is_split and is_clipped and any(one is not None for one in tree.tightening):
            found.append((network, bounds, label, tree))
        return real(network, bounds, label, tree)

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prover, "margins_by_cases", noted)
        for seed in range(40):
            model = redrawn(seed)
            x, low, high = boxes(TINY, 0.35, num=3, seed=seed)
            labels = model(x).argmax(dim=1)
            budget = BranchBudget(1500, tighten_after=3, tighten=Ascent(5), clips=1, root_clips=1)
            before = len(found)
            for image in range(3):
                one = slice(image, image + 1)
                Prover(model, TINY, 3).search("BaB", low[one], high[one], labels[one], budget)
                if len(found) > before:
                    exact = exact_margins(model, low[one], high[one], labels[one])[0].numpy()
                    kept += [(*each, exact) for each in found[before:]]
                    before = len(found)
            if len(kept) >= 4:
                break
    return kept


def redrawn(seed: int) -> nn.Sequential:
    """Two hidden layers with many unstable neurons."""
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        size = 1.5 * parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.3
        parameter.data = size * torch.randn(parameter.shape, generator=generator)
    return seeded(lambda: net)


def altered(tree: Tree, **changes) -> Tree:
    return Tree(**{**vars(copy.deepcopy(tree)), **changes})


def test_trees_of_searches_prove_what_is_true() -> None:
    trees = found_trees()
    assert len(trees) >= 4
    proved = 0
    for network, bounds, label, tree, exact in trees:
        margins = margins_by_cases(network, bounds, label, tree)
        assert margins.shape == (2,) and (margins <= exact + 1e-6).all()
        there = np.unique(tree.margin_K)
        assert np.isfinite(margins[there]).all()
        proved += int((margins[there] > 0).all())
    assert proved >= 3


# --- what a tree covers ---


def all_signs(num: int) -> np.ndarray:
    return np.array(list(itertools.product((1.0, -1.0), repeat=num))).T.reshape(num, -1)


def bare(parents, neurons, signs, margins=None) -> Tree:
    """A tree without steps."""
    num = len(parents)
    nothing = np.zeros((9, 0))
    return Tree(
        [(0, np.arange(9))],
        np.zeros(num, int) if margins is None else np.array(margins),
        np.array(parents),
        np.array(neurons),
        np.array(signs, float),
        np.zeros(0, int),
        nothing,
        nothing,
        np.zeros((18, 0), np.uint8),
    )


def covers_by_counting(tree: Tree, is_closed: list[bool]) -> bool:
    """Whether every combination of signs is in a closed node of its own."""
    every = all_signs(5)
    inside = np.ones((len(is_closed), every.shape[1]), bool)
    for node, parent in enumerate(tree.parent_K):
        if parent >= 0:
            inside[node] = inside[parent] & (every[tree.neuron_K[node]] == tree.sign_K[node])
    return bool(inside[np.array(is_closed)].any(axis=0).all())


@st.composite
def _trees(draw) -> tuple[Tree, list[bool]]:
    """A random tree over five neurons, perhaps with one node altered."""
    parents, neurons, signs, is_closed, seen = [-1], [0], [0.0], [True], [set()]
    for _ in range(draw(st.integers(0, 7))):
        leaves = [node for node in range(len(parents)) if is_closed[node]]
        leaf = draw(st.sampled_from(leaves))
        free = sorted(set(range(5)) - seen[leaf])
        if not free:
            continue
        neuron = draw(st.sampled_from(free))
        is_closed[leaf] = False
        for sign in (1.0, -1.0):
            parents.append(leaf)
            neurons.append(neuron)
            signs.append(sign)
            is_closed.append(True)
            seen.append(seen[leaf] | {neuron})
    kind = draw(st.sampled_from(["as it is", "flipped", "open", "closed", "moved", "up"]))
    which = draw(st.integers(0, len(parents) - 1))
    if kind == "flipped":
        signs[which] *= -1
    elif kind in ("open", "closed"):
        is_closed[which] = kind == "closed"
    elif kind == "moved":
        neurons[which] = draw(st.integers(0, 4))
    elif kind == "up" and parents[which] > 0:
        parents[which] = parents[parents[which]]
    return bare(parents, neurons, signs), is_closed


@settings(max_examples=500, deadline=None)
@given(made=_trees())
def test_a_root_is_closed_only_where_all_signs_are(made) -> None:
    """Never without; and always with, where the halves of every split are together."""
    tree, is_closed = made
    own = np.where(is_closed, 1.0, -np.inf)
    ((_, value),) = [pair for pair in _roots(tree, own) if pair[0] == 0][-1:]
    if np.isfinite(value):
        assert covers_by_counting(tree, is_closed)


@settings(max_examples=200, deadline=None)
@given(made=_trees(), values=st.lists(st.floats(-1, 1), min_size=15, max_size=15))
def test_a_root_is_worth_what_its_worst_half_is(made, values) -> None:
    tree, _ = made
    own = np.array(values[: len(tree.margin_K)])
    best = own.copy()
    for node in range(len(own) - 1, -1, -1):
        below: dict[tuple[int, float], float] = {}
        for child in np.flatnonzero(tree.parent_K == node):
            key = int(tree.neuron_K[child]), float(tree.sign_K[child])
            below[key] = max(below.get(key, -np.inf), best[child])
        pairs = [
            min(value, below[neuron, -sign])
            for (neuron, sign), value in below.items()
            if sign and (neuron, -sign) in below
        ]
        best[node] = max([best[node], *pairs])
    assert _roots(tree, own)[-1] == (0, best[0])


def test_a_deep_comb_is_followed_to_its_end() -> None:
    """80 splits of one half each: its last two leaves hold 2**-80 of all combinations."""
    parents, neurons, signs, own = [-1], [0], [0.0], [-np.inf]
    at = 0
    for neuron in range(80):
        for sign in (-1.0, 1.0):
            parents.append(at)
            neurons.append(neuron)
            signs.append(sign)
            own.append(1.0 if sign < 0 or neuron == 79 else -np.inf)
        at = len(parents) - 1
    tree = bare(parents, neurons, signs)
    assert _roots(tree, np.array(own)) == [(0, 1.0)]
    for leaf in np.flatnonzero(np.isfinite(own)):
        open_ = np.array(own)
        open_[leaf] = -np.inf
        assert _roots(tree, open_) == [(0, -np.inf)]


# --- a tree that is altered ---


def without(tree: Tree, node: int) -> Tree:
    """The tree without a node and all below it."""
    gone = np.zeros(len(tree.parent_K), bool)
    gone[node] = True
    for child in range(node + 1, len(gone)):
        gone[child] |= tree.parent_K[child] >= 0 and gone[tree.parent_K[child]]
    number = np.append(np.cumsum(~gone) - 1, -1)
    steps = ~gone[tree.node_T]
    return altered(
        tree,
        margin_K=tree.margin_K[~gone],
        parent_K=number[tree.parent_K[~gone]],
        neuron_K=tree.neuron_K[~gone],
        sign_K=tree.sign_K[~gone],
        node_T=number[tree.node_T[steps]],
        alpha_NT=tree.alpha_NT[:, steps],
        beta_NT=tree.beta_NT[:, steps],
        exponent_RT=tree.exponent_RT[:, steps],
    )


def only_leaves(tree: Tree) -> Tree:
    """The tree without the steps of nodes that are split: nothing is closed but leaves."""
    steps = ~np.isin(tree.node_T, tree.parent_K)
    return altered(
        tree,
        node_T=tree.node_T[steps],
        alpha_NT=tree.alpha_NT[:, steps],
        beta_NT=tree.beta_NT[:, steps],
        exponent_RT=tree.exponent_RT[:, steps],
    )


def test_a_half_that_is_missing_or_of_the_other_sign_proves_nothing() -> None:
    for network, bounds, label, tree, _ in found_trees():
        whole = only_leaves(tree)
        for node in np.flatnonzero(tree.parent_K >= 0)[:8].tolist():
            margin = tree.margin_K[node]
            sign = tree.sign_K.copy()
            sign[node] *= -1
            for changed in (without(whole, node), altered(whole, sign_K=sign)):
                found = margins_by_cases(network, bounds, label, changed)
                assert found[margin] == -np.inf


def test_a_half_of_another_margin_proves_nothing() -> None:
    for network, bounds, label, tree, exact in found_trees():
        inner = np.flatnonzero(tree.parent_K >= 0)
        changed = tree.margin_K.copy()
        changed[inner[0]] = 1 - changed[inner[0]]
        found = margins_by_cases(network, bounds, label, altered(tree, margin_K=changed))
        assert found.tolist() == [-np.inf, -np.inf] and (found <= exact + 1e-6).all()


def test_what_follows_from_the_threshold_is_never_more_than_it() -> None:
    """A large threshold assumes much: what is proven with it is at most the exact margin."""
    for network, bounds, label, tree, exact in found_trees():
        for threshold in (0.0, 1e-9, 1e-3, 0.1, 10.0, 1e6):
            changed = altered(tree, threshold=threshold)
            found = margins_by_cases(network, bounds, label, changed)
            assert (found <= exact + 1e-6).all(), threshold


@pytest.mark.parametrize("exponent", [0, 1, 100, 160, 200, 255])
def test_any_multiplier_of_the_constraint_is_sound(exponent: int) -> None:
    for network, bounds, label, tree, exact in found_trees():
        for threshold in (0.0, 0.3):
            wild = altered(
                tree, exponent_RT=np.full_like(tree.exponent_RT, exponent), threshold=threshold
            )
            found = margins_by_cases(network, bounds, label, wild)
            assert (found <= exact + 1e-6).all()


def test_the_constraint_is_needed_for_some_proofs() -> None:
    lost = 0
    for network, bounds, label, tree, _ in found_trees():
        plain = altered(tree, exponent_RT=np.zeros_like(tree.exponent_RT))
        there = np.unique(tree.margin_K)
        lost += int((margins_by_cases(network, bounds, label, plain)[there] == -np.inf).any())
    assert lost


def _bad(tree: Tree) -> dict[str, dict[str, object]]:
    num = len(tree.alpha_NT)
    nan = tree.alpha_NT.copy()
    nan[0, 0] = np.nan
    inner = np.arange(len(tree.parent_K)) > 0
    (first, places), *others = tree.neurons
    return {
        "a number that is none": {"alpha_NT": nan},
        "an infinite multiplier": {"beta_NT": np.where(nan == nan, tree.beta_NT, np.inf)},
        "a row too few": {"exponent_RT": tree.exponent_RT[:-1]},
        "a step too few": {"beta_NT": tree.beta_NT[:, :-1]},
        "a step of a node that is not there": {"node_T": tree.node_T + len(tree.parent_K)},
        "a node too few": {"sign_K": tree.sign_K[:-1]},
        "a sign that is none": {"sign_K": np.where(inner, 0.5, 0.0)},
        "a parent that comes later": {"parent_K": np.where(inner, tree.parent_K + 10**6, -1)},
        "a node that is its own parent": {"parent_K": np.arange(len(inner))},
        "a split that is not there": {"neuron_K": tree.neuron_K + 10**6},
        "a margin that is not there": {"margin_K": tree.margin_K + 2},
        "a margin below 0": {"margin_K": tree.margin_K - 1 - tree.margin_K.max()},
        "a threshold below 0": {"threshold": -1e-6},
        "a threshold that is none": {"threshold": np.nan},
        "a neuron twice": {"neurons": [(first, places[[0, *range(len(places) - 1)]]), *others]},
        "a neuron beyond its layer": {"neurons": [(first, places + 10**6), *others]},
        "a neuron below 0": {"neurons": [(first, places - 10**6), *others]},
        "a layer that is not there": {"neurons": [(first + 9, places), *others]},
        "a layer below 0": {"neurons": [(-1, places), *others]},
        "layers out of order": {"neurons": [*others, (first, places)]},
        "slopes of parts that are not there": {"tightening": [None]},
        "no nodes": {
            **dict.fromkeys(("margin_K", "parent_K", "neuron_K", "node_T"), np.zeros(0, int)),
            "sign_K": np.zeros(0),
            **dict.fromkeys(("alpha_NT", "beta_NT"), np.zeros((num, 0))),
            "exponent_RT": np.zeros((2 * num, 0), np.uint8),
        },
    }


def _one_step() -> Tree:
    """A root with one step, over three neurons."""
    ones = np.ones((3, 1))
    bytes_ = np.ones((6, 1), np.uint8)
    zero = np.zeros(1, int)
    return Tree([(0, np.arange(3))], zero, zero - 1, zero, zero * 1.0, zero, ones, ones, bytes_)


@pytest.mark.parametrize("kind", _bad(_one_step()))
def test_a_tree_that_makes_no_sense_proves_nothing(kind: str) -> None:
    network, bounds, label, tree, _ = found_trees()[0]
    found = margins_by_cases(network, bounds, label, altered(tree, **_bad(tree)[kind]))
    assert found.tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize("value", [-1e300, -5.0, 1.5, 1e300])
def test_slopes_outside_their_range_are_clipped(value: float) -> None:
    for network, bounds, label, tree, exact in found_trees()[:2]:
        inside = np.full_like(tree.alpha_NT, np.clip(value, 0, 1))
        expected = margins_by_cases(network, bounds, label, altered(tree, alpha_NT=inside))
        wild = np.full_like(tree.alpha_NT, value)
        found = margins_by_cases(network, bounds, label, altered(tree, alpha_NT=wild))
        assert np.array_equal(found, expected) and (found <= exact + 1e-6).all()


def test_multipliers_below_0_are_not_believed() -> None:
    for network, bounds, label, tree, exact in found_trees()[:2]:
        none = altered(tree, beta_NT=np.zeros_like(tree.beta_NT))
        expected = margins_by_cases(network, bounds, label, none)
        below = altered(tree, beta_NT=-1.0 - tree.beta_NT)
        found = margins_by_cases(network, bounds, label, below)
        assert np.array_equal(found, expected) and (found <= exact + 1e-6).all()


@pytest.mark.parametrize("factor", [1e3, 1e12, 1e200, 1.7e308])
def test_huge_multipliers_stay_sound(factor: float) -> None:
    for network, bounds, label, tree, exact in found_trees()[:2]:
        wild = altered(tree, beta_NT=np.minimum(tree.beta_NT, 1.0) * factor)
        assert (margins_by_cases(network, bounds, label, wild) <= exact + 1e-6).all()


def test_slopes_of_better_bounds_matter_and_are_not_believed() -> None:
    gained = 0
    for network, bounds, label, tree, exact in found_trees():
        there = np.unique(tree.margin_K)
        expected = margins_by_cases(network, bounds, label, tree)
        without = margins_by_cases(network, bounds, label, altered(tree, tightening=[]))
        assert (without[there] <= expected[there] + 1e-6).all()
        gained += int((without[there] < expected[there] - 1e-3).any())
        for change in (np.full_like, lambda one, _: one[:-1], lambda one, _: one * np.nan):
            slopes = [None if one is None else change(one, 7.0) for one in tree.tightening]
            found = margins_by_cases(network, bounds, label, altered(tree, tightening=slopes))
            assert (found <= exact + 1e-6).all()
    assert gained


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_one_alteration_leaves_a_sound_bound_or_none(data) -> None:
    network, bounds, label, tree, exact = data.draw(st.sampled_from(range(4)).map(_one))
    name = data.draw(
        st.sampled_from(
            [
                "sign_K",
                "parent_K",
                "neuron_K",
                "margin_K",
                "node_T",
                "alpha_NT",
                "beta_NT",
                "exponent_RT",
                "tightening",
            ]
        )
    )
    value = data.draw(
        st.floats(-3, 3) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0, -1.0, 1e30, -1e30])
    )
    with np.errstate(all="ignore"):
        if name == "tightening":
            part = data.draw(
                st.sampled_from([i for i, t in enumerate(tree.tightening) if t is not None])
            )
            array = tree.tightening[part].copy()
            array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = value
            slopes = [array if i == part else one for i, one in enumerate(tree.tightening)]
            changed = altered(tree, tightening=slopes)
        else:
            array = getattr(tree, name).copy()
            if name == "exponent_RT":
                value = data.draw(st.integers(0, 255))
            elif name not in ("sign_K", "alpha_NT", "beta_NT"):
                value = data.draw(st.integers(-1, 40))
            array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = value
            changed = altered(tree, **{name: array})
        found = margins_by_cases(network, bounds, label, changed)
    assert (found <= exact + 1e-6).all()


def _one(number: int):
    return found_trees()[number]


def test_a_bound_of_neurons_that_is_too_wide_is_only_looser() -> None:
    """The bounds a tree starts from are of any origin, if sound: here those of IBP."""
    model = redrawn(0)
    x, low, high = boxes(TINY, 0.3, num=1)
    network = read_network(model, TINY)
    wide, tight = network.bounds(*float64(low, high)), crown_bounds(network, *float64(low, high))
    label = int(model(x).argmax())
    tree = Tree(
        [(0, np.arange(8)), (1, np.arange(6))],
        np.array([0, 1]),
        np.array([-1, -1]),
        np.array([-1, -1]),
        np.zeros(2),
        np.array([0, 1]),
        np.full((14, 2), 0.4),
        np.zeros((14, 2)),
        np.zeros((28, 2), np.uint8),
    )
    exact = exact_margins(model, low, high, torch.tensor([label]))[0].numpy()
    loose, found = (margins_by_cases(network, b, label, tree) for b in (wide, tight))
    assert (loose <= found).all() and (found <= exact + 1e-6).all()


@pytest.mark.parametrize("eps", [0.05, 0.12])
@pytest.mark.parametrize("build", [cnn, Residual], ids=["cnn", "residual"])
def test_lines_of_neurons_lie_below_them_everywhere(build, eps: float) -> None:
    """Of maps too, whose neurons see a window of the image: none is off by a place."""
    model, shape = seeded(build, 3), (1, 8, 8)
    x, low, high = boxes(shape, eps, num=1)
    network = read_network(model, shape)
    box = float64(low, high)
    bounds = crown_bounds(network, *box)
    relus = relu_inputs(model, x)
    neurons, num = [], 0
    for number, relu in enumerate(network.relus):
        given = bounds.values[network.steps[relu - 1].sources[0]]
        neurons.append((number, np.flatnonzero((given.low < 0) & (given.high > 0))))
        num += len(neurons[-1][1])
    assert len(relus) == len(neurons) and num > 10
    zero = np.zeros(1, int)
    tree = Tree(
        neurons,
        zero,
        zero - 1,
        zero,
        np.zeros(1),
        zero,
        np.full((num, 1), 0.5),
        np.zeros((num, 1)),
        np.ones((2 * num, 1), np.uint8),
    )
    walk = _Walk(network, bounds, 0, tree)
    assert sum(len(one.neurons) for one in walk.lines) == num
    draw = np.random.default_rng(0)
    share = draw.uniform(-1, 1, (200, *shape))
    share[::2] = np.sign(share[::2])
    mid = 0.5 * (box[0] + box[1])
    images = np.clip(mid + walk.radius * share, *box)
    inputs = relu_inputs(model, torch.from_numpy(images).float())
    z = np.concatenate(
        [one.numpy()[:, where] for one, (_, where) in zip(inputs, neurons, strict=True)], axis=1
    )
    closest = np.inf
    for one in walk.lines:
        top, left = one.origin
        window = share[:, :, top : top + one.window[1], left : left + one.window[2]]
        value = window.reshape(len(share), -1) @ one.row.T + one.centre
        both = np.concatenate([z[:, one.neurons], -z[:, one.neurons]], axis=1)
        assert (value <= both + 1e-5).all()
        closest = min(closest, float((both - value).min()))
    assert closest < 1e-3
