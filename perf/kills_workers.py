"""Kill processes of every role at random moments: the results must not differ.

    python perf/kills_workers.py [--kills 100] [--seed 0] [--ray]

Each round starts `corobench evaluate` on two entries with two workers in an empty folder. At random
moments one of its processes, drawn by role, is killed (SIGKILL): the command itself, the process of
an entry, a worker, the server that both are forked from, and with `--ray` one of Ray's own. After a
killed command the same command is given again, as a user would; every round ends with a run that
nobody disturbs any more. Then the files are compared with those of one process that nobody
disturbed: every key, column and image but times and dates.

Prints who was killed how often, and last "0 differing results of 100" (kills); exits 1 where one
differs. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kills import content_of

SUBMISSIONS = Path(__file__).parents[1] / "submissions"
ENTRIES = (SUBMISSIONS / "_template", SUBMISSIONS / "digits-ibp-random-10x")


def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start the command, in a process group of its own."""
    what = ["--subset", "24", "--epsilons", "3/16,4/16", "--out", str(out)]
    command = [sys.executable, "-m", "corobench", "evaluate", *map(str, ENTRIES), *what, *more]
    log = out.with_suffix(".log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def processes_of(command: int) -> dict[str, list[int]]:
    """Role -> processes that descend from the command."""
    parents: dict[int, list[int]] = collections.defaultdict(list)
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if fields[0] != "Z":
                parents[int(fields[1])].append(int(folder.name))
    found: dict[str, list[int]] = collections.defaultdict(list)
    waiting = [(child, 1) for child in parents[command]]
    while waiting:
        pid, depth = waiting.pop()
        waiting += [(child, depth + 1) for child in parents[pid]]
        with contextlib.suppress(OSError):
            text = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "resource_tracker" not in text:
                found[_role(text, depth, bool(parents[pid]))].append(pid)
    found["command"] = [command]
    return found


def _role(text: str, depth: int, has_children: bool) -> str:
    if "ray" in text and "forkserver" not in text:
        return "ray"
    if "forkserver" in text and has_children:
        return "server"
    return "entry or worker"


def one_round(out: Path, draw: random.Random, whole_s: float, more: list[str]) -> dict[str, int]:
    """Kill until a run ends undisturbed; role -> how often."""
    killed: dict[str, int] = collections.Counter()
    num_wanted = draw.randint(2, 6)
    while True:
        run = start(out, *more)
        while num_wanted:
            end = time.monotonic() + draw.uniform(0.0, whole_s / 2)
            while run.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            if run.poll() is not None:
                break
            roles = {role: pids for role, pids in processes_of(run.pid).items() if pids}
            role = draw.choice(sorted(roles))
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(roles[role]), signal.SIGKILL)
            killed[role] += 1
            num_wanted -= 1
            if role == "command":
                break
        if run.wait() == 0:
            return killed


def contents(out: Path) -> dict[str, Any]:
    """Result -> all that it says but times and dates."""
    return {path.stem: content_of(path) for path in sorted(out.glob("*/*/*.json"))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    more = ["--workers", "2", *(["--ray", "local"] if options.ray else [])]
    killed: dict[str, int] = collections.Counter()
    num_differing = num_rounds = 0
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        if start(Path(folder) / "whole", *more).wait():
            sys.exit(f"a run that nobody disturbed failed: {folder}")
        whole_s = time.monotonic() - began
        if start(Path(folder) / "one", "--workers", "1").wait():
            sys.exit(f"a run that nobody disturbed failed: {folder}")
        expected = contents(Path(folder) / "one")
        num_differing += contents(Path(folder) / "whole") != expected
        while sum(killed.values()) < options.kills:
            out = Path(folder) / f"round-{num_rounds}"
            for role, count in one_round(out, draw, whole_s, more).items():
                killed[role] += count
            if contents(out) != expected:
                num_differing += 1
                print(f"round {num_rounds} differs; see {out}")
            num_rounds += 1
            print(f"{sum(killed.values())} kills in {num_rounds} rounds", file=sys.stderr)
            shutil.rmtree(out)
    print(", ".join(f"{role}: {count}" for role, count in sorted(killed.items())))
    print(f"{num_differing} differing results of {sum(killed.values())}")
    sys.exit(1 if num_differing else 0)


if __name__ == "__main__":
    main()
