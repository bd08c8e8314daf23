"""Coverage of every interval and error rates of every test, by simulation; seeds are fixed."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from corobench.benchmark.scoring.statistics import (
    Interval,
    clopper_pearson,
    holm,
    mcnemar_exact_many,
    rank_groups,
    retention,
    wilson,
)

PROPORTIONS = (0.002, 0.05, 0.3, 0.5, 0.9, 0.99)


@cache
def _one(
    interval: Callable[[int, int, float], Interval], k: int, n: int, confidence: float
) -> Interval:
    return interval(k, n, confidence)


def coverage(
    interval: Callable[[int, int, float], Interval], p: float, n: int, confidence: float
) -> float:
    """Share of 20,000 drawn counts whose interval holds p."""
    drawn = np.random.default_rng(0).binomial(n, p, size=20_000)
    held = {k: _one(interval, k, n, confidence) for k in np.unique(drawn).tolist()}
    return float(np.mean([held[k].low <= p <= held[k].high for k in drawn.tolist()]))


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clopper_pearson_never_covers_less_than_stated(n: int, confidence: float) -> None:
    noise = 3 * np.sqrt(confidence * (1 - confidence) / 20_000)
    for p in PROPORTIONS:
        assert coverage(clopper_pearson, p, n, confidence) >= confidence - noise


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_covers_as_stated_on_average(n: int, confidence: float) -> None:
    found = [coverage(wilson, p, n, confidence) for p in np.linspace(0.03, 0.97, 17)]
    assert np.mean(found) == pytest.approx(confidence, abs=0.01)
    assert min(found) > confidence - 0.035


def answers(
    random: np.random.Generator, accuracies: NDArray[np.float64], churn: float, shape: tuple
) -> NDArray[np.bool_]:
    """Right or not, (..., entries, n), of entries that agree but on a share `churn` of the images.

    An image is right where its difficulty lies below the accuracy; churn draws it anew.
    """
    difficulty = random.random((*shape[:-1], 1, shape[-1]))
    own = random.random((*shape[:-1], len(accuracies), shape[-1]))
    moved = random.random(own.shape) < churn
    return np.where(moved, own, difficulty) < accuracies[:, None]


@pytest.mark.parametrize(("n", "churn"), [(100, 0.1), (500, 0.05), (500, 0.5), (1000, 0.02)])
def test_mcnemar_rejects_equal_entries_at_most_as_often_as_alpha(n: int, churn: float) -> None:
    right = answers(np.random.default_rng(1), np.array([0.8, 0.8]), churn, (4000, n))
    first, second = right[:, 0], right[:, 1]
    p_values = mcnemar_exact_many((first & ~second).sum(axis=1), (~first & second).sum(axis=1))
    for alpha in (0.01, 0.05, 0.1):
        noise = 3 * np.sqrt(alpha * (1 - alpha) / 4000)
        assert np.mean(p_values <= alpha) <= alpha + noise


def test_mcnemar_finds_what_is_there() -> None:
    """Five points at 10 % churn on 500 images: missed in fewer than one of ten runs."""
    right = answers(np.random.default_rng(2), np.array([0.85, 0.8]), 0.1, (2000, 500))
    first, second = right[:, 0], right[:, 1]
    p_values = mcnemar_exact_many((first & ~second).sum(axis=1), (~first & second).sum(axis=1))
    assert np.mean(p_values <= 0.05) > 0.9


def test_holm_keeps_the_chance_of_any_false_rejection() -> None:
    """Ten true hypotheses among fifteen, the p-values of which hang together."""
    random = np.random.default_rng(3)
    common, own = random.standard_normal((4000, 1)), random.standard_normal((4000, 15))
    shift = np.r_[np.zeros(10), np.full(5, 4.0)]
    p_values = 2 * norm.sf(np.abs(np.sqrt(0.5) * common + np.sqrt(0.5) * own + shift))
    corrected = np.array([holm(row) for row in p_values.tolist()])
    any_false = (corrected[:, :10] <= 0.05).any(axis=1).mean()
    assert any_false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert (corrected[:, 10:] <= 0.05).mean() > (15 * p_values[:, 10:] <= 0.05).mean() > 0.5


def true_ranks(accuracies: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Best and worst rank by the truth; entries of equal accuracy share their ranks."""
    return [
        (1 + int((accuracies > own).sum()), int((accuracies >= own).sum())) for own in accuracies
    ]


BOARDS = {
    "all equal": [0.8] * 8,
    "in steps of a point": [0.86, 0.85, 0.84, 0.83, 0.82, 0.81, 0.80, 0.79],
    "barely different": [0.803, 0.802, 0.801, 0.8, 0.8, 0.799, 0.798, 0.797],
    "two groups": [0.9, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7],
}


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("churn", [0.05, 0.3])
def test_rank_ranges_hold_the_true_ranks(name: str, churn: float) -> None:
    """On at most a share alpha of the boards any range misses any true rank (a tie: all of it)."""
    accuracies, alpha, boards = np.array(BOARDS[name]), 0.1, 400
    truth = true_ranks(accuracies)
    simulated = answers(np.random.default_rng(4), accuracies, churn, (boards, 500))
    misses, widths = 0, []
    for right in simulated:
        order = np.argsort(-right.sum(axis=1), kind="stable")
        standings = rank_groups(list(right[order]), alpha)
        misses += any(
            standing.best > truth[entry][0] or standing.worst < truth[entry][1]
            for entry, standing in zip(order, standings, strict=True)
        )
        widths += [standing.worst - standing.best for standing in standings]
    assert misses / boards <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / boards)
    if name == "two groups":
        assert max(widths) < 7, "twenty points on 500 images are told apart"


@pytest.mark.parametrize(("kept", "churn"), [(0.95, 0.1), (0.8, 0.05), (0.5, 0.2)])
def test_retention_interval_covers_the_truth(kept: float, churn: float) -> None:
    accuracies = np.array([0.8, 0.8 * kept])
    simulated = answers(np.random.default_rng(5), accuracies, churn, (400, 300))
    covered = []
    for parent, child in simulated:
        found = retention(child, parent, resamples=400)
        assert found is not None
        covered.append(found.low <= kept <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_retention_near_one_is_not_certain() -> None:
    """Few images differ, or none: the interval still covers, where a plain bootstrap would not."""
    accuracies = np.array([0.8, 0.8])
    simulated = answers(np.random.default_rng(6), accuracies, 0.005, (250, 300))
    covered = []
    for parent, child in simulated:
        found = retention(child, parent, resamples=400)
        assert found is not None
        assert found.low < found.high
        covered.append(found.low <= 1.0 <= found.high)
    assert np.mean(covered) > 0.92
