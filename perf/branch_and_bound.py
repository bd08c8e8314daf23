"""Does branch and bound still decide what a published result says, and what does it cost?

    python perf/branch_and_bound.py [RESULT] [--epsilon 1/10] [--n 1000] [--data-root DIR]

RESULT is a result file under `leaderboard/results`, whose entry lies in `submissions`. The images
that came to branch and bound there, those that it proved and those left undecided, are searched
again with the protocol's budget. Prints processor seconds per image of both kinds, and how many of
the undecided ones are proven now; the last line is the share of the proven ones that is lost, at
most 0.02: rounding of another processor or version may move an image that needs all subdomains.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import torch
from common import cpu_timed, verdict

from corobench.benchmark.certify import BRANCHING, Prover
from corobench.benchmark.certify.stage import close_chunk
from corobench.benchmark.data import load_test, subset
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.submission import load_submission
from corobench.benchmark.tracks import Protocol, get_track

ROOT = Path(__file__).parents[1]
RESULT = "leaderboard/results/1.0/fashion-mnist/fashion-mnist-adv-dense.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("result", nargs="?", type=Path, default=ROOT / RESULT)
    parser.add_argument("--epsilon", default="1/10")
    parser.add_argument("--n", type=int, default=1000, help="at most so many images")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table, run = read_outcomes(beside(options.result, "outcomes.parquet"))
    here = table[
        (table.epsilon == options.epsilon) & table.outcome.isin(["certified", "undecided"])
    ]
    asked = here[(here.outcome == "undecided") | (here.decided_by == "BaB")].head(options.n)
    track, protocol = get_track(run.track), Protocol()
    model = load_submission(ROOT / "submissions" / run.entry).model
    prover = Prover(model, track.shape, track.num_classes)
    images, labels, _ = subset(load_test(track.name, options.data_root), run.n)
    spent = {"proven": 0.0, "open": 0.0}
    counts = {"proven": 0, "open": 0}
    lost, won = [], 0
    for row in asked.itertuples():
        place = slice(row.position, row.position + 1)
        x, y = torch.from_numpy(images[place]), torch.from_numpy(labels[place])
        kind = "proven" if row.outcome == "certified" else "open"
        search = cpu_timed(spent, kind, close_chunk)
        found = search(prover, BRANCHING, model, x, y, Fraction(options.epsilon), protocol)
        counts[kind] += 1
        is_proven = bool(found.certified_B)
        if kind == "proven" and not is_proven:
            lost.append(row.image)
        won += kind == "open" and is_proven
    for kind, seconds in spent.items():
        each = seconds / max(1, counts[kind])
        print(f"{kind} in the result: {counts[kind]} images, {seconds:.1f} s, {each:.3f} s each")
    print(f"open in the result and proven now: {won}; proven there and not now: {lost or 'none'}")
    verdict(len(lost) / max(1, counts["proven"]), at_most=0.02)


if __name__ == "__main__":
    main()
