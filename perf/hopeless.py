"""Whether searches that are given up early would have ended with a proof.

    python perf/hopeless.py ENTRY --epsilon 1/10 [--n 400] [--searches 100]

Images that IBP and CROWN-IBP leave open and PGD-50 does not break go to branch and bound with 500
subdomains, and none is given up for what its first splits gain. One line for each search that came
to tightening: how it ended, how many more splits it needed by then, its subdomains, its seconds.
The last line is the largest need of a search that ended with a proof; the bar is the protocol's
limit.
"""

from __future__ import annotations

import argparse
import math
import time
from fractions import Fraction
from pathlib import Path

import torch
from common import verdict

from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import BranchBudget, Prover
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.referee import threat
from corobench.benchmark.submission import load_submission


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("entry", type=Path)
    parser.add_argument("--epsilon", type=Fraction, required=True)
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--searches", type=int, default=100, help="at most so many images")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    submission = load_submission(options.entry)
    model, track = submission.model.eval().requires_grad_(False), submission.track
    images, labels, _ = subset(load_test(track.name, options.data_root), options.n)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    with torch.no_grad():
        right = torch.cat([model(image) for image in x.split(1)]).argmax(dim=1) == y
    x, y = x[right], y[right]
    prover = Prover(model, track.shape, track.num_classes)
    low, high = threat.box(x, options.epsilon)
    left = ~PGD().run(model, x, y, options.epsilon, 0).broken_B
    for method in ("IBP", "CROWN-IBP"):
        left &= ~prover.prove(method, low, high, y).certified_B
    budget = BranchBudget(max_subdomains=500, hopeless_splits=math.inf)
    needs = {"certified": [0.0], "refuted": [0.0], "open": [math.inf]}
    for image in left.nonzero().flatten().tolist()[: options.searches]:
        start, rows = time.thread_time(), slice(image, image + 1)
        (found,) = prover.search("BaB", low[rows], high[rows], y[rows], budget)
        if found.splits_left:
            needs[found.status].append(found.splits_left)
            seconds = time.thread_time() - start
            print(
                f"{found.status:<10} needed {found.splits_left:5.1f} more splits, "
                f"{found.num_subdomains:3d} subdomains, {seconds:5.1f} s",
                flush=True,
            )
    limit = BranchBudget().hopeless_splits
    num_early = sum(need > limit for need in needs["open"]) - 1
    print(f"given up early {num_early} of {len(needs['open']) - 1} that stay open")
    verdict(max(needs["certified"] + needs["refuted"]), at_most=limit)


if __name__ == "__main__":
    main()
