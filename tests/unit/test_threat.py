"""The measuring stick is exact: no rounding ever favours an attack or a box."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corobench.benchmark.referee import threat

EPSILONS = [Fraction(2, 255), Fraction(8, 255), Fraction(1, 16), Fraction(1, 10), Fraction(1, 20)]


@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
def test_projection_is_within_at_zero_tolerance(epsilon: Fraction) -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 3, 16, 16)
    wild = x + torch.randn_like(x)
    inside = threat.project(wild, x, epsilon)
    assert threat.is_within(inside, x, epsilon).all()
    assert threat.distance(inside, x).max() > 0.99 * float(epsilon)


@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
def test_box_contains_every_projected_image(epsilon: Fraction) -> None:
    torch.manual_seed(1)
    x = torch.rand(32, 1, 8, 8)
    lower, upper = threat.box(x, epsilon)
    for sign in (-1, 1):
        corner = threat.project(x + sign, x, epsilon)
        assert (corner >= lower).all()
        assert (corner <= upper).all()
    assert (lower >= 0).all()
    assert (upper <= 1).all()


@given(
    pixel=st.floats(0, 1, width=32),
    numerator=st.integers(1, 40),
    denominator=st.sampled_from([255, 16, 20, 10, 7]),
)
def test_corner_of_the_ball_against_exact_fractions(
    pixel: float, numerator: int, denominator: int
) -> None:
    epsilon = Fraction(numerator, denominator)
    if epsilon > 1:
        return
    x = torch.full((1, 1, 1, 1), pixel)
    upper = threat.project(x + 2, x, epsilon)
    exact = min(Fraction(x.item()) + epsilon, Fraction(1))
    assert Fraction(upper.item()) <= exact
    assert Fraction(threat.box(x, epsilon)[1].item()) >= exact


def test_an_image_one_step_outside_is_outside() -> None:
    x = torch.full((1, 1, 1, 1), 0.25)
    edge = x + 0.25
    assert threat.is_within(edge, x, Fraction(1, 4)).item()
    outside = torch.nextafter(edge, torch.tensor(1.0))
    assert not threat.is_within(outside, x, Fraction(1, 4)).item()


def test_nan_and_out_of_range_are_never_within() -> None:
    x = torch.tensor([[[[0.0]]], [[[1.0]]], [[[0.5]]]])
    bad = torch.tensor([[[[-0.01]]], [[[1.01]]], [[[float("nan")]]]])
    assert not threat.is_within(bad, x, Fraction(1, 2)).any()
