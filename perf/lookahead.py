"""What it saves to choose splits by what their halves gain once they are bounded.

    python perf/lookahead.py ENTRY --epsilon 3/10 [--n 200] [--max-subdomains 2000] [--searches 20]

Images that IBP, CROWN-IBP and CROWN leave open and PGD-50 does not break go to branch and bound
twice, with the splits chosen by bounds without optimisation and by a look ahead. Both refine images
that they meet, and nothing is given up early. One line for each search that came to tightening in
both: how it ended, its subdomains, its seconds of the processor. Then for either way how many were
decided, their subdomains and their seconds. The last line is the subdomains of the second way,
divided by those of the first, over the images that either decides; a search that stays open counts
with the subdomains that it had.
"""

from __future__ import annotations

import argparse
import math
import time
from fractions import Fraction
from pathlib import Path

from common import open_boxes, verdict

from corobench.benchmark.certify import BranchBudget

DECIDED = ("certified", "refuted")
WAYS = {"without": 0, "with": 4}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("entry", type=Path)
    parser.add_argument("--epsilon", type=Fraction, required=True)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--max-subdomains", type=int, default=2000)
    parser.add_argument("--searches", type=int, default=20, help="at most so many images")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    methods = ("IBP", "CROWN-IBP", "CROWN")
    boxes = open_boxes(options.entry, options.n, options.epsilon, options.data_root, methods)
    found: dict[str, list[tuple[str, int, float]]] = {name: [] for name in WAYS}
    for image in boxes.left:
        if len(found["with"]) == options.searches:
            break
        rows, line = slice(image, image + 1), {}
        for name, num_lookahead in WAYS.items():
            budget = BranchBudget(
                max_subdomains=options.max_subdomains,
                hopeless_splits=math.inf,
                hopeless_dives=math.inf,
                patience=math.inf,
                num_lookahead=num_lookahead,
                lookahead_above=0,
            )
            start = time.thread_time()
            (one,) = boxes.prover.search(
                "BaB", boxes.low[rows], boxes.high[rows], boxes.labels[rows], budget
            )
            if not one.splits_left:
                break
            line[name] = (one.status, one.num_subdomains, time.thread_time() - start)
        if len(line) == len(WAYS):
            print(f"image {image}: {line}", flush=True)
            for name, search in line.items():
                found[name].append(search)
    decided = [
        first[0] in DECIDED or second[0] in DECIDED
        for first, second in zip(found["without"], found["with"], strict=True)
    ]
    spent = {}
    for name, searches in found.items():
        ended = sum(status in DECIDED for status, _, _ in searches)
        spent[name] = sum(one[1] for one, counts in zip(searches, decided, strict=True) if counts)
        seconds = sum(one[2] for one, counts in zip(searches, decided, strict=True) if counts)
        print(
            f"{name} a look ahead: {ended} of {len(searches)} decided; the {sum(decided)} that "
            f"either way decides had {spent[name]} subdomains, {seconds:.1f} s"
        )
    verdict(spent["with"] / spent["without"] if spent["without"] else 1.0, at_most=1.0)


if __name__ == "__main__":
    main()
