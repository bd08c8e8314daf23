"""Intervals against simulation and closed forms."""

import numpy as np
import pytest

from benchmark.statistics import holm, mcnemar_exact, wilson


def test_wilson_by_its_formula() -> None:
    z, p, n = 1.959963984540054, 0.8, 50
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert wilson(40, 50) == pytest.approx((centre - half, centre + half))


def test_wilson_never_claims_certainty() -> None:
    assert wilson(0, 10).high > 0.2
    assert wilson(10, 10).low < 0.8


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_wilson_coverage_by_simulation(p: float) -> None:
    n = 200
    drawn = np.random.default_rng(0).binomial(n, p, size=4000)
    intervals = {k: wilson(int(k), n) for k in set(drawn.tolist())}
    covered = np.mean([intervals[int(k)].low <= p <= intervals[int(k)].high for k in drawn])
    assert covered == pytest.approx(0.95, abs=0.025)


def test_wilson_refuses_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(11, 10)


def test_mcnemar_counts_only_discordant_pairs() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(1, 9) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_exact(9, 1) == mcnemar_exact(1, 9)


def test_holm_by_hand_and_its_order() -> None:
    """R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]
