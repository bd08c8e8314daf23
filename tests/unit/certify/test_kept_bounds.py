"""Bounds that the costly certifiers share: the same numbers, computed once, within a limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from certify_nets import Residual, boxes, cnn, seeded

from corobench.benchmark.certify import BranchBudget, Prover, kept_bounds
from corobench.benchmark.certify.checker.network import Network
from corobench.benchmark.certify.checker.passes import Bounds
from corobench.benchmark.certify.checker.proofs import crown_bounds
from corobench.benchmark.certify.checker.reading import read_network
from corobench.benchmark.certify.kept_bounds import KeptBounds
from corobench.benchmark.certify.witness import float64

SHAPE = (1, 8, 8)
Box = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=[lambda: cnn(num_classes=4), Residual])
def network(request: pytest.FixtureRequest) -> Network:
    return read_network(seeded(request.param, 1), SHAPE)


@pytest.fixture
def two() -> tuple[Box, Box]:
    _, low, high = boxes(SHAPE, 0.05, num=2)
    low64, high64 = float64(low), float64(high)
    return (low64[:1], high64[:1]), (low64[1:], high64[1:])


def same(one: Bounds, other: Bounds) -> bool:
    """All values, and their noise, to the last bit."""
    return all(
        np.array_equal(a.low, b.low)
        and np.array_equal(a.high, b.high)
        and (a.noise is None) == (b.noise is None)
        and (a.noise is None or np.array_equal(a.noise, b.noise))
        for a, b in zip(one.values, other.values, strict=True)
    )


def test_what_is_kept_is_what_was_computed(network: Network, two: tuple[Box, Box]) -> None:
    kept = KeptBounds(network)
    first = [kept.bounds(*box) for box in two]
    again = [kept.bounds(*box) for box in two]
    for box, one, other in zip(two, first, again, strict=True):
        expected = crown_bounds(network, *box)
        assert same(one, expected) and same(other, expected)
    assert not same(first[0], first[1])


def test_a_box_is_bounded_once(
    network: Network, two: tuple[Box, Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Box] = []

    def counted(network: Network, low, high, *more):  # type: ignore[no-untyped-def]
        asked.append((low, high))
        return crown_bounds(network, low, high, *more)

    monkeypatch.setattr(kept_bounds, "crown_bounds", counted)
    kept = KeptBounds(network)
    for _ in range(3):
        for box in two:
            kept.bounds(*box)
    assert len(asked) == 2
    low, high = two[0]
    kept.bounds(low, np.nextafter(high, 2.0))  # another box by one bit
    assert len(asked) == 3


def test_a_limit_is_kept_and_what_is_forgotten_makes_room(
    network: Network, two: tuple[Box, Box]
) -> None:
    kept = KeptBounds(network)
    kept.bounds(*two[0])
    one = kept.num_bytes
    assert one > 0
    small = KeptBounds(network, limit=one)
    for box in two:
        assert same(small.bounds(*box), crown_bounds(network, *box))
    assert small.num_bytes == one
    small.forget(*two[1])  # was not kept
    assert small.num_bytes == one
    small.forget(*two[0])
    assert small.num_bytes == 0
    small.bounds(*two[1])
    assert small.num_bytes == one


def test_certifiers_answer_alike_whoever_was_asked_before() -> None:
    model = seeded(lambda: cnn(num_classes=4), 3)
    x, low, high = boxes(SHAPE, 0.03, num=6)
    labels = model(x).argmax(dim=1)
    asked_before = Prover(model, SHAPE, 4)
    for certifier in ("CROWN", "alpha-CROWN", "BaB"):
        fresh = Prover(model, SHAPE, 4)
        now = asked_before.search(certifier, low, high, labels, BranchBudget(50))
        then = fresh.search(certifier, low, high, labels, BranchBudget(50))
        for one, other in zip(now, then, strict=True):
            assert one.status == other.status
            assert torch.equal(one.margins, other.margins)
