"""Verify first against attacking every correct image: seconds of both, flags compared.

    python perf/verify_first.py [ENTRY] [--n 1000] [--epsilons 2/255] [--closing] [--at-least 10]

ENTRY is a submission folder, trained for certification; by default the reference entry on
Fashion-MNIST, which takes about a quarter of an hour on one core. Both ways run PGD-50 and
AutoAttack with the protocol's settings on the same images in one process. The first asks IBP,
CROWN-IBP and CROWN about every correct image before; with --closing also alpha-CROWN and branch
and bound about what is open after PGD-50, as an evaluation does. The ratio is (attack everything,
and the same certifiers) / (verify, then attack the rest and the audit), in processor seconds of
one thread. Exit code 1 below the bar, or where one flag differs.
The audit (50 images that the cheap certifiers proved, and up to 50 that the closing ones proved)
is attacked in full and weighs more the smaller n is.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from common import Job, cpu_timed, verdict

from corobench.benchmark.certify import stage as stage_certify


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    reference = Path(__file__).parents[1] / "submissions" / "fashion-mnist-ibp-dense"
    parser.add_argument("entry", type=Path, nargs="?", default=reference)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--at-least", type=float, default=10.0)
    parser.add_argument("--epsilons", help="radii instead of the track's, such as 2/255")
    parser.add_argument("--closing", action="store_true", help="alpha-CROWN, branch and bound, too")
    options = parser.parse_args()
    epsilons = tuple(options.epsilons.split(",")) if options.epsilons else None
    job = Job(options.entry, options.n, options.data_root, epsilons, options.closing)

    torch.set_num_threads(1)
    spent: dict[str, float] = {}
    stage_certify.certify_chunk = cpu_timed(spent, "certify", stage_certify.certify_chunk)
    stage_certify.close_chunk = cpu_timed(spent, "certify", stage_certify.close_chunk)
    ways = {"verify first": True, "attack all": False}
    facts = [
        cpu_timed(spent, name, job.evaluate)(name, verify_first=first)
        for name, first in ways.items()
    ]
    first, everything = facts
    differing = 0
    for epsilon, known in first.epsilons.items():
        other = everything.epsilons[epsilon]
        robust_first = first.correct & ~known.broken["autoattack"]
        robust_other = everything.correct & ~other.broken["autoattack"]
        contradictions = int((known.proven & (other.broken_by != "")).sum())
        differ = int((robust_first != robust_other).sum())
        differing += differ + contradictions
        print(
            f"{epsilon}: {int(first.correct.sum())} correct, {int(known.proven.sum())} proven, "
            f"robust {int(robust_first.sum())} / {int(robust_other.sum())}, "
            f"{differ} flags differ, {contradictions} proven images broken"
        )
    print(f"verify first {spent['verify first']:.1f} s (of it certify {spent['certify']:.1f} s)")
    print(f"attack every correct image {spent['attack all']:.1f} s")
    alone = spent["attack all"] / spent["verify first"]
    print(f"without the certifiers on the other side: {alone:.3g}")
    if differing:
        print(f"{differing} robust flags differ or contradict: exit code 1 whatever the ratio")
    bar = math.inf if differing else options.at_least
    both = spent["attack all"] + spent["certify"]
    verdict(both / spent["verify first"], at_least=bar)


if __name__ == "__main__":
    main()
