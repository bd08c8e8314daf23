"""How often the gate is wrong, and how many images it needs: a simulation.

    python perf/gate_rates.py [--n 500] [--simulations 10000] [--epsilons 2]

A candidate loses `drop` points in every metric against its baseline; besides, on a share of the
images one of the two is right by chance (churn), as after another training. Metrics of one image
depend on each other: whoever is certified is not attacked, whoever is not attacked is right. For
each drop the table says how often the gate is red, on all images and with early stopping, how often
the two disagree, and the share of the images that were looked at. The last line is the share of
false alarms at no drop, with early stopping; exit code 1 above --at-most.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import verdict

from benchmark.gate.rule import Paired, Rule, Verdict, judge, worst
from benchmark.gate.sequential import looks, settled

#: Shares right of the baseline: clean, then per epsilon PGD-50, AutoAttack, certified.
LEVELS = (0.95, 0.90, 0.89, 0.85, 0.75, 0.74, 0.70)


def simulated(
    random: np.random.Generator, n: int, num_metrics: int, drop: float, churn: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right or not, (metrics, n), of baseline and candidate.

    Each image has a difficulty; a metric gets right what is easier than its level. Churn moves the
    candidate's difficulty by chance without changing its distribution.
    """
    difficulty = random.random(n)
    levels = np.array(LEVELS[:num_metrics])[:, None]
    moved = np.where(random.random(n) < churn, random.random(n), difficulty)
    return difficulty < levels, moved < levels - drop


def counts(baseline: np.ndarray, candidate: np.ndarray, n: int) -> list[Paired]:
    baseline, candidate = baseline[:, :n], candidate[:, :n]
    columns = (baseline, candidate, baseline & ~candidate, candidate & ~baseline)
    totals = np.stack([column.sum(axis=1) for column in columns], axis=1)
    return [Paired(str(number), "", n, *map(int, row)) for number, row in enumerate(totals)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--epsilons", type=int, choices=(1, 2), default=2)
    parser.add_argument("--drops", default="0,1,2,3,5,10")
    parser.add_argument("--churns", default="0.02,0.05")
    parser.add_argument("--at-most", type=float, default=0.05)
    options = parser.parse_args()
    num_metrics, rule = 1 + 3 * options.epsilons, Rule()
    random = np.random.default_rng(0)
    print(f"n {options.n}, {num_metrics} metrics, {rule}, {options.simulations} simulations each")
    print(f"{'drop':>6}{'churn':>7}{'red, all':>10}{'red, early':>12}{'differ':>8}{'images':>8}")
    false_alarms = 0.0
    for churn in map(float, options.churns.split(",")):
        for drop in map(float, options.drops.split(",")):
            red_all = red_early = differ = images = 0
            for _ in range(options.simulations):
                sides = simulated(random, options.n, num_metrics, drop / 100, churn)
                whole = judge(counts(*sides, options.n), rule)
                is_red = worst([one.verdict for one in whole]) == Verdict.FAIL
                for n in looks(options.n):
                    early = settled(counts(*sides, n), options.n, rule) if n < options.n else None
                    if early is not None:
                        break
                now = is_red if early is None else Verdict.FAIL in early
                red_all += is_red
                red_early += now
                differ += now != is_red
                images += n
            shares = [count / options.simulations for count in (red_all, red_early, differ)]
            share_of_images = images / options.simulations / options.n
            print(
                f"{drop:>6g}{churn:>7g}{shares[0]:>10.2%}{shares[1]:>12.2%}{shares[2]:>8.2%}"
                f"{share_of_images:>8.0%}",
                flush=True,
            )
            if drop == 0:
                false_alarms = max(false_alarms, shares[1])
    verdict(false_alarms, at_most=options.at_most)


if __name__ == "__main__":
    main()
