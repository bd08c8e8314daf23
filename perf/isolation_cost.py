"""What a process of its own costs a command.

    python perf/isolation_cost.py [ENTRY] [--repeats 5] [--at-most 1.5]

`corobench validate` is the shortest command that opens a network, so that the cost shows most. It
is run with and without a process of its own, in turns, each time from a fresh Python. The ratio is
(median with) / (median without) of the wall-clock seconds; on a busy machine look at the medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import verdict


def main() -> None:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("entry", type=Path, nargs="?", default=root / "submissions" / "_template")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--at-most", type=float, default=1.5)
    options = parser.parse_args()
    spent: dict[str, list[float]] = {"--isolate": [], "--no-isolate": []}
    for _ in range(options.repeats):
        for option, seconds in spent.items():
            command = [sys.executable, "-m", "corobench", "validate", str(options.entry), option]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    for option, seconds in spent.items():
        shown = ", ".join(f"{one:.2f}" for one in seconds)
        print(f"{option}: median {statistics.median(seconds):.2f} s of {shown}")
    with_, without = (statistics.median(seconds) for seconds in spent.values())
    verdict(with_ / without, at_most=options.at_most)


if __name__ == "__main__":
    main()
