"""Two workers against one on two cores, and what a worker costs.

    python perf/scale.py [--attacked ENTRY] [--proven ENTRY] [--n N] [--data-root DIR]
                          [--ray [ADDRESS]] [--no-local]

Runs `corobench evaluate` on each entry with one worker and with two, each in a new interpreter and
an empty folder, one worker pinned to one processor and two to two, and compares the files of the
results (all but times and dates). Prints the seconds from the first stage to the written result,
their ratio, and the seconds of each stage. The first entry is attacked a lot, the second one is
proven a lot. Bars: 1.8 and 1.6, where the machine gives two processes twice what it gives one. It
often does not (processors that share a core, a memory bus or a clock), so that is measured first:
two plain loops of a network's forward and backward passes, which share nothing, at once and alone;
the bars are lowered in that proportion, and both are printed. With `--ray` the same two workers are
also tried as actors of a private Ray cluster; with `--ray auto` of one that runs already (`ray
start --head --num-cpus=2`).

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


#: Processor-bound, one thread, no file, no lock: nothing that two of them would share.
PLAIN_LOOP = """
import time, torch
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, 2, 1), torch.nn.ReLU(),
                          torch.nn.Conv2d(16, 32, 4, 2, 1), torch.nn.ReLU(),
                          torch.nn.Flatten(), torch.nn.Linear(2048, 10))
x = torch.rand(100, 3, 32, 32, requires_grad=True)
def turn():
    return torch.autograd.grad(net(x).sum(), x)
for _ in range(20): turn()
print("ready", flush=True)
input()
start = time.perf_counter()
for _ in range(NUM_TURNS): turn()
print(time.perf_counter() - start, flush=True)
"""


def plain_seconds(cores: str, num_turns: int) -> float:
    """Mean seconds of one plain loop on each of some processors, all at once."""
    code = PLAIN_LOOP.replace("NUM_TURNS", str(num_turns))
    loops = [
        subprocess.Popen(
            ["taskset", "-c", core, sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for core in cores.split(",")
    ]
    streams = [(loop.stdin, loop.stdout) for loop in loops]
    assert all(stdin and stdout for stdin, stdout in streams)
    for _, stdout in streams:
        stdout.readline()
    for stdin, _ in streams:
        stdin.write("\n")
        stdin.flush()
    seconds = [float(stdout.readline()) for _, stdout in streams]
    for loop in loops:
        loop.communicate()
    return sum(seconds) / len(seconds)


def ceiling(num_turns: int) -> float:
    """What two processors give beside one: the gain that no scheduler can pass."""
    alone = min(plain_seconds("0", num_turns), plain_seconds("1", num_turns))
    together = plain_seconds("0,1", num_turns)
    gain = 2 * alone / together
    print(f"two plain loops alone {alone:.1f} s, at once {together:.1f} s: ceiling {gain:.2f}")
    return gain


def contents(out: Path) -> list[dict[str, Any]]:
    """All that a folder's results say but times and dates."""
    return [content_of(path) for path in sorted(out.glob("*/*/*.json"))]


def compare(entry: Path, n: int | None, at_least: float, ways: dict[str, list[str]]) -> bool:
    """One worker against two in some ways; whether each meets the bar with the same files."""
    with tempfile.TemporaryDirectory() as folder:
        one_out = Path(folder) / "one"
        one_s, one = evaluate(entry, n, one_out, "0", ["--workers", "1"])
        print(f"{entry.name}: one worker {one_s:.1f} s (bar {at_least:.2f})", flush=True)
        is_well, stages = True, {}
        for way, more in ways.items():
            out = Path(folder) / way
            seconds, stages[way] = evaluate(entry, n, out, "0,1", [*more, "--workers", "2"])
            same = contents(one_out) == contents(out)
            gain = one_s / seconds
            verdict = "same files" if same else "DIFFERENT FILES"
            print(f"  {way} {seconds:.1f} s: {gain:.2f}, {verdict}", flush=True)
            is_well = is_well and same and gain >= at_least
    print(f"    {'seconds of a stage':24} {'one':>8} " + " ".join(f"{way:>8}" for way in ways))
    for stage in (name for name in one if one[name] >= SHOWN_S):
        found = " ".join(f"{stages[way].get(stage, 0.0):8.1f}" for way in ways)
        print(f"    {stage:24} {one[stage]:8.1f} {found}", flush=True)
    return is_well


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
    parser.add_argument("--no-local", action="store_true", help="two workers with Ray only")
    parser.add_argument("--turns", type=int, default=1000, help="of the plain loops")
    parser.add_argument("--no-trivial", action="store_true")
    options = parser.parse_args()
    if options.data_root is not None:  # for the stored images, too, that are compared
        os.environ["COROBENCH_DATA"] = str(options.data_root.resolve())
    if options.n is not None and options.n < 1:
        parser.error("--n: expected at least 1")
    ways: dict[str, list[str]] = {} if options.no_local else {"two": []}
    if options.ray is not None:
        ways["Ray"] = ["--ray", options.ray]
    if not ways:
        parser.error("--no-local leaves nothing to try: give --ray, too")
    share = min(1.0, ceiling(options.turns) / 2)
    is_well = [
        compare(options.attacked, options.n, 1.8 * share, ways),
        compare(options.proven, options.n, 1.6 * share, ways),
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
