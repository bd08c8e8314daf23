"""The same results from one process and from a Ray cluster, compared by hash.

    python perf/ray_hashes.py [--ray local] [--workers 2] [--subset 8] [--data TRACK=FOLDER]
                              [--epsilons TRACK=RADII] [ENTRY ...]

Evaluates each entry with `corobench evaluate --workers 1`, which computes in the process of the
entry, and again with `--ray`. Of the result file, its table and its images everything but times and
dates is compared. By default six entries of three tracks. At large radii most images break at once,
which saves most of the time.

Prints both hashes of each entry, the seconds of both ways, and last "0 differing results of 6";
exits 1 where one differs. Needs corobench[ray].
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import ADVERSARIAL, OUTCOMES, verify_set
from corobench.benchmark.submission.manifest import load_manifest

TIMES = ("seconds", "date", "files")  # the digest of a table with times in it

SUBMISSIONS = Path(__file__).parents[1] / "submissions"
ENTRIES = (
    "digits-adv-lwm-10x",
    "digits-ibp-dense",
    "fashion-mnist-adv-dense",
    "fashion-mnist-ibp-lwm-10x",
    "cifar10-adv-dense",
    "cifar10-ibp-lwm-10x",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("entries", nargs="*", default=ENTRIES)
    parser.add_argument("--ray", default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--subset", type=int, default=8)
    for name, value in (("--data", "FOLDER"), ("--epsilons", "RADII")):
        parser.add_argument(name, action="append", default=[], metavar=f"TRACK={value}")
    parser.add_argument("--out", type=Path, help="keeps the results here")
    options = parser.parse_args()
    places = dict(one.split("=", 1) for one in options.data)
    radii = dict(one.split("=", 1) for one in options.epsilons)
    by_track: dict[str, list[Path]] = {}
    for name in options.entries:
        folder = SUBMISSIONS / name
        by_track.setdefault(load_manifest(folder).track, []).append(folder)
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or scratch
        alone, spread = Path(out) / "alone", Path(out) / "ray"
        apart = ["--ray", options.ray, "--workers", str(options.workers)]
        for track, folders in by_track.items():
            more = ["--subset", str(options.subset)]
            more += ["--data-root", places[track]] if track in places else []
            more += ["--epsilons", radii[track]] if track in radii else []
            seconds = _evaluate(folders, alone, [*more, "--workers", "1"])
            print(f"{track}: {seconds:.0f} s in one process", flush=True)
            print(
                f"{track}: {_evaluate(folders, spread, [*more, *apart]):.0f} s with Ray", flush=True
            )
        _compare(alone, spread)


def _evaluate(folders: list[Path], out: Path, more: list[str]) -> float:
    started = time.monotonic()
    command = [sys.executable, "-m", "corobench", "evaluate", *map(str, folders)]
    done = subprocess.run([*command, "--out", str(out), *more], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nfailed: {' '.join(more)}")
    return time.monotonic() - started


def _compare(alone: Path, spread: Path) -> None:
    paths = sorted(path.relative_to(alone) for path in alone.glob("*/*/*.json"))
    differing = 0
    for path in paths:
        first, second = _hash(alone / path), _hash(spread / path)
        differing += first != second
        print(f"{path}: {first[:16]} {second[:16]}")
    print(f"{differing} differing results of {len(paths)}")
    sys.exit(differing > 0)


def _hash(path: Path) -> str:
    """Of everything of a set but times and dates, read strictly."""
    result = read_result(path)
    verify_set(path, result)
    table, run = read_outcomes(beside(path, OUTCOMES))
    content = {
        "result": {k: v for k, v in json.loads(path.read_text()).items() if k not in TIMES},
        "run": json.loads(run.model_dump_json(exclude={"seconds", "date"})),
        "table": table.drop(columns="seconds").to_json(double_precision=15),
        "images": beside(path, ADVERSARIAL).read_bytes().hex(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main()
