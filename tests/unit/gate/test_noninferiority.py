"""The test of "lost no more than allowed": references, exact error rates, power."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binom, multinomial, norm
from statsmodels.stats.contingency_tables import mcnemar

from corobench.benchmark.gate.noninferiority import MISSED, fewest_lost, p_value, score

MARGINS = (0.0, 0.01, 0.05, 0.3)


@pytest.mark.parametrize(("lost", "won"), [(1, 0), (5, 2), (20, 4), (4, 20), (60, 40)])
def test_without_a_margin_the_score_is_mcnemars(lost: int, won: int) -> None:
    reference = mcnemar([[100, lost], [won, 20]], exact=False, correction=False).statistic
    assert float(score(lost, won, 500, 0.0)) ** 2 == pytest.approx(reference)
    assert float(score(0, 0, 500, 0.0)) == 0.0


@pytest.mark.parametrize("margin", MARGINS[1:])
@pytest.mark.parametrize(("lost", "won"), [(9, 0), (0, 9), (20, 4), (31, 30)])
def test_the_score_has_the_likeliest_share_at_the_margin(
    lost: int, won: int, margin: float
) -> None:
    """The same number from a numerical search for the share, instead of the closed form."""
    n = 100

    def unlikely(share: float) -> float:
        return -float(multinomial.logpmf([lost, won, n - lost - won], n, [*_cells(share, margin)]))

    top = (1 - margin) / 2
    share = minimize_scalar(unlikely, bounds=(0, top), options={"xatol": 1e-12}).x
    spread = np.sqrt(n * (2 * share + margin - margin**2))
    expected = (lost - won - n * margin) / spread
    assert float(score(lost, won, n, margin)) == pytest.approx(expected, abs=1e-4)


def _cells(share: float, loss: float) -> tuple[float, float, float]:
    return share + loss, share, max(0.0, 1 - 2 * share - loss)


@pytest.mark.parametrize("n", [5, 30])
@pytest.mark.parametrize("margin", MARGINS)
def test_more_lost_or_fewer_won_is_a_larger_score(n: int, margin: float) -> None:
    """Then the margin itself is the worst of all allowed losses, and no smaller one is tried."""
    for won in range(n + 1):
        lost = np.arange(n - won + 1)
        beyond = lost - won - n * margin > 1e-9
        scores = score(lost, np.full_like(lost, won), n, margin)
        assert (np.diff(scores[beyond]) > 0).all()
        if won:
            assert (scores < score(lost, np.full_like(lost, won - 1), n, margin))[beyond].all()


@pytest.mark.parametrize("n", [6, 12])
@pytest.mark.parametrize("margin", MARGINS)
def test_the_p_value_is_the_one_of_brute_force(n: int, margin: float) -> None:
    """All counts and a grid of all shares; n is so small that no share is ruled out."""
    counts = np.array([(b, c) for c in range(n + 1) for b in range(n - c + 1)])
    scores = score(*counts.T, n, margin)
    every = np.column_stack([counts, n - counts.sum(axis=1)])
    shares = np.linspace(0, (1 - margin) / 2, 401)
    chances = np.array([multinomial.pmf(every, n, _cells(share, margin)) for share in shares])
    for (lost, won), least in zip(counts.tolist(), scores, strict=True):
        found = p_value(lost, won, n, margin)
        if lost - won - n * margin <= 1e-9:
            assert found == 1.0
            continue
        worst = float(chances[:, scores >= least - 1e-9].sum(axis=1).max())
        assert found == pytest.approx(worst + MISSED, rel=2e-4)


def test_known_p_values() -> None:
    # all n lost, where 0.2 may be: the likeliest way is to lose 0.6 of all and to win 0.4
    assert p_value(3, 0, 3, 0.2) == pytest.approx(0.6**3 + MISSED)
    assert p_value(5, 0, 500, 0.01) == p_value(0, 3, 500, 0.0) == p_value(0, 0, 1, 0.0) == 1.0
    assert p_value(500, 0, 500, 1.0) == 1.0
    # many images: the normal approximation is as good as exact
    lost = 1250
    assert p_value(lost, 1000, 10_000, 0.02) == pytest.approx(
        float(norm.sf(score(lost, 1000, 10_000, 0.02))), rel=0.02
    )


@pytest.mark.parametrize("bad", [(-1, 0, 5, 0.0), (0, -1, 5, 0.0), (4, 2, 5, 0.0), (1, 0, 5, -0.1)])
def test_impossible_counts_are_refused(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="Expected lost >= 0"):
        p_value(*bad)


def test_the_fewest_lost_reach_the_score_and_one_less_does_not() -> None:
    won = np.arange(60)
    fewest = fewest_lost(won, 1.7, 100, 0.02)
    possible = fewest + won <= 100
    assert possible[:40].all() and (fewest[~possible] == 101 - won[~possible]).all()
    assert (score(fewest, won, 100, 0.02)[possible] >= 1.7).all()
    assert (score(fewest - 1, won, 100, 0.02) < 1.7).all()


def rejecting(won: NDArray[np.int64], n: int, margin: float, alpha: float) -> NDArray[np.int64]:
    """The fewest lost that are rejected, for each number won, found from p-values alone."""
    found, lost = [], 0
    for count in won.tolist():
        lost = max(lost, int(count + n * margin))
        while count + lost <= n and p_value(lost, count, n, margin) > alpha:
            lost += 1
        while lost and count + lost - 1 <= n and p_value(lost - 1, count, n, margin) <= alpha:
            lost -= 1
        found.append(lost)
    return np.array(found)


def rejected(share: float, loss: float, n: int, margin: float, alpha: float) -> float:
    """How often the test rejects, exactly: summed over all counts but a share of 1e-6."""
    first, last = (int(end) for end in binom.interval(1 - 1e-6, n, share))
    won = np.arange(first, last + 1)
    fewest = rejecting(won, n, margin, alpha)
    to_lose = min(1.0, (share + loss) / (1 - share))
    return float((binom.pmf(won, n, share) * binom.sf(fewest - 1, n - won, to_lose)).sum())


@pytest.mark.parametrize(
    ("n", "shares"),
    [
        (100, (0.0, 0.002, 0.01, 0.03, 0.1, 0.3)),
        (500, (0.0, 0.002, 0.01, 0.03, 0.1)),
        (1000, (0.0, 0.0005, 0.002, 0.01, 0.05)),
        (10_000, (0.0, 0.0002, 0.002)),
    ],
)
@pytest.mark.parametrize("margin", [0.0, 0.01])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_the_error_rate_is_at_most_alpha_and_near_it(
    n: int, shares: tuple[float, ...], margin: float, alpha: float
) -> None:
    """Exact, so that there is no simulation error: at the margin, within it, at all churns."""
    rates = [rejected(share, margin, n, margin, alpha) for share in shares]
    assert max(rates) <= alpha
    assert max(rates) >= (0.4 if n == 100 else 0.6) * alpha, "it need not be as cautious as that"
    for share in shares:
        assert rejected(share, margin / 2, n, margin, alpha) <= alpha


def test_it_finds_what_is_there() -> None:
    """Twice the allowed loss on 10,000 images; three points more than allowed on 500."""
    assert rejected(0.002, 0.02, 10_000, 0.01, 0.05 / 7) > 0.99
    assert rejected(0.01, 0.04, 500, 0.01, 0.05) > 0.85
    assert rejected(0.01, 0.03, 500, 0.0, 0.05) > 0.9
