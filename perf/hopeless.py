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

from common import open_boxes, verdict

from corobench.benchmark.certify import BranchBudget


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
    methods = ("IBP", "CROWN-IBP")
    boxes = open_boxes(options.entry, options.n, options.epsilon, options.data_root, methods)
    budget = BranchBudget(max_subdomains=500, hopeless_splits=math.inf, hopeless_dives=math.inf)
    tightened = []
    for image in boxes.left[: options.searches]:
        start, rows = time.thread_time(), slice(image, image + 1)
        (found,) = boxes.prover.search(
            "BaB", boxes.low[rows], boxes.high[rows], boxes.labels[rows], budget
        )
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
