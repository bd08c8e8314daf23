"""Processor seconds of all certifiers on an entry: this checkout beside an older one.

    python perf/certify_seconds.py OLDER [SUBMISSION ...] [--n 200] [--data-root DIR]

OLDER is another checkout of corobench, for example made by `git worktree add ../older <commit>`.
In each checkout the pipeline runs as `evaluate` runs it, up to the beginning of AutoAttack, in a
process of its own on one thread; the seconds of IBP, CROWN-IBP, CROWN, alpha-CROWN and branch and
bound are added. Last line: (here) / (older) over all submissions, at most 1.5.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CERTIFIERS = ("IBP", "CROWN", "alpha-CROWN", "BaB")
DEFAULT = (
    "digits-ibp-lwm-10x",
    "digits-adv-dense",
    "fashion-mnist-ibp-dense",
    "fashion-mnist-adv-lwm-10x",
)


class _BeforeAutoAttackError(Exception):
    """The certifiers are done."""


def measure_here(submission: str, n: int, data_root: Path | None) -> None:
    """Print the seconds of the checkout that is the working folder."""
    import torch

    sys.path.insert(0, str(Path("perf").absolute()))
    import common

    has_one_name = Path("corobench").is_dir()
    progress = importlib.import_module(
        "corobench.benchmark.files.progress" if has_one_name else "benchmark.progress"
    )

    torch.set_num_threads(1)
    spent, since = 0.0, None
    original = progress.Reporter.stage

    def stage(self: Any, name: str, *arguments: object) -> None:
        nonlocal spent, since
        now = time.process_time()
        spent += 0.0 if since is None else now - since
        since = now if name.startswith(CERTIFIERS) else None
        if name.startswith("autoattack"):
            raise _BeforeAutoAttackError
        original(self, name, *arguments)

    progress.Reporter.stage = stage
    job = common.Job(Path("submissions") / submission, n, data_root, closes=True)
    with contextlib.suppress(_BeforeAutoAttackError):
        job.evaluate(submission)
    print(f"seconds {spent:.3f}")


def seconds(tree: Path, submission: str, n: int, data_root: Path | None) -> float:
    """What a checkout needs, measured in a process of its own."""
    command = [sys.executable, str(Path(__file__).absolute()), ".", submission, "--n", str(n)]
    if data_root is not None:
        command += ["--data-root", str(data_root.absolute())]
    # `corobench` is this checkout's where it is installed as editable; older ones are on the path.
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--measure"],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("seconds ")]
    if not lines:
        sys.exit(f"{tree}: no figure\n{done.stderr}")
    return float(lines[-1].split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("older", type=Path)
    parser.add_argument("submissions", nargs="*", default=list(DEFAULT))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_here(options.submissions[0], options.n, options.data_root)
        return
    before, after = 0.0, 0.0
    for name in options.submissions:
        then = seconds(options.older.absolute(), name, options.n, options.data_root)
        now = seconds(ROOT, name, options.n, options.data_root)
        before, after = before + then, after + now
        print(f"{name:36} {then:8.2f} -> {now:8.2f} s", flush=True)
    ratio = after / max(before, 1e-9)
    print(f"ratio {ratio:.3g}")
    sys.exit(ratio > 1.5)


if __name__ == "__main__":
    main()
