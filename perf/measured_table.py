"""Markdown tables of result folders, for docs/results.md.

    python perf/measured_table.py RESULTS...
    python perf/measured_table.py leaderboard/results/1.0/fashion-mnist --n 1000 \\
        --architecture cnn-small --by-method 1/10

RESULTS are folders that `corobench evaluate` or `corobench quickstart` wrote. The first form has
one row per entry, the second one per method with a pair of columns per dense parent, of the first
seed of the training.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.ranking import bracket


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--by-method", metavar="RADIUS")
    parser.add_argument("--n", type=int, help="only results on so many images")
    parser.add_argument("--architecture", help="only results of such networks")
    options = parser.parse_args()
    paths = sorted(
        path for root in options.results for path in root.rglob("*.json") if path.is_file()
    )
    results = [read_result(path) for path in paths]
    results = [result for result in results if options.n in (None, result.n)]
    if options.architecture:
        results = [one for one in results if _architecture(one) == options.architecture]
    results.sort(key=lambda result: (result.track, result.entry))
    if options.by_method:
        seeds = [result.submission.training.seed or 0 for result in results]
        first = min(seeds)
        results = [one for one, seed in zip(results, seeds, strict=True) if seed == first]
        by_method(results, options.by_method)
    else:
        by_entry(results)


def by_entry(results: list[Result]) -> None:
    radii = list(dict.fromkeys(radius for result in results for radius in result.epsilons))
    brackets = " | ".join(f"proven – unbroken, {radius}" for radius in radii)
    print(f"| entry | n | non-zero parameters | clean | {brackets} |")
    print("|---|---|---|---|" + "---|" * len(radii))
    for result in results:
        cells = " | ".join(_bracket(result, radius) for radius in radii)
        print(
            f"| {result.entry} | {result.n} | {result.compactness.num_nonzero:,} "
            f"| {_clean(result)} | {cells} |"
        )


def by_method(results: list[Result], radius: str) -> None:
    """Largest first, then by what the last family has certified."""
    parents = sorted({result.submission.parent or result.entry for result in results})
    table: dict[str, dict[str, Result]] = {}
    for result in results:
        family = result.submission.parent or result.entry
        table.setdefault(result.submission.method.name, {})[family] = result

    def order(method: str) -> tuple[int, int]:
        last = list(table[method].values())[-1]
        size = round(math.log(last.compactness.num_nonzero) / 0.15)  # equal within 15 % or so
        return -size, -bracket(last.epsilons[radius])[0]

    columns = " | ".join(f"{parent}: clean | {radius}" for parent in parents)
    print(f"| method | non-zero parameters | {columns} |")
    print("|---|---|" + "---|---|" * len(parents))
    for method in sorted(table, key=order):
        row = table[method]
        sizes = {f"{result.compactness.num_nonzero:,}" for result in row.values()}
        cells = [
            f"{_clean(row[parent])} | {_bracket(row[parent], radius)}" if parent in row else "– | –"
            for parent in parents
        ]
        print(f"| {method} | {', '.join(sorted(sizes))} | {' | '.join(cells)} |")


def _architecture(result: Result) -> str | None:
    return getattr(result.submission.model, "architecture", None)


def _clean(result: Result) -> str:
    return f"{100 * result.clean / result.n:.1f}"


def _bracket(result: Result, radius: str) -> str:
    score = result.epsilons.get(radius)
    if score is None:
        return "–"
    low, high = bracket(score)
    return f"{100 * low / result.n:.1f} – {100 * high / result.n:.1f}"


if __name__ == "__main__":
    main()
