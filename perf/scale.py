"""Two workers against one on two cores, and what a worker costs.

    python perf/scale.py [--attacked ENTRY] [--proven ENTRY] [--n N] [--data-root DIR]
                          [--ray [ADDRESS]]

Runs `corobench evaluate` on each entry with one worker and with two, each in a new interpreter and
an empty folder, one worker pinned to one processor and two to two, and compares the files of the
results (all but times and dates). Prints the seconds from the first stage to the written result,
their ratio, and the seconds of each stage. The first entry is attacked a lot, the second one is
proven a lot. Bars: 1.8 and 1.6. With `--ray` the two workers are actors of a private Ray cluster
instead; with `--ray auto` of one that runs already (`ray start --head --num-cpus=2`).

Last, 100,000 jobs that do nothing go through workers, pool and the process of an entry (they are
those of a test); what one costs is compared with the mean job of the entries. Nothing else should
run meanwhile. Exits 1 below a bar, or where one file differs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kills import content_of

ROOT = Path(__file__).parents[1]
SUBMISSIONS = ROOT / "submissions"
#: Nothing of it is proven; most of it is.
ATTACKED, PROVEN = "fashion-mnist-adv-large-dense", "fashion-mnist-adv-lwm-10x-s1"
LINE = re.compile(r"\[ *([0-9.]+) s\]")
#: Shorter stages are not listed.
SHOWN_S = 1.0
#: The last line of a stage: its name, and the seconds it took.
STAGE = re.compile(r"^\[ *[0-9.]+ s\] [^:\n]+: ([^:\n]+): .*\(([0-9.]+) s\)$", re.MULTILINE)


def evaluate(
    entry: Path, n: int | None, out: Path, cores: str, more: list[str]
) -> tuple[float, dict[str, float]]:
    """Evaluate an entry: its seconds, and those of each stage, as its own log says."""
    command = [sys.executable, "-m", "corobench", "evaluate", str(entry), "--out", str(out), *more]
    if n is not None:
        command += ["--subset", str(n)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pinned = ["taskset", "-c", cores, *command]
    done = subprocess.run(pinned, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    stages = {name: float(seconds) for name, seconds in STAGE.findall(done.stderr)}
    return max(float(found) for found in LINE.findall(done.stderr)), stages


def contents(out: Path) -> list[dict[str, Any]]:
    """All that a folder's results say but times and dates."""
    return [content_of(path) for path in sorted(out.glob("*/*/*.json"))]


def compare(entry: Path, n: int | None, at_least: float, ray: str | None) -> bool:
    """One worker against two; whether the bar is met and the files are the same."""
    two = [] if ray is None else ["--ray", ray]
    with tempfile.TemporaryDirectory() as folder:
        one_out, two_out = Path(folder) / "one", Path(folder) / "two"
        one_s, one = evaluate(entry, n, one_out, "0", ["--workers", "1"])
        two_s, both = evaluate(entry, n, two_out, "0,1", [*two, "--workers", "2"])
        same = contents(one_out) == contents(two_out)
    ratio = one_s / two_s
    verdict = "same files" if same else "DIFFERENT FILES"
    print(
        f"{entry.name}: one worker {one_s:.1f} s, two {two_s:.1f} s: {ratio:.2f} "
        f"(bar {at_least}), {verdict}",
        flush=True,
    )
    for stage in (name for name in one if one[name] >= SHOWN_S):
        print(f"    {stage:24} {one[stage]:8.1f} {both.get(stage, 0.0):8.1f}", flush=True)
    return same and ratio >= at_least


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--attacked", type=Path, default=SUBMISSIONS / "fashion-mnist-adv-large-dense"
    )
    parser.add_argument("--proven", type=Path, default=SUBMISSIONS / "fashion-mnist-adv-lwm-10x-s1")
    parser.add_argument("--n", type=int)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--ray", nargs="?", const="local", metavar="ADDRESS")
    parser.add_argument("--no-trivial", action="store_true")
    options = parser.parse_args()
    if options.data_root is not None:  # for the stored images, too, that are compared
        os.environ["COROBENCH_DATA"] = str(options.data_root.resolve())
    if options.n is not None and options.n < 1:
        parser.error("--n: expected at least 1")
    is_well = [
        compare(options.attacked, options.n, 1.8, options.ray),
        compare(options.proven, options.n, 1.6, options.ray),
    ]
    if not options.no_trivial:
        is_well.append(trivial())
    sys.exit(0 if all(is_well) else 1)


def trivial() -> bool:
    """100,000 jobs that do nothing, through everything; the seconds that the test took."""
    where = "tests/unit/executors/test_entries.py::test_a_hundred_thousand_jobs"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow", where, "--durations=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = re.search(r"([0-9.]+)s call", done.stdout)
    if done.returncode or found is None:
        sys.exit(done.stdout[-2000:])
    seconds = float(found.group(1))
    print(f"100,000 jobs that do nothing: {seconds:.1f} s, {seconds / 100:.3f} ms each (bar 120 s)")
    return seconds < 120


if __name__ == "__main__":
    main()
