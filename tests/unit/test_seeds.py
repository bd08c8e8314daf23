"""The test over seeds and images: closed forms, and its error rates on drawn networks."""

from __future__ import annotations

import numpy as np
import pytest

from corobench.benchmark.scoring.seeds import over_seeds_and_images


def _networks(rng, num, accuracy, seed_sd, easy, interaction=0.3):
    """Trainings of one arm: a common difficulty of images, an effect of each seed."""
    rows = []
    for _ in range(num):
        level = accuracy + seed_sd * rng.standard_normal()
        noise = interaction * rng.standard_normal(easy.size)
        chance = np.clip(level + easy + noise * 0.1, 0, 1)
        rows.append(rng.random(easy.size) < chance)
    return rows


@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("num", [2, 3, 5])
def test_no_difference_is_rarely_called_one(num: int, seed_sd: float) -> None:
    rng = np.random.default_rng(num)
    false = 0
    runs = 400
    for _ in range(runs):
        easy = np.where(rng.random(1000) < 0.7, 0.3, -0.4)
        arms = [_networks(rng, num, 0.6, seed_sd, easy) for _ in range(2)]
        false += over_seeds_and_images(*arms).p_value <= 0.05
    # Five per cent are allowed; five standard deviations of 400 runs above it.
    assert false / runs <= 0.05 + 5 * np.sqrt(0.05 * 0.95 / runs)


def test_a_test_over_images_alone_would_call_it_one_far_too_often() -> None:
    """What the test is for: with an effect of the seed, images alone mislead."""
    rng = np.random.default_rng(1)
    alone = together = 0
    for _ in range(200):
        easy = np.where(rng.random(5000) < 0.7, 0.3, -0.4)
        arms = [_networks(rng, 3, 0.6, 0.03, easy) for _ in range(2)]
        per_image = np.mean(arms[0], axis=0) - np.mean(arms[1], axis=0)
        error = per_image.std(ddof=1) / np.sqrt(per_image.size)
        alone += abs(per_image.mean()) > 1.96 * error
        together += over_seeds_and_images(*arms).p_value <= 0.05
    assert alone > 80 and together < 30


def test_a_difference_of_the_detectable_size_is_found_about_as_often_as_said() -> None:
    rng = np.random.default_rng(2)
    found, sizes = 0, []
    for _ in range(400):
        easy = np.where(rng.random(2000) < 0.7, 0.3, -0.4)
        first = _networks(rng, 3, 0.64, 0.008, easy)
        second = _networks(rng, 3, 0.60, 0.008, easy)
        test = over_seeds_and_images(first, second)
        found += test.p_value <= 0.05
        sizes.append(test.detectable)
    assert found / 400 > 0.6 and np.median(sizes) < 0.06


def test_pairs_by_seed_take_the_common_effect_of_a_parent_out() -> None:
    rng = np.random.default_rng(3)
    easy = np.where(rng.random(2000) < 0.7, 0.3, -0.4)
    first, second = [], []
    for _ in range(3):
        parent = 0.05 * rng.standard_normal()
        first += _networks(rng, 1, 0.63 + parent, 0.002, easy)
        second += _networks(rng, 1, 0.60 + parent, 0.002, easy)
    paired = over_seeds_and_images(first, second, is_paired=True)
    apart = over_seeds_and_images(first, second)
    assert paired.difference == pytest.approx(apart.difference)
    assert paired.high - paired.low < apart.high - apart.low


def test_it_is_symmetric_and_the_interval_holds_the_difference() -> None:
    rng = np.random.default_rng(4)
    easy = np.zeros(500)
    one, other = (_networks(rng, 3, level, 0.02, easy) for level in (0.5, 0.6))
    there, back = over_seeds_and_images(one, other), over_seeds_and_images(other, one)
    assert there.difference == -back.difference
    assert there.p_value == pytest.approx(back.p_value)
    assert there.low < there.difference < there.high and there.low == pytest.approx(-back.high)


def test_what_cannot_be_tested_is_refused() -> None:
    right = np.ones(10, dtype=bool)
    with pytest.raises(ValueError, match="two trainings"):
        over_seeds_and_images([right], [right, right])
    with pytest.raises(ValueError, match="same images"):
        over_seeds_and_images([right] * 2, [right[:5]] * 2)
    with pytest.raises(ValueError, match="pairs"):
        over_seeds_and_images([right] * 2, [right] * 3, is_paired=True)
    same = over_seeds_and_images([right] * 2, [right] * 2)
    assert same.p_value == 1.0 and same.difference == 0.0
