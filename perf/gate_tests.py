"""Which test of "lost no more than allowed" keeps alpha, and which has power? Exact, no simulation.

    python perf/gate_tests.py [--n 100,500,1000,10000] [--max-drop 1] [--alpha 0.05]

One metric of n images. Tried are shares of images that the candidate alone has right, from none to
a tenth. For each test the table says the largest chance of red at a true loss of exactly
--max-drop (`size`), and for a true loss of --loss the chance of red at the smallest and at the
largest of these shares (`power`). All chances are summed over all counts. The tests:

- mcnemar: a larger drop than allowed, and the exact two-sided McNemar test; the gate's until 2026
- wald: the excess over its estimated standard error (Liu et al. 2002), normal approximation
- score: Tango's score (1998), normal approximation
- conditional: binomial given how many images differ, at the least share of such images that the
  counts allow (Berger and Boos 1994)
- exact: the gate's

The last line is the largest size of the gate's test; exit code 1 above alpha.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from common import verdict
from scipy.special import betaincinv
from scipy.stats import binom, norm

from corobench.benchmark.gate.noninferiority import fewest_lost, p_value, score
from corobench.benchmark.scoring.statistics import mcnemar_exact_many

SHARES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
LEFT_OUT = 1e-7
"""Chance of counts that are not summed."""

Rejects = Callable[[np.ndarray, np.ndarray, int, float, float], np.ndarray]


def mcnemar(lost: np.ndarray, won: np.ndarray, n: int, margin: float, alpha: float) -> np.ndarray:
    return (lost - won > n * margin + 1e-9) & (mcnemar_exact_many(lost, won) <= alpha)


def wald(lost: np.ndarray, won: np.ndarray, n: int, margin: float, alpha: float) -> np.ndarray:
    spread = np.sqrt(np.maximum(lost + won - (lost - won) ** 2 / n, 0))
    return (lost - won - n * margin > 1e-9) & (lost - won - n * margin >= norm.isf(alpha) * spread)


def approximate(
    lost: np.ndarray, won: np.ndarray, n: int, margin: float, alpha: float
) -> np.ndarray:
    return score(lost, won, n, margin) >= norm.isf(alpha)


def conditional(
    lost: np.ndarray, won: np.ndarray, n: int, margin: float, alpha: float
) -> np.ndarray:
    missed, differing = alpha / 50, lost + won
    least = np.where(
        differing > 0, betaincinv(np.maximum(differing, 1), n - differing + 1, missed), 0
    )
    to_lose = np.minimum(1.0, (1 + margin / np.maximum(least, 1e-300)) / 2) if margin else 0.5
    return binom.sf(lost - 1, differing, to_lose) + missed <= alpha


def exact(lost: np.ndarray, won: np.ndarray, n: int, margin: float, alpha: float) -> np.ndarray:
    chances = [p_value(int(b), int(c), n, margin) for b, c in zip(lost, won, strict=True)]
    return np.array(chances) <= alpha


TESTS: dict[str, Rejects] = {
    "mcnemar": mcnemar,
    "wald": wald,
    "score": approximate,
    "conditional": conditional,
    "exact": exact,
}


class Fewest:
    """The fewest lost images that a test rejects, for each number won: one above the last."""

    def __init__(self, rejects: Rejects, n: int, margin: float, alpha: float) -> None:
        self._rejects, self._rest = rejects, (n, margin, alpha)
        self._known: dict[int, int] = {}

    def __call__(self, won: np.ndarray) -> np.ndarray:
        return np.array([self._fewest(count) for count in won.tolist()])

    def _fewest(self, won: int) -> int:
        if won not in self._known:
            n, margin, alpha = self._rest
            start = self._known.get(won - 1, 0) + 1
            if start == 1:
                start = int(fewest_lost(np.array([won]), norm.isf(alpha), n, margin)[0])
            lost = min(start, n - won)
            while lost + won <= n and not self._is_red(lost, won):
                lost += 1
            while lost > 0 and self._is_red(lost - 1, won):
                lost -= 1
            self._known[won] = lost
        return self._known[won]

    def _is_red(self, lost: int, won: int) -> bool:
        return bool(self._rejects(np.array([lost]), np.array([won]), *self._rest)[0])


def red(fewest: Fewest, n: int, share: float, loss: float) -> float:
    """Chance of red at a true loss, where the candidate alone has this share of images right."""
    first, last = (int(end) for end in binom.interval(1 - LEFT_OUT, n, share))
    won = np.arange(max(first, 0), last + 1)
    to_lose = min(1.0, (share + loss) / (1 - share))
    return float(binom.pmf(won, n, share) @ binom.sf(fewest(won) - 1, n - won, to_lose))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", default="100,500,1000,10000")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--loss", type=float, default=3.0)
    options = parser.parse_args()
    margin, loss = options.max_drop / 100, options.loss / 100
    print(f"max-drop {options.max_drop:g}, alpha {options.alpha:g}, true loss {options.loss:g}")
    print(f"{'n':>6} {'test':<12}{'size':>8}{'power, none won':>17}{'power, a tenth':>16}")
    largest = 0.0
    for n in map(int, options.n.split(",")):
        for name, rejects in TESTS.items():
            fewest = Fewest(rejects, n, margin, options.alpha)
            size = max(red(fewest, n, share, margin) for share in SHARES)
            powers = [red(fewest, n, share, loss) for share in (SHARES[0], SHARES[-1])]
            print(f"{n:>6} {name:<12}{size:>8.2%}{powers[0]:>17.2%}{powers[1]:>16.2%}", flush=True)
            largest = max(largest, size if name == "exact" else 0.0)
    verdict(largest, at_most=options.alpha)


if __name__ == "__main__":
    main()
