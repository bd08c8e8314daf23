"""What certificates of the deployed network cost: two rounds of results, row by row.

    python perf/proof_cost.py [OLD] [NEW]

OLD and NEW are folders of rounds, by default leaderboard/results/1.0 and 1.1. For each result that
both hold, at each radius, the images certified before and after, and the seconds of all proofs.
Rows count as trained to be verified where their objective is a certified one. Last lines: images
lost per hundred on average over those rows, the most lost on any row, and the time as a ratio.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from corobench.benchmark.records.reading.result_file import read_scorecard
from corobench.benchmark.records.result import Outcome

ROOT = Path(__file__).parents[1]
VERIFIABLE = ("ibp", "crown-ibp", "mixtrain")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    results = ROOT / "leaderboard" / "results"
    parser.add_argument("old", type=Path, nargs="?", default=results / "1.0")
    parser.add_argument("new", type=Path, nargs="?", default=results / "1.1")
    options = parser.parse_args()
    lost, lost_verifiable, before_s, after_s = [], [], 0.0, 0.0
    for path in sorted(options.new.glob("*/*.json")):
        twin = options.old / path.relative_to(options.new)
        if not twin.is_file():
            continue
        old, new = read_scorecard(twin), read_scorecard(path)
        before_s, after_s = before_s + old.seconds.certify, after_s + new.seconds.certify
        method = new.submission.method
        for epsilon, score in new.epsilons.items():
            counts = [one.counts[Outcome.CERTIFIED] for one in (old.epsilons[epsilon], score)]
            change = 100 * (counts[0] - counts[1]) / new.n
            lost.append((change, f"{new.entry} (n = {new.n}) at {epsilon}"))
            if (method.finetune_objective or method.pretrain_objective) in VERIFIABLE:
                lost_verifiable.append(change)
            print(
                f"{new.entry:36} {new.n:6} {epsilon:>6} {counts[0]:5} -> {counts[1]:5} "
                f"{old.seconds.certify:7.0f} -> {new.seconds.certify:7.0f} s"
            )
    if not lost:
        parser.error(f"{options.new}: holds no result that {options.old} holds, too")
    most, where = max(lost)
    mean = sum(lost_verifiable) / max(1, len(lost_verifiable))
    print(f"{len(lost)} brackets; most lost: {most:.2f} points, {where}")
    print(
        f"lost on average where training was for proofs: {mean:.3f} points; "
        f"proofs took {after_s / max(before_s, 1e-9):.2f} times as long"
    )


if __name__ == "__main__":
    main()
