"""Bounds of neurons under a constraint on the margin: true of every image that keeps it, and near
the best that a linear program finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from corobench.benchmark.certify.bab import clipping
from corobench.benchmark.certify.bab.clipping import Clipper, gamma_of
from corobench.benchmark.certify.bab.coupling import Coupling
from corobench.benchmark.certify.bab.lagrangian import Pass, Relaxation, roots
from corobench.benchmark.certify.bab.reduced import ReducedNet
from corobench.benchmark.certify.bab.tightening import NeuronLines
from corobench.benchmark.certify.checker import clipping as checked
from corobench.benchmark.certify.checker.passes import Line

NUM_NEURONS, NUM_INPUTS = 6, 12


def made(seed: int, seen: int = NUM_INPUTS) -> tuple[ReducedNet, NeuronLines]:
    """A layer of neurons that see some inputs each, and one margin that their outputs lower."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    matrix = normal(NUM_NEURONS, NUM_INPUTS)
    for row in range(NUM_NEURONS):
        gone = torch.randperm(NUM_INPUTS, generator=generator)[seen:]
        matrix[row, gone] = 0.0
    mid, rad = normal(NUM_INPUTS), torch.rand(NUM_INPUTS, generator=generator) + 0.1
    bias = -matrix @ mid + 0.2 * normal(NUM_NEURONS)
    centre = matrix @ mid + bias
    reach = matrix.abs() @ rad
    net = ReducedNet(
        layers=(slice(0, NUM_NEURONS),),
        neurons=((0, torch.arange(NUM_NEURONS)),),
        couplings=(Coupling(matrix),),
        bias_N=bias,
        lower_N=(centre - reach).clamp(max=-1e-3),
        upper_N=(centre + reach).clamp(min=1e-3),
        spec=torch.cat([normal(1, NUM_INPUTS), -normal(1, NUM_NEURONS).abs() - 0.1], dim=1),
        spec_bias_S=torch.zeros(1),
        mid_X=mid,
        rad_X=rad,
    )
    return net, NeuronLines(torch.cat([matrix, -matrix]), torch.cat([centre, -centre]))


def open_root(net: ReducedNet):
    root, relaxation = roots(net, torch.tensor([0])), Relaxation(net)
    found = relaxation.backward(root)
    return root, found


def best_by_program(net: ReducedNet, row: torch.Tensor, shift: float, found: Pass, t: float):
    """min row x + shift over the box where the linear bound of the margin is at most t."""
    slope = found.slope_XB[:, 0].double().numpy()
    constant = float(found.centre_B[0]) - float(slope @ net.mid_X.double().numpy())
    low, high = (net.mid_X - net.rad_X).numpy(), (net.mid_X + net.rad_X).numpy()
    answer = linprog(
        row.double().numpy(), A_ub=slope[None], b_ub=[t - constant], bounds=np.stack([low, high], 1)
    )
    assert answer.status in (0, 2)
    return answer.fun + shift if answer.status == 0 else np.inf


@pytest.mark.parametrize("seen", [NUM_INPUTS, 3])
@pytest.mark.parametrize("seed", range(5))
def test_bounds_come_near_the_linear_program_and_never_pass_it(seed: int, seen: int) -> None:
    net, lines = made(seed, seen)
    matrix = lines.slope_RX[:NUM_NEURONS]
    root, found = open_root(net)
    t = float(found.bound_B) + 0.15 * float(net.rad_X @ found.slope_XB.abs())
    before = root.low_NB.clone(), root.high_NB.clone()
    exponent = Clipper(net, [lines], t).clip(root, found)
    gains = []
    for neuron in range(NUM_NEURONS):
        shift = float(net.bias_N[neuron])
        sides = (
            (root.low_NB, before[0], 1.0),
            (-root.high_NB, -before[1], -1.0),
        )
        for number, (now, known, sign) in enumerate(sides):
            best = best_by_program(net, sign * matrix[neuron], sign * shift, found, t)
            best, old = max(best, float(known[neuron])), float(known[neuron])
            assert old <= float(now[neuron]) <= best + 1e-4
            used = exponent[number * NUM_NEURONS + neuron] > 0
            assert bool(used) == (float(now[neuron]) > old)
            if best > old + 1e-3:
                gains.append((float(now[neuron]) - old) / (best - old))
    assert len(gains) >= 4 and min(gains) > 0.85 and float(np.mean(gains)) > 0.92


