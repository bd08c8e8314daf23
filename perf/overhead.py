"""What the harness adds to the attacks and bounds themselves.

    python perf/overhead.py [ENTRY] [--n 500] [--at-most 1.05]

One evaluation is timed from outside, and inside it every call of the attacks (PGD-50 and the
AutoAttack package) and of the bounds: conversion of the network, claims, searches and the
checker. The ratio is (whole evaluation) / (those calls) in processor seconds of one thread; loading
images and weights, clean accuracy, re-measurement of every adversarial image, health checks, chunks
and progress make up the rest. Importing packages (torch, scikit-learn, the attack and the bound
package), which happens once in a process for however many entries, is told apart.
"""

from __future__ import annotations

import argparse
import importlib
import time
from functools import partial
from pathlib import Path

import torch
from common import Job, cpu_timed, verdict

from corobench.benchmark.attacks.autoattack import AutoAttackStandard
from corobench.benchmark.attacks.pgd import PGD
from corobench.benchmark.certify import Prover
from corobench.benchmark.certify.lirpa import compat as lirpa_compat

spent: dict[str, float] = {}
timed = partial(cpu_timed, spent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    root = Path(__file__).parents[1]
    parser.add_argument("entry", type=Path, nargs="?", default=root / "submissions" / "_template")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--at-most", type=float, default=1.05)
    options = parser.parse_args()

    AutoAttackStandard.propose = timed(  # type: ignore[method-assign]
        "AutoAttack", AutoAttackStandard.propose
    )
    PGD.propose = timed("PGD-50", PGD.propose)  # type: ignore[method-assign]
    for name in ("__init__", "prove", "search"):
        setattr(Prover, name, timed("bounds", getattr(Prover, name)))

    torch.set_num_threads(1)
    for package in ("pyautoattack", "sklearn.datasets"):
        importlib.import_module(package)
    lirpa_compat.load()
    start = time.process_time()
    Job(options.entry, options.n, options.data_root).evaluate("overhead")
    total = time.process_time() - start
    print(f"imports: {start:.2f} s")
    for name, seconds in sorted(spent.items()):
        print(f"{name}: {seconds:.2f} s")
    print(f"whole evaluation: {total:.2f} s")
    verdict(total / sum(spent.values()), at_most=options.at_most)


if __name__ == "__main__":
    main()
