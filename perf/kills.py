"""Kill evaluations at random moments and run them again: the result must not differ.

    python perf/kills.py [--kills 200] [--subset 12] [--epsilons 3/16,4/16] [--seed 0] [--fresh]

Each round starts `corobench evaluate submissions/_template` in a process of its own: into an empty
folder, over another result with `--force`, or over the very same result with `--force`. The process
is killed (SIGKILL, every fifth time SIGTERM) at a moment drawn from the whole length of an
undisturbed run, every third time from its last tenth, where files are written. Then a strict reader
looks: a result file that is there must be whole and one of the two that may be there. Sometimes the
next run is killed, too; the last one runs to its end. The three files that are there then are
compared with those of an undisturbed run: every key, column and image but times and dates.

The processes are forked from this one, which has the libraries loaded, and the radii are ones at
which no image of the template stands to the end of the attacks, so that a run takes a second of
one processor. With `--epsilons 1/16,2/16` it goes through branch and bound and all of AutoAttack.
With `--fresh` each is a new interpreter with the worker process that `corobench` gives every
submission; the command's process alone is killed.

Prints how far the killed runs had come, and last "0 differing results of 200" (kills); exits 1
where one differs. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation.evidence import load_adversarial
from corobench.benchmark.executors import preloaded  # noqa: F401 (what a run would import)
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.reading.table_file import read_outcomes
from corobench.benchmark.records.result_set import OUTCOMES, verify_set
from corobench.benchmark.scoring.scored import scored

TEMPLATE = Path(__file__).parents[1] / "submissions" / "_template"
TIMES = ("seconds", "date", "files")  # the digest of a table with times in it


@dataclass
class Runs:
    """Starts `corobench evaluate`.

    Attributes:
        subset: images.
        epsilons: radii, as on the command line.
        is_fresh: whether each run is a new interpreter.
    """

    subset: int
    epsilons: str
    is_fresh: bool

    def arguments(self, out: Path, *more: str) -> list[str]:
        """Of the command line."""
        what = ["--subset", str(self.subset), "--epsilons", self.epsilons]
        return ["evaluate", str(TEMPLATE), *what, "--out", str(out), *more]

    def start(self, out: Path, *more: str) -> int:
        """Start a run; its process id."""
        arguments = self.arguments(out, *more)
        if self.is_fresh:
            command = [sys.executable, "-m", "corobench", *arguments]
            quiet = subprocess.DEVNULL
            return subprocess.Popen(command, stdout=quiet, stderr=quiet).pid
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            code = invoke([*arguments, "--no-isolate"])
        finally:
            os._exit(code)

    def finish(self, out: Path, *more: str) -> float:
        """Run to the end; its seconds."""
        start = time.monotonic()
        _, status = os.waitpid(self.start(out, *more), 0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(f"a run that nobody killed failed; see {out}")
        return time.monotonic() - start

    def kill(self, out: Path, after_s: float, sign: signal.Signals, *more: str) -> bool:
        """Start a run and kill it; whether it was still running."""
        pid = self.start(out, *more)
        end = time.monotonic() + after_s
        while time.monotonic() < end:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return False
            time.sleep(min(0.002, max(end - time.monotonic(), 0.0)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)


def _places(out: Path) -> list[Path]:
    """The result files below a folder."""
    return sorted(out.glob("*/digits/template@*.json"))


def content_of(path: Path) -> dict[str, Any]:
    """Everything of a set but times and dates, read strictly.

    Raises:
        ResultError: it is no whole set.
    """
    result = read_result(path)
    verify_set(path, result)
    table, run = read_outcomes(beside(path, OUTCOMES))
    if encode_result(scored(beside(path, OUTCOMES))) != path.read_bytes():
        raise ResultError(f"{path}: is not the scorecard of its table")
    images = load_adversarial(path)
    record = json.loads(run.model_dump_json(exclude={"seconds", "date"}))
    return {
        "result": {k: v for k, v in json.loads(path.read_text()).items() if k not in TIMES},
        "run": record,
        "table": table.drop(columns="seconds").to_json(double_precision=15),
        "images": [images.shape, np.asarray(images).tobytes()],
    }


def how_far(out: Path, reference: dict[str, Any]) -> str:
    """How far a killed run had come, from what it left."""
    if any(out.glob("*/digits/.*.new")):
        return "writing the set"
    paths = _places(out)
    if not paths and any(out.glob("*/digits/*.parquet")):
        return "writing the set"
    num_chunks = sum(1 for _ in out.glob(".chunks/*/*.chunk"))
    if num_chunks:
        return "with finished chunks"
    with contextlib.suppress(ResultError):
        if paths and content_of(paths[0]) == reference:
            return "after the set"
    return "before the first chunk"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--subset", type=int, default=12)
    parser.add_argument("--epsilons", default="3/16,4/16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="corobench-kills-") as folder:
        sys.exit(_rounds(options, Path(folder)))


def _rounds(options: argparse.Namespace, folder: Path) -> int:
    runs = Runs(options.subset, options.epsilons, options.fresh)
    draw = random.Random(options.seed)
    whole, other = folder / "whole", folder / "other"
    if not options.fresh:  # so that the forked ones import nothing
        invoke([*runs.arguments(folder / "first"), "--no-isolate"])
    lengths = [runs.finish(whole)]
    reference = content_of(_places(whole)[0])
    lengths.append(runs.finish(whole, "--force"))
    if content_of(_places(whole)[0]) != reference:
        sys.exit("two undisturbed runs differ, so kills cannot be judged")
    runs.finish(other, "--seed", "1")
    allowed = [reference, content_of(_places(other)[0])]
    print(f"an undisturbed run takes {lengths[-1]:.2f} s")
    num_kills, num_differing = 0, 0
    reached: collections.Counter[str] = collections.Counter()
    starts: collections.Counter[str] = collections.Counter()
    while num_kills < options.kills:
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        kind = draw.choice(["into nothing", "--force over another", "--force over the same"])
        more = [] if kind == "into nothing" else ["--force"]
        if more:
            shutil.copytree(other if kind.endswith("another") else whole, out)
        faults: list[str] = []
        while num_kills < options.kills:
            last_tenth = draw.random() < 1 / 3
            share = draw.uniform(0.9, 1.05) if last_tenth else draw.uniform(0.0, 1.0)
            sign = signal.SIGTERM if draw.random() < 0.2 else signal.SIGKILL
            # The last run is the measure: the machine may be slower by now.
            if runs.kill(out, share * lengths[-1], sign, *more):
                num_kills += 1
                starts[f"{kind}, {sign.name}"] += 1
                reached[how_far(out, reference)] += 1
            faults += _look(out, allowed)
            if draw.random() < 0.7:
                break
        lengths.append(_end(runs, out, more, lengths))
        faults += _compare(out, reference)
        for fault in faults:
            print(f"after {num_kills} kills, {kind}: {fault}", flush=True)
        num_differing += bool(faults)
    for name, count in sorted({**starts, **reached}.items()):
        print(f"{count:4d}  {name}")
    print(f"{num_differing} differing results of {num_kills}")
    return 1 if num_differing else 0


def _end(runs: Runs, out: Path, more: list[str], lengths: list[float]) -> float:
    """Run to the end; the length of an undisturbed run, as far as this one tells."""
    has_chunks = any(out.glob(".chunks/*/*.chunk"))
    seconds = runs.finish(out, *more)
    return lengths[-1] if has_chunks else seconds


def _look(out: Path, allowed: list[dict[str, Any]]) -> list[str]:
    """What a reader must not see after a kill."""
    for path in _places(out):
        try:
            if content_of(path) not in allowed:
                return ["a result that is neither the old nor the new one"]
        except ResultError as error:
            return [f"a mixture: {error.message}"]
    return []


def _compare(out: Path, reference: dict[str, Any]) -> list[str]:
    paths = _places(out)
    if len(paths) != 1:
        return [f"{len(paths)} results"]
    try:
        found = content_of(paths[0])
    except ResultError as error:
        return [error.message]
    left = [path.name for path in paths[0].parent.iterdir() if path.name.startswith(".")]
    return [
        *(f"{key} differs" for key in reference if found[key] != reference[key]),
        *(f"left behind: {name}" for name in left),
    ]


if __name__ == "__main__":
    main()