def test_no_image_that_can_still_refute_leaves_its_bounds() -> None:
    for seed in range(5):
        net, lines = made(seed)
        root, found = open_root(net)
        t = float(found.bound_B) + 0.3
        Clipper(net, [lines], t).clip(root, found)
        generator = torch.Generator().manual_seed(seed)
        share = 2 * torch.rand(NUM_INPUTS, 20_000, generator=generator) - 1
        x = net.mid_X[:, None] + net.rad_X[:, None] * share.sign() * share.abs() ** 0.2
        kept = x[:, net.forward(x)[0] <= t]
        if not kept.shape[1]:
            kept = Relaxation(net).worst(found)
        z = net.couplings[0].matrix @ kept + net.bias_N[:, None]
        assert bool((z >= root.low_NB - 1e-5).all() and (z <= root.high_NB + 1e-5).all())


def test_how_many_pairs_are_worked_on_at_once_changes_nothing(monkeypatch) -> None:
    net, lines = made(1, 3)
    answers = []
    for size in (1, 50, 2**18):
        monkeypatch.setitem(clipping.VALUES_AT_ONCE, "cpu", size)
        root, found = open_root(net)
        Clipper(net, [lines], float(found.bound_B) + 0.3).clip(root, found)
        answers.append((root.low_NB, root.high_NB))
    for low, high in answers[1:]:
        torch.testing.assert_close(low, answers[0][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(high, answers[0][1], atol=1e-6, rtol=0)


# --- the checker's own ---


def box_rows(seed: int, num: int, window: tuple[int, int] | None = None):
    draw = np.random.default_rng(seed)
    shape = (2, 4, 5) if window is None else (2, *window)
    return draw.normal(size=(num, *shape)), draw.normal(size=num)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.integers(1, 255),
    threshold=st.floats(-3, 3),
    top=st.integers(0, 2),
    left=st.integers(0, 3),
)
def test_the_checker_bounds_what_the_formula_says(seed, exponent, threshold, top, left) -> None:
    """Against the minimum over the box of the sum of both linear functions, written out."""
    radius = np.abs(np.random.default_rng(seed + 1).normal(size=(2, 4, 5)))
    rows, centre = box_rows(seed, 3)
    given_rows, given_centre = box_rows(seed + 2, 4, (2, 2))
    line = Line(rows[None], (0, 0), centre[None])
    neurons = checked.NeuronRows.of(
        np.arange(2), Line(given_rows[None], (top, left), given_centre[None]), radius
    )
    gamma = 2.0 ** ((exponent - 160) / 8)
    found = checked.Constraint(line, radius, threshold).bounds(
        neurons, np.full((4, 3), exponent, np.uint8)
    )
    for r in range(4):
        whole = np.zeros((2, 4, 5))
        whole[:, top : top + 2, left : left + 2] = given_rows[r]
        for c in range(3):
            both = whole + gamma * rows[c]
            value = (
                given_centre[r] + gamma * (centre[c] - threshold) - (np.abs(both) * radius).sum()
            )
            scale = 1 + abs(value) + gamma * (np.abs(rows[c]) * radius).sum()
            assert found[r, c] <= value + 1e-15 * scale
            assert found[r, c] >= value - 1e-10 * scale


def test_no_multiplier_gives_no_bound() -> None:
    radius = np.ones((2, 4, 5))
    rows, centre = box_rows(0, 3)
    neurons = checked.NeuronRows.of(
        np.arange(1), Line(rows[None, :2], (0, 0), centre[None, :2]), radius
    )
    found = checked.Constraint(Line(rows[None], (0, 0), centre[None]), radius, 0.0).bounds(
        neurons, np.zeros((2, 3), np.uint8)
    )
    assert (found == -np.inf).all()


def test_both_sides_read_a_byte_alike() -> None:
    every = np.arange(256, dtype=np.uint8)
    ours, theirs = gamma_of(torch.from_numpy(every)).double().numpy(), checked.gamma_of(every)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


# --- dives ---
