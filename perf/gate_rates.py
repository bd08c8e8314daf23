"""How often the gate is wrong, and how many images it needs: a simulation.

    python perf/gate_rates.py [--n 500] [--simulations 10000] [--metrics 7] [--max-drop 1]
        [--alpha 0.05] [--drops 0,1,2,3,5,10] [--churns 0.02,0.05] [--independent]

A candidate truly loses `drop` points in every metric against its baseline; besides, on a share of
the images one of the two is right by chance (churn), as after another training. Metrics of one
image depend on each other: whoever is proven is unbroken, whoever is unbroken is right.
`--independent` draws other images for each metric instead, where a correction has least to spare.
For each drop the table says how often the gate is red, on all images and with early stopping, how
often the two disagree, and the share of the images that were looked at. The last line is the
largest share of red, on all images or with early stopping, where the true loss is no more than
allowed; exit code 1 above --at-most, which is alpha and three standard errors by default.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from common import verdict

from corobench.benchmark.gate.rule import Paired, Rule, Verdict, judge, worst
from corobench.benchmark.gate.sequential import looks, settled

#: Shares right of the baseline: clean, then per epsilon PGD-50, AutoAttack, certified.
LEVELS = (0.95, 0.90, 0.89, 0.85, 0.75, 0.74, 0.70)


def simulated(
    random: np.random.Generator, shape: tuple[int, int], drop: float, churn: float, *, apart: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Right or not, of baseline and candidate, each (metrics, n).

    Each image has a difficulty; a metric gets right what is easier than its level. Churn moves the
    candidate's difficulty by chance without changing its distribution.

    Args:
        random: the draws.
        shape: (metrics, n).
        drop: true loss, a share.
        churn: share of the images.
        apart: whether each metric has images of its own.
    """
    size = shape if apart else (1, shape[1])
    difficulty = random.random(size)
    levels = np.array(LEVELS[: shape[0]])[:, None]
    moved = np.where(random.random(size) < churn, random.random(size), difficulty)
    return difficulty < levels, moved < levels - drop


def counts(baseline: np.ndarray, candidate: np.ndarray, n: int) -> list[Paired]:
    baseline, candidate = baseline[:, :n], candidate[:, :n]
    columns = (baseline, candidate, baseline & ~candidate, candidate & ~baseline)
    totals = np.stack([column.sum(axis=1) for column in columns], axis=1)
    return [Paired(str(number), "", n, *map(int, row)) for number, row in enumerate(totals)]


def compared(sides: tuple[np.ndarray, np.ndarray], rule: Rule) -> tuple[bool, bool, int]:
    """Whether one comparison is red on all images, and with early stopping after how many."""
    total = sides[0].shape[1]
    whole = worst([one.verdict for one in judge(counts(*sides, total), rule)]) == Verdict.FAIL
    sizes = looks(total)
    for n in sizes:
        judged = settled(counts(*sides, n), n, sizes, rule)
        if judged is not None:
            break
    return whole, worst([one.verdict for one in judged]) == Verdict.FAIL, n


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--metrics", type=int, choices=range(1, 8), default=7)
    parser.add_argument("--max-drop", type=float, default=Rule().max_drop)
    parser.add_argument("--alpha", type=float, default=Rule().alpha)
    parser.add_argument("--drops", default="0,1,2,3,5,10")
    parser.add_argument("--churns", default="0.02,0.05")
    parser.add_argument("--independent", action="store_true")
    parser.add_argument("--at-most", type=float)
    options = parser.parse_args()
    rule = Rule(max_drop=options.max_drop, alpha=options.alpha)
    random, shape, num = np.random.default_rng(0), (options.metrics, options.n), options.simulations
    print(f"n {options.n}, {options.metrics} metrics, {rule}, {num} simulations each")
    print(f"{'drop':>6}{'churn':>7}{'red, all':>10}{'red, early':>12}{'differ':>8}{'images':>8}")
    false_alarms = 0.0
    for churn in map(float, options.churns.split(",")):
        for drop in map(float, options.drops.split(",")):
            runs = [
                compared(
                    simulated(random, shape, drop / 100, churn, apart=options.independent), rule
                )
                for _ in range(num)
            ]
            whole, early, images = (np.array(column) for column in zip(*runs, strict=True))
            print(
                f"{drop:>6g}{churn:>7g}{whole.mean():>10.2%}{early.mean():>12.2%}"
                f"{(whole != early).mean():>8.2%}{images.mean() / options.n:>8.0%}",
                flush=True,
            )
            if drop <= rule.max_drop:
                false_alarms = max(false_alarms, whole.mean(), early.mean())
    noise = 3 * math.sqrt(rule.alpha * (1 - rule.alpha) / num)
    verdict(false_alarms, at_most=options.at_most or rule.alpha + noise)


if __name__ == "__main__":
    main()
