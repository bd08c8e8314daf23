"""What the harness adds to the attacks and bounds themselves.

    python perf/overhead.py [ENTRY] [--n 500] [--at-most 1.05]

One evaluation is timed from outside, and inside it every call of the attacks (PGD-50 and the
AutoAttack package) and of the bounds. The ratio is (whole evaluation) / (those calls); loading,
clean accuracy, re-measurement of every adversarial image, chunks and progress make up the rest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Job, verdict

from benchmark.certify import BoundedModel
from benchmark.stages.autoattack import AutoAttackStandard
from benchmark.stages.pgd import PGD

spent: dict[str, float] = {}


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, adding its seconds to `spent`."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    return wrapped


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

    build = AutoAttackStandard.build

    def build_timed(self: AutoAttackStandard, *args: Any) -> Any:
        suite = build(self, *args)
        suite.run_standard_evaluation = timed("AutoAttack", suite.run_standard_evaluation)
        return suite

    AutoAttackStandard.build = build_timed  # type: ignore[method-assign]
    PGD.propose = timed("PGD-50", PGD.propose)  # type: ignore[method-assign]
    BoundedModel.margins = timed("bounds", BoundedModel.margins)  # type: ignore[method-assign]

    start = time.perf_counter()
    Job(options.entry, options.n, options.data_root).evaluate("overhead")
    total = time.perf_counter() - start
    for name, seconds in sorted(spent.items()):
        print(f"{name}: {seconds:.2f} s")
    print(f"whole evaluation: {total:.2f} s")
    verdict(total / sum(spent.values()), at_most=options.at_most)


if __name__ == "__main__":
    main()
