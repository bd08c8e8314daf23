"""Trees of a search: leaves must cover all signs, and whatever is altered the bound stays sound."""

from __future__ import annotations

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from certify_nets import boxes, seeded
from float32_nets import float64
from hypothesis import given, settings
from hypothesis import strategies as st
from milp_margins import exact_margins
from torch import nn

from corobench.benchmark.certify import BranchBudget, Prover, prover
from corobench.benchmark.certify.bab.budget import Ascent
from corobench.benchmark.certify.checker.proofs import crown_bounds
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.checker.trees import Tree, covers, margins_by_cases

TINY = (1, 2, 2)


@functools.cache
def found_trees():
    """(network, bounds, label, exact margins, tree) of boxes that needed splits."""
    found = []
    real = prover.margins_by_cases

    def noted(network, bounds, label, tree):
        if tree.sign_NL.any() and any(one is not None for one in tree.tightening):
            found.append((network, bounds, label, tree))
        return real(network, bounds, label, tree)

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prover, "margins_by_cases", noted)
        for seed in range(40):
            model = redrawn(seed)
            x, low, high = boxes(TINY, 0.35, num=3, seed=seed)
            labels = model(x).argmax(dim=1)
            budget = BranchBudget(1500, tighten_after=3, tighten=Ascent(5))
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
        there = np.unique(tree.margin_L)
        assert np.isfinite(margins[there]).all()
        proved += int((margins[there] > 0).all())
    assert proved >= 3


# --- coverage ---


def all_signs(num: int) -> np.ndarray:
    return np.array(list(itertools.product((1.0, -1.0), repeat=num))).T.reshape(num, -1)


def covers_by_counting(sign_NL: np.ndarray) -> bool:
    """Whether every combination of signs lies in exactly one leaf."""
    every = all_signs(len(sign_NL))
    agrees = (sign_NL[:, :, None] * every[:, None, :] >= 0).all(axis=0)
    return bool((agrees.sum(axis=0) == 1).all())


@st.composite
def _leaves(draw) -> np.ndarray:
    """Leaves of a random tree over few neurons, perhaps with one altered."""
    num = draw(st.integers(1, 5))
    leaves = [np.zeros(num)]
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(leaves) - 1))
        free = np.flatnonzero(leaves[place] == 0)
        if not len(free):
            continue
        leaf, neuron = leaves.pop(place), free[draw(st.integers(0, len(free) - 1))]
        for sign in (1.0, -1.0):
            half = leaf.copy()
            half[neuron] = sign
            leaves.append(half)
    kind = draw(st.sampled_from(["as it is", "flipped", "dropped", "twice", "freed"]))
    which, neuron = draw(st.integers(0, len(leaves) - 1)), draw(st.integers(0, num - 1))
    if kind == "flipped":
        leaves[which] = leaves[which].copy()
        leaves[which][neuron] *= -1
    elif kind == "dropped":
        leaves.pop(which)
    elif kind == "twice":
        leaves.append(leaves[which])
    elif kind == "freed":
        leaves[which] = leaves[which].copy()
        leaves[which][neuron] = 0.0
    return np.array(leaves).reshape(-1, num).T


@settings(max_examples=400, deadline=None)
@given(sign_NL=_leaves())
def test_coverage_is_what_counting_says(sign_NL: np.ndarray) -> None:
    assert covers(sign_NL) == covers_by_counting(sign_NL)


@settings(max_examples=300, deadline=None)
@given(
    num=st.integers(1, 3),
    leaves=st.lists(
        st.lists(st.sampled_from([1.0, 0.0, -1.0]), min_size=3, max_size=3), max_size=6
    ),
)
def test_coverage_of_any_leaves(num: int, leaves: list[list[float]]) -> None:
    sign_NL = np.array(leaves).reshape(-1, 3).T[:num]
    assert covers(sign_NL) == covers_by_counting(sign_NL)


def test_coverage_of_deep_leaves_is_counted_exactly() -> None:
    """A comb of 80 neurons: its last two leaves hold 2**-80 of all combinations each."""
    num = 80
    comb = np.triu(np.ones((num, num + 1)), 1)
    comb[np.arange(num), np.arange(num)] = -1.0
    assert covers(comb)
    assert not covers(comb[:, :-1]) and not covers(comb[:, 1:])


# --- a tree that is altered ---


def test_a_leaf_that_is_missing_twice_or_of_another_sign_proves_nothing() -> None:
    for network, bounds, label, tree, _ in found_trees():
        for leaf in range(min(6, len(tree.margin_L))):
            margin = tree.margin_L[leaf]
            if not tree.sign_NL[:, leaf].any():
                continue
            rest = np.delete(np.arange(len(tree.margin_L)), leaf)
            both = np.append(np.arange(len(tree.margin_L)), leaf)
            for columns in (rest, both):
                changed = altered(
                    tree,
                    margin_L=tree.margin_L[columns],
                    **{
                        name: getattr(tree, name)[:, columns]
                        for name in ("sign_NL", "alpha_NL", "beta_NL")
                    },
                )
                found = margins_by_cases(network, bounds, label, changed)
                assert found[margin] == -np.inf
            sign = tree.sign_NL.copy()
            neuron = np.flatnonzero(sign[:, leaf])[0]
            sign[neuron, leaf] *= -1
            found = margins_by_cases(network, bounds, label, altered(tree, sign_NL=sign))
            assert found[margin] == -np.inf


