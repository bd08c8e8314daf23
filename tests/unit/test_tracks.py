"""Tracks are exact, nested and the same on every machine."""

from fractions import Fraction

import pytest

from corobench.benchmark import tracks
from corobench.benchmark.errors import ConfigError


def test_epsilons_are_exact_and_ascending() -> None:
    for track in tracks.TRACKS.values():
        radii = [tracks.parse_epsilon(text) for text in track.epsilons]
        assert radii == sorted(radii)
    assert tracks.parse_epsilon("8/255") == Fraction(8, 255) != Fraction("0.031")


@pytest.mark.parametrize("text", ["0.031", "8", "8/0", "-1/255", "300/255", "a/b", "", "0/255"])
def test_inexact_or_impossible_epsilons_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        tracks.parse_epsilon(text)


def test_published_order_is_a_fixed_permutation() -> None:
    order = tracks.published_order("cifar10", 10000)
    assert sorted(order) == list(range(10000))
    assert order[:5] == [7708, 5350, 9535, 460, 765]
    shorter = tracks.published_order("cifar10", 200)
    assert shorter == [index for index in order if index < 200]


def test_only_the_larger_subsets_are_ranked() -> None:
    track = tracks.get_track("fashion-mnist")
    assert [track.is_ranked(n) for n in (100, 500, 1000, 10000)] == [False, False, True, True]


def test_unknown_track_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cifar10'"):
        tracks.get_track("cifar-10")


def test_seeds_differ_by_everything_they_derive_from() -> None:
    seeds = {
        tracks.derive_seed(seed, track, purpose, chunk)
        for seed in (0, 1)
        for track in ("digits", "svhn")
        for purpose in ("autoattack:1/16", "autoattack:2/16")
        for chunk in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)
