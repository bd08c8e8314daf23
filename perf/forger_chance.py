"""How often a forger who hides images is missed: the formula beside a simulation.

    python perf/forger_chance.py [--repeats 20000] [--seed 0] [--at-most 0.05]

A result of n images claims `population` of them to be unbroken without a proof, and lies about 1 %
of n. `corobench intake` draws as many as `benchmark.review.verification.chance` says. Each repeat
draws the lies and the attacked images anew; the figure is the share of repeats in which no lie was
drawn, with its exact 95 % interval. The last column counts an attack that breaks a hidden image in
nine of ten cases only.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import verdict

from corobench.benchmark.review.verification.chance import (
    HIDDEN_RATE,
    MISS_RATE,
    chance_to_miss,
    num_drawn,
    num_hidden,
)
from corobench.benchmark.scoring.statistics import clopper_pearson

CASES = ((500, 100), (500, 400), (1000, 100), (1000, 500), (1000, 900), (10_000, 5000))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-most", type=float, default=MISS_RATE)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    print("| n | population | hidden | attacked | formula | simulated | 95 % | at 90 % |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    worst = 0.0
    for n, population in CASES:
        hidden = num_hidden(n, HIDDEN_RATE)
        drawn = num_drawn(population, hidden, MISS_RATE)
        missed = weak = 0
        for _ in range(options.repeats):
            lies = random.permutation(population)[:hidden]
            caught = int((random.permutation(population)[:drawn, None] == lies).sum())
            missed += caught == 0
            weak += bool((random.random(caught) >= 0.9).all())
        low, high = clopper_pearson(missed, options.repeats)
        worst = max(worst, low)
        print(
            f"| {n} | {population} | {hidden} | {drawn} "
            f"| {chance_to_miss(population, hidden, drawn):.4f} | {missed / options.repeats:.4f} "
            f"| {low:.4f}–{high:.4f} | {weak / options.repeats:.4f} |"
        )
    verdict(worst, at_most=options.at_most)


if __name__ == "__main__":
    main()