def test_a_leaf_of_another_margin_leaves_a_hole_in_its_own() -> None:
    for network, bounds, label, tree, exact in found_trees():
        split_up = np.flatnonzero(tree.sign_NL.any(axis=0))
        changed = tree.margin_L.copy()
        changed[split_up[0]] = 1 - changed[split_up[0]]
        found = margins_by_cases(network, bounds, label, altered(tree, margin_L=changed))
        assert found[tree.margin_L[split_up[0]]] == -np.inf
        assert (found <= exact + 1e-6).all()


def _bad(tree: Tree) -> dict[str, dict[str, object]]:
    num = len(tree.sign_NL)
    nan = tree.alpha_NL.copy()
    nan[0, 0] = np.nan
    (first, places), *others = tree.neurons
    return {
        "a number that is none": {"alpha_NL": nan},
        "an infinite multiplier": {"beta_NL": np.where(nan == nan, tree.beta_NL, np.inf)},
        "a row too few": {"sign_NL": tree.sign_NL[:-1]},
        "a leaf too few": {"beta_NL": tree.beta_NL[:, :-1]},
        "a margin that is not there": {"margin_L": tree.margin_L + 2},
        "a margin below 0": {"margin_L": tree.margin_L - 1 - tree.margin_L.max()},
        "a neuron twice": {"neurons": [(first, places[[0, *range(len(places) - 1)]]), *others]},
        "a neuron beyond its layer": {"neurons": [(first, places + 10**6), *others]},
        "a neuron below 0": {"neurons": [(first, places - 10**6), *others]},
        "a layer that is not there": {"neurons": [(first + 9, places), *others]},
        "a layer below 0": {"neurons": [(-1, places), *others]},
        "layers out of order": {"neurons": [*others, (first, places)]},
        "slopes of parts that are not there": {"tightening": [None]},
        "no leaves": {
            "margin_L": tree.margin_L[:0],
            **dict.fromkeys(("sign_NL", "alpha_NL", "beta_NL"), np.zeros((num, 0))),
        },
    }


@pytest.mark.parametrize(
    "kind", _bad(Tree([(0, np.arange(3))], np.zeros(1, int), *np.zeros((3, 3, 1))))
)
def test_a_tree_that_makes_no_sense_proves_nothing(kind: str) -> None:
    network, bounds, label, tree, _ = found_trees()[0]
    found = margins_by_cases(network, bounds, label, altered(tree, **_bad(tree)[kind]))
    assert found.tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize("value", [-1e300, -5.0, 1.5, 1e300])
def test_slopes_outside_their_range_are_clipped(value: float) -> None:
    for network, bounds, label, tree, exact in found_trees()[:2]:
        inside = np.full_like(tree.alpha_NL, np.clip(value, 0, 1))
        expected = margins_by_cases(network, bounds, label, altered(tree, alpha_NL=inside))
        wild = np.full_like(tree.alpha_NL, value)
        found = margins_by_cases(network, bounds, label, altered(tree, alpha_NL=wild))
        assert np.array_equal(found, expected) and (found <= exact + 1e-6).all()


def test_multipliers_below_0_are_not_believed() -> None:
    for network, bounds, label, tree, exact in found_trees()[:2]:
        none = altered(tree, beta_NL=np.zeros_like(tree.beta_NL))
        expected = margins_by_cases(network, bounds, label, none)
        below = altered(tree, beta_NL=-1.0 - tree.beta_NL)
        found = margins_by_cases(network, bounds, label, below)
        assert np.array_equal(found, expected) and (found <= exact + 1e-6).all()


@pytest.mark.parametrize("factor", [1e3, 1e12, 1e200, 1.7e308])
def test_huge_multipliers_stay_sound(factor: float) -> None:
    for network, bounds, label, tree, exact in found_trees()[:2]:
        wild = altered(tree, beta_NL=np.minimum(tree.beta_NL, 1.0) * factor)
        assert (margins_by_cases(network, bounds, label, wild) <= exact + 1e-6).all()


def test_slopes_of_better_bounds_matter_and_are_not_believed() -> None:
    gained = 0
    for network, bounds, label, tree, exact in found_trees():
        there = np.unique(tree.margin_L)
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
    name = data.draw(st.sampled_from(["sign_NL", "alpha_NL", "beta_NL", "margin_L", "tightening"]))
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
            if name == "margin_L":
                value = data.draw(st.integers(-1, 3))
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
        np.zeros((14, 2)),
        np.full((14, 2), 0.4),
        np.zeros((14, 2)),
    )
    exact = exact_margins(model, low, high, torch.tensor([label]))[0].numpy()
    loose, found = (margins_by_cases(network, b, label, tree) for b in (wide, tight))
    assert (loose <= found).all() and (found <= exact + 1e-6).all()
