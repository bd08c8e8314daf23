"""Whether searches that are given up early would have ended with a proof.

    python perf/hopeless.py ENTRY --epsilon 1/10 [--n 400] [--searches 100]

Images that IBP and CROWN-IBP leave open and PGD-50 does not break go to branch and bound with 500
subdomains, and none is given up for what its splits gain. One line for each search that came to
tightening: how it ended, how many more splits it needed by then and, at most, in its dives, its
subdomains, its seconds. Then for both limits the largest need of a search that was decided, and how
many of the others are above the limit. The last line is the larger share of its limit; the bar is
1.
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
    budget = BranchBudget(max_subdomains=500, hopeless_splits=math.inf, hopeless_dives=math.inf)
    tightened = []
    for image in left.nonzero().flatten().tolist()[: options.searches]:
        start, rows = time.thread_time(), slice(image, image + 1)
        (found,) = prover.search("BaB", low[rows], high[rows], y[rows], budget)
        if found.splits_left:
            tightened.append(found)
            seconds = time.thread_time() - start
            print(
                f"{found.status:<10} needed {found.splits_left:5.1f} more splits, "
                f"{found.dive_splits_left:5.1f} in dives, "
                f"{found.num_subdomains:3d} subdomains, {seconds:5.1f} s",
                flush=True,
            )
    shares = []
    limits = BranchBudget()
    for name, limit, key in (
        ("splits", limits.hopeless_splits, "splits_left"),
        ("dives", limits.hopeless_dives, "dive_splits_left"),
    ):
        needs = [(one.status == "open", getattr(one, key)) for one in tightened]
        decided = max([0.0, *(need for is_open, need in needs if not is_open)])
        early = [need > limit for is_open, need in needs if is_open]
        print(
            f"{name}: at most {decided:.1f} of {limit:g} where decided, "
            f"given up early {sum(early)} of {len(early)} that stay open"
        )
        shares.append(decided / limit)
    verdict(max(shares), at_most=1.0)


if __name__ == "__main__":
    main()
