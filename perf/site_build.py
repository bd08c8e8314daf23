"""What the leaderboard costs to build and to open, with synthetic copies of published results.

    python perf/site_build.py                 # 10, 100, 500 and 1000 entries on one track
    python perf/site_build.py --entries 100

Prints a table; the last line is the build time of the largest site in seconds. "Processor" is that
of all processes. Exit code 1 where 1000 entries take 20 s or more, where opening their board or
their front page reads 1 MB or more, or where a second build gives other bytes: one of a process by
itself, where the first had several. The copies live in a temporary folder and are never published.
A board's load counts the file of the rows that its script adds; copies compress better than entries
that differ.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.manifest import Manifest
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import ADVERSARIAL, OUTCOMES, beside
from corobench.benchmark.scoring.result_writing import write_set
from corobench.leaderboard import parallel
from corobench.leaderboard.build import SiteSummary, build_site

PUBLISHED = Path(__file__).parents[1] / "leaderboard" / "results" / "1.0" / "fashion-mnist"
#: In the names of results on a larger subset than the track's standard one.
LARGER = "@"
MAX_BUILD_S = 20.0
MAX_FIRST_LOAD_BYTES = 1_000_000
ASSETS = (
    "style.css",
    "plots.css",
    "datatables.js",
    "entry.js",
    "tools.js",
    "export.js",
    "plot-zoom.js",
    "plot-card.js",
    "board.js",
)
#: The same of the front page.
FRONT = ("style.css", "findings.css")


def main() -> int:
    """Build sites of growing size and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[10, 100, 500, 1000])
    sizes = parser.parse_args().entries
    print(
        "entries | build, s | processor, s | files | site, MB | front, kB | page, kB | "
        "first load, kB | gzipped"
    )
    is_good, seconds = True, 0.0
    for num_entries in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make_copies(root / "results", num_entries)
            start, used = time.perf_counter(), processor_seconds()
            summary = build_site([root / "results"], root / "site")
            seconds, used = time.perf_counter() - start, processor_seconds() - used
            page, load, zipped = first_load(summary)
            front = front_load(summary)
            print(
                f"{num_entries} | {seconds:.1f} | {used:.1f} | {summary.num_files} | "
                f"{summary.num_bytes / 1e6:.1f} | {front / 1e3:.0f} | {page / 1e3:.0f} | "
                f"{load / 1e3:.0f} | "
                f"{zipped / 1e3:.0f}",
                flush=True,
            )
            if num_entries <= 100 or num_entries == max(sizes):
                with mock.patch.object(parallel, "MANY", sys.maxsize):
                    again = build_site([root / "results"], root / "again")
                is_good &= content(summary) == content(again)
            is_good &= num_entries > 1000 or max(load, front) < MAX_FIRST_LOAD_BYTES
            is_good &= num_entries > 1000 or seconds < MAX_BUILD_S
    print(f"{seconds:.1f}")
    return 0 if is_good else 1


def make_copies(results: Path, num_entries: int) -> None:
    """Copies of the published results of one track under other names.

    Every round of copies is a set of families of its own: children name the parent of their round,
    and an argument of the network tells the rounds apart.
    """
    target = results / "1.0" / "fashion-mnist"
    target.mkdir(parents=True)
    sources = sorted(path for path in PUBLISHED.glob("*.json") if LARGER not in path.stem)
    for path in PUBLISHED.glob("clean-images.*"):
        shutil.copy(path, target)
    read = {source: read_outcomes(beside(source, OUTCOMES)) for source in sources[:num_entries]}
    for number in range(num_entries):
        source = sources[number % len(sources)]
        table, run = read[source]
        path = target / f"{source.stem}-s{number}.json"
        changed = {"id": path.stem, "title": f"{run.submission.title}, seed {number}"}
        submission = in_round(run.submission, number // len(sources), sources, changed)
        least = max(layer.num_nonzero for layer in run.compactness.layers)
        left = max(least, run.compactness.num_nonzero - number)
        compactness = run.compactness.model_copy(update={"num_nonzero": left})
        beside(path, ADVERSARIAL).symlink_to(beside(source, ADVERSARIAL))
        update = {"entry": path.stem, "submission": submission, "compactness": compactness}
        run = run.model_copy(update=update)
        write_set(path, table, run.model_copy(update={"identity": identity_of(run)}))


def in_round(
    submission: Manifest, place: int, sources: list[Path], changed: dict[str, Any]
) -> Manifest:
    """A copy's manifest, with its parent and its network's name in one round of copies."""
    model = submission.model
    arguments = {**model.arguments, "copy": place}
    changed["model"] = model.model_copy(update={"arguments": arguments})
    if submission.parent:
        first = [source.stem for source in sources].index(submission.parent)
        changed["parent"] = f"{submission.parent}-s{place * len(sources) + first}"
    return submission.model_copy(update=changed)


def first_load(summary: SiteSummary) -> tuple[int, int, int]:
    """Bytes of the largest board page, of all it loads at first, and of the same gzipped."""
    root = summary.index.parent
    pages = (path for path in (root / "boards").glob("*.html") if ".all." not in path.name)
    page = max(pages, key=_with_rows)
    files = [page, *(root / "assets" / name for name in ASSETS)]
    files += [path for path in (page.with_suffix(".rows.js"),) if path.is_file()]
    contents = [path.read_bytes() for path in files]
    return (
        len(contents[0]),
        sum(map(len, contents)),
        sum(len(gzip.compress(item)) for item in contents),
    )


def _with_rows(page: Path) -> int:
    """Bytes of a board's page and of the rows that its script adds."""
    return sum(
        path.stat().st_size for path in (page, page.with_suffix(".rows.js")) if path.is_file()
    )


def front_load(summary: SiteSummary) -> int:
    """Bytes of the front page and of all it loads."""
    root = summary.index.parent
    files = [summary.index, *(root / "assets" / name for name in FRONT)]
    return sum(path.stat().st_size for path in files)


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def content(summary: SiteSummary) -> dict[str, bytes]:
    """Every file of a site."""
    root = summary.index.parent
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
