"""What the gate costs in continuous integration: a green and a red `corobench check`, in seconds.

    python perf/gate_cost.py [--whole] [--at-most 60]

The baseline is the 10x CNN-small digits-adv-lwm-10x as published in the round of the present
protocol. The green candidate is the same network with its weights rounded to half precision, so
that it has to be evaluated; the red one is digits-adv-random-10x, which loses 4 to 6 points. Each
check is a process of its own on at most two cores, started as a workflow starts it: the time holds
the start of Python and torch, too. --whole checks the green one on all images as well, which shows
what stopping early saves. The last line is the wall-clock of the slower one; exit code 1 above
--at-most, or where a verdict is another one.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from corobench.benchmark.tracks import PROTOCOL, round_of

ROOT = Path(__file__).parents[1]
ENTRY, RED = "digits-adv-lwm-10x", "digits-adv-random-10x"
BASELINE = ROOT / "leaderboard" / "results" / round_of(PROTOCOL) / "digits" / f"{ENTRY}.json"
NUM_CORES = 2
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Check:
    """One run of `corobench check`.

    Attributes:
        report: its JSON report.
        wall_s: wall-clock of the whole process.
        processor_s: of the process and those it started, on Linux.
    """

    report: dict[str, Any]
    wall_s: float
    processor_s: float


def in_half_precision(folder: Path) -> Path:
    """A copy of the baseline's entry whose weights are float16."""
    shutil.copytree(ROOT / "submissions" / ENTRY, folder)
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, path)
    return folder


def check(candidate: Path, *options: str) -> Check:
    """Run the command in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "gate.json"
        command = [sys.executable, "-m", "corobench", "check", str(candidate)]
        command += ["--baseline", str(BASELINE), "--json", str(report), *options]
        start, before = time.monotonic(), os.times()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        wall_s = time.monotonic() - start
        # What the command left behind is ours now, and ends by itself.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        after = os.times()
        if not report.is_file():
            sys.exit(done.stderr)
        used = after.children_user + after.children_system
        used -= before.children_user + before.children_system
        return Check(json.loads(report.read_text()), wall_s, used)


def show(name: str, done: Check) -> None:
    """One line of the table."""
    report = done.report
    print(
        f"{name} | {report['verdict']} | {report['n']} of {report['total']} | "
        f"{done.wall_s:.1f} | {done.processor_s:.1f}",
        flush=True,
    )


def main() -> None:
    """Run the checks and compare with the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--whole", action="store_true", help="also without stopping early")
    parser.add_argument("--at-most", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # the checks inherit it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_CORES])
    if sys.platform == "linux":  # so that the time of the gate's own process is counted, too
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print("candidate | verdict | images | wall-clock, s | processor, s")
    with tempfile.TemporaryDirectory() as folder:
        green = in_half_precision(Path(folder) / ENTRY)
        done = {"pass": check(green), "fail": check(ROOT / "submissions" / RED)}
        show(f"{ENTRY} in half precision", done["pass"])
        show(RED, done["fail"])
        if options.whole:
            show(f"{ENTRY} in half precision, --whole", check(green, "--whole"))
    slowest = max(one.wall_s for one in done.values())
    as_expected = all(one.report["verdict"] == verdict for verdict, one in done.items())
    print(f"{slowest:.1f}")
    sys.exit(0 if as_expected and slowest <= options.at_most else 1)


if __name__ == "__main__":
    main()
