"""What CROWN costs: closed forms, a budget that is kept, and memory that is bounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from certify_nets import Residual, boxes, cnn, seeded
from float32_nets import float64
from torch import nn

from corobench.benchmark.certify.checker import proofs
from corobench.benchmark.certify.checker.cost import (
    bounded_values,
    cost_of_neurons,
    interval_bytes,
    open_neurons,
    row_cost,
    whole_cost,
)
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.proofs import TooCostlyError, crown_bounds
from corobench.benchmark.certify.checker.reading import read_network

SHAPE = (1, 8, 8)


def dense(activation: type[nn.Module] = nn.ReLU) -> Network:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 7), activation(), nn.Linear(7, 5), activation(), nn.Linear(5, 3))
    return read_network(nn.Sequential(nn.Flatten(), *layers).eval(), (1, 2, 2))


def test_a_row_through_matrices_takes_their_entries_and_one_per_value() -> None:
    network = dense()
    assert bounded_values(network) == [4]  # the first layer is exact
    assert row_cost(network, 4).num_macs == (5 + 7 * 5) + 7 + (7 + 4 * 7) + 4
    assert row_cost(network, 6).num_macs == (3 + 5 * 3) + 5 + row_cost(network, 4).num_macs
    margins = 2 * row_cost(network, 6).num_macs
    assert whole_cost(network) == 2 * 5 * row_cost(network, 4).num_macs + margins


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_activations_of_every_kind_count(activation: type[nn.Module]) -> None:
    assert whole_cost(dense(activation)) == whole_cost(dense())


def test_a_row_on_a_map_sees_a_window_that_grows() -> None:
    layers = (nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())
    head = (nn.Flatten(), nn.Linear(3 * 64, 2))
    network = read_network(nn.Sequential(*layers, *head).eval(), SHAPE)
    second = 3 + 3 * 2 * 9  # one place of three channels
    first = 2 * 9 + 2 * 9 + 2 * 9 * 9  # the ReLU, then the convolution, on 3 x 3 places
    assert row_cost(network, 3).num_macs == second + first
    whole = row_cost(network, 6).num_macs
    assert whole >= 64 * (3 * 2 * 9 + 2 * 9)


def test_open_neurons_are_those_whose_sign_is_open() -> None:
    network = read_network(seeded(lambda: cnn(num_classes=4), 1), SHAPE)
    _, low, high = boxes(SHAPE, 0.05, num=1)
    found = network.bounds(*float64(low, high))
    for number in bounded_values(network):
        given = found.values[number]
        expected = ((given.low < 0) & (given.high > 0))[0]
        assert np.array_equal(open_neurons(network, found, number), expected)
    curved = dense(nn.Sigmoid)
    seen = curved.bounds(np.zeros((1, 1, 2, 2)), np.ones((1, 1, 2, 2)))
    assert open_neurons(curved, seen, 4).all()


def least_budget(network: Network, low: np.ndarray, high: np.ndarray) -> int:
    """What a box takes: its neurons that are open when their layer is reached."""
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proofs, "cost_of_neurons", lambda *a: seen.append(cost_of_neurons(*a)) or 0)
        crown_bounds(network, low, high)
    return sum(seen)


@pytest.mark.parametrize("build", [lambda: cnn(num_classes=4), Residual])
def test_a_budget_is_kept_and_changes_no_bound(build: Callable[[], nn.Module]) -> None:
    network = read_network(seeded(build, 1), SHAPE)
    _, low, high = boxes(SHAPE, 0.05, num=1)
    box = float64(low, high)
    needed = least_budget(network, *box)
    assert 0 < needed <= whole_cost(network)
    free, bounded = crown_bounds(network, *box), crown_bounds(network, *box, needed)
    for one, other in zip(free.values, bounded.values, strict=True):
        assert np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)
    with pytest.raises(TooCostlyError, match="multiply-adds"):
        crown_bounds(network, *box, needed - 1)


def test_a_box_that_leaves_nothing_open_costs_nothing() -> None:
    network = read_network(seeded(lambda: cnn(num_classes=4), 1), SHAPE)
    x, _, _ = boxes(SHAPE, 0.05, num=1)
    assert least_budget(network, *float64(x, x)) == 0
    crown_bounds(network, *float64(x, x), 0)


def test_memory_bounds_the_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = read_network(seeded(lambda: cnn(num_classes=4), 1), SHAPE)
    _, low, high = boxes(SHAPE, 0.08, num=1)
    box = float64(low, high)
    expected = crown_bounds(network, *box)
    largest: list[int] = []
    real = network.lower

    def seen(bounds, start, coefficient, *more):  # type: ignore[no-untyped-def]
        largest.append(coefficient.shape[1] * row_cost(network, start).num_bytes)
        return real(bounds, start, coefficient, *more)

    monkeypatch.setattr(network, "lower", seen)
    least = 2 * max(row_cost(network, number).num_bytes for number in bounded_values(network))
    monkeypatch.setattr(proofs, "_BYTES_AT_ONCE", least)
    found = crown_bounds(network, *box)
    assert max(largest) <= least
    for one, other in zip(found.values, expected.values, strict=True):
        np.testing.assert_allclose(one.low, other.low, atol=1e-9)
        np.testing.assert_allclose(one.high, other.high, atol=1e-9)


def test_a_convolution_lays_its_operands_side_by_side() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    network = read_network(net.eval(), SHAPE)
    assert interval_bytes(network) == 8 * (2 * 64 + 9 * 64)
