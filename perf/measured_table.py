"""Markdown table of result folders, one row per entry and seed, for the README.

    python perf/measured_table.py RESULTS...

RESULTS are folders that `corobench evaluate` or `corobench quickstart` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmark.scoring import bracket
from benchmark.store import read_result


def main() -> None:
    paths = sorted(
        path for root in sys.argv[1:] for path in Path(root).rglob("*.json") if path.is_file()
    )
    results = [read_result(path) for path in paths]
    results.sort(key=lambda result: (result.track, result.entry))
    radii = list(dict.fromkeys(radius for result in results for radius in result.epsilons))
    brackets = " | ".join(f"certified – not attacked, {radius}" for radius in radii)
    print(f"| entry | n | non-zero parameters | clean | {brackets} |")
    print("|---|---|---|---|" + "---|" * len(radii))
    for result in results:
        cells = []
        for radius in radii:
            score = result.epsilons.get(radius)
            if score is None:
                cells.append("–")
                continue
            low, high = bracket(score)
            cells.append(f"{100 * low / result.n:.1f} – {100 * high / result.n:.1f}")
        print(
            f"| {result.entry} | {result.n} | {result.compactness.num_nonzero:,} "
            f"| {100 * result.clean / result.n:.1f} | {' | '.join(cells)} |"
        )


if __name__ == "__main__":
    main()
