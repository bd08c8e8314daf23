"""Hours and efficiency of many workers, simulated with the scheduler that the pool uses.

    python perf/scale_simulation.py [--entries 100 1000] [--workers 1 8 64] [--n 10000]

Time is simulated, the scheduler is real (`benchmark/executors/scheduling.py`), and so are the
seconds of each stage (`benchmark/executors/costs.py`) and how many images reach it: those of the
entries whose results lie in `leaderboard/results`, taken again and again until there are enough.
An entry hands out one stage after the other, as `evaluate` does: clean; each certifier and radius;
PGD-50 at each radius; the closing certifiers, four images a job; each part of AutoAttack at each
radius, in batches of the track. Seconds of jobs vary at random (seed 0): by a tenth, and of the
closing certifiers as exponentially as searches do. A worker that gets an entry's network for the
first time, or again after two others, loads it. At most one entry more than there are workers is
under way, as in the command.

Efficiency is (seconds of all jobs) / (workers x seconds until the last result). The last line is
that of 100 entries on 64 workers, at least 0.9.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from corobench.benchmark.evaluation.closing import IMAGES_OF_A_JOB
from corobench.benchmark.executors.backend import NUM_HELD
from corobench.benchmark.executors.costs import Seconds, Shares, estimate_s, seconds_of
from corobench.benchmark.executors.scheduling import Scheduler
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.tracks import Protocol, Track, get_track

ROOT = Path(__file__).parents[1]
#: Seconds that a worker needs to load a network and its certifiers, that an entry's own process
#: needs to start, and between two of its stages: assumed, and more than on an idle machine.
LOAD_S, START_S, BETWEEN_S = 3.0, 10.0, 0.2

Stage = list[tuple[str, float]]


@dataclass(frozen=True)
class Profile:
    """An entry as its result shows it.

    Attributes:
        name: of the entry.
        track: it was evaluated on.
        seconds: per image and stage.
        shares: of the images that reach each stage, at each radius, smallest first.
    """

    name: str
    track: Track
    seconds: Seconds
    shares: tuple[Shares, ...]

    def num_images(self, n: int) -> int:
        """The images of an evaluation; some tracks have fewer than are asked for."""
        return min(n, self.track.num_test)

    def cost_s(self, n: int) -> float:
        """What the plan expects of it."""
        mean = Shares(*np.mean([list(vars(one).values()) for one in self.shares], axis=0))
        audit = 2 * Protocol().audit_images
        return estimate_s(self.seconds, mean, self.num_images(n), len(self.shares), audit)


def profiles() -> list[Profile]:
    """The newest result of each entry, in alphabetical order."""
    newest: dict[str, tuple[str, int, Path]] = {}
    for path in sorted((ROOT / "leaderboard" / "results").glob("*/*/*.json")):
        told = json.loads(path.read_text())
        key = (told["protocol"], told["n"], path)
        newest[told["entry"]] = max(newest.get(told["entry"], ("", 0, path)), key)
    return [_profile(path) for _, (_, _, path) in sorted(newest.items())]


def _profile(path: Path) -> Profile:
    told = json.loads(path.read_text())
    manifest = Manifest.model_validate_json(json.dumps(told["submission"]))
    track, n = get_track(told["track"]), told["n"]
    shares = []
    for score in told["epsilons"].values():
        by = score["certified_by"]
        proven = max(by.get(name) or 0 for name in Protocol().certifiers)
        counts = (told["clean"], proven, score["pgd50"], by["cascade"], score["autoattack"])
        shares.append(Shares(*(count / n for count in counts)))
    folder = ROOT / "submissions" / told["entry"]
    return Profile(told["entry"], track, seconds_of(manifest, folder, track), tuple(shares))


def stages(profile: Profile, n: int, random: np.random.Generator) -> Iterator[Stage]:
    """The stages of an entry, each a list of jobs with their kinds and seconds."""
    seconds, track, n = profile.seconds, profile.track, profile.num_images(n)
    size = track.attack_batch

    def noisy(kind: str, each_s: float, batches: list[float]) -> Stage:
        noise = np.clip(random.normal(1.0, 0.1, len(batches)), 0.5, 2.0)
        jobs = zip(batches, noise, strict=True)
        return [(kind, float(batch * each_s * factor)) for batch, factor in jobs]

    def in_batches(kind: str, each_s: float, share: float) -> Stage:
        """All images that are asked, in batches."""
        num = round(n * share)
        return noisy(kind, each_s, [float(min(size, num - at)) for at in range(0, num, size)])

    def in_chunks(kind: str, each_s: float, share: float, standing: float) -> Stage:
        """In each chunk of what stands, the images that are attacked, in batches."""
        num_chunks = math.ceil(n * standing / track.chunk_size)
        num = n * share / max(num_chunks, 1)
        batches = [min(size, num - at) for at in range(0, math.ceil(num), size)]
        return noisy(kind, each_s, batches * num_chunks)

    def in_parts(kind: str, each_s: float | None, share: float) -> Stage:
        num = math.ceil(n * share / IMAGES_OF_A_JOB)
        if each_s is None or not num:
            return []
        return [
            (kind, float(one.sum())) for one in random.exponential(each_s, (num, IMAGES_OF_A_JOB))
        ]

    yield in_batches("clean", seconds.clean, 1.0)
    costly = ("crown",) if seconds.crown_closes else ()
    for name in ("ibp", "crown_ibp", *(() if costly else ("crown",))):
        each_s = getattr(seconds, name)
        for shares in reversed(profile.shares):
            if each_s is not None:
                yield in_batches(name, each_s, shares.correct)
    for shares in profile.shares:
        open_ = max(shares.correct - shares.proven, 0.0)
        yield in_chunks("pgd50", seconds.pgd50, open_, shares.correct)
    for name in (*costly, "alpha_crown", "bab"):
        for shares in reversed(profile.shares):
            open_ = max(shares.after_pgd - shares.proven, 0.0)
            yield in_parts(name, getattr(seconds, name), open_)
    audited = min(2 * Protocol().audit_images / n, profile.shares[-1].closed)
    for shares in profile.shares:
        extra = audited if shares is profile.shares[-1] else 0.0
        left = max(shares.after_attack - shares.closed, 0.0)
        open_ = max(shares.after_pgd - shares.closed, 0.0)
        yield in_chunks("apgd-ce", seconds.apgd_ce, open_ + extra, shares.correct)
        for name in ("apgd_t", "fab_t", "square"):
            yield in_chunks(name, getattr(seconds, name), left + extra, shares.correct)


@dataclass
class Entry:
    """An entry under way."""

    name: str
    profile: Profile
    rest: Iterator[Stage]
    num_open: int = 0


@dataclass
class Worker:
    """A worker: the jobs it was given, and the networks it holds."""

    jobs: deque[int] = field(default_factory=deque)
    is_busy: bool = False
    held: OrderedDict[str, None] = field(default_factory=OrderedDict)


class Simulation:
    """Entries on workers, with a clock that jumps from event to event.

    Args:
        chosen: an entry for each result to make; a name may come several times.
        n: images.
        num_workers: how many.
    """

    def __init__(self, chosen: list[Profile], n: int, num_workers: int) -> None:
        self.n, self.now, self.busy_s, self.load_s = n, 0.0, 0.0, 0.0
        self.scheduler = Scheduler()
        self.workers = {f"w{number}": Worker() for number in range(num_workers)}
        for name in self.workers:
            self.scheduler.add_worker(name)
        longest = sorted(enumerate(chosen), key=lambda item: -item[1].cost_s(n))
        self.waiting = deque(
            Entry(f"{number}", one, stages(one, n, np.random.default_rng(number)))
            for number, one in longest
        )
        self.entries: dict[str, Entry] = {}
        self.jobs: dict[int, tuple[Entry, float]] = {}
        self.num_jobs = self._num_events = 0
        self.events: list[tuple[float, int, str, str, int]] = []
        for _ in range(num_workers + 1):
            self._begin()

    def run(self) -> None:
        """Until the last result is there."""
        while self.events:
            self.now, _, kind, name, job = heapq.heappop(self.events)
            if kind == "stage":
                self._next_stage(self.entries[name])
            else:
                self._answered(name, job)
            if not self.events or self.events[0][0] > self.now:
                self._hand_out()

    def _after(self, seconds: float, kind: str, name: str, job: int = -1) -> None:
        self._num_events += 1
        heapq.heappush(self.events, (self.now + seconds, self._num_events, kind, name, job))

    def _begin(self) -> None:
        """Start the process of the next entry."""
        if self.waiting:
            entry = self.waiting.popleft()
            self.entries[entry.name] = entry
            self.scheduler.add_entry(entry.name, entry.name, entry.profile.cost_s(self.n))
            self._after(START_S, "stage", entry.name)

    def _next_stage(self, entry: Entry) -> None:
        stage = next((stage for stage in entry.rest if stage), None)
        if stage is None:
            self.scheduler.remove_entry(entry.name)
            del self.entries[entry.name]
            self._begin()
            return
        added = []
        for kind, seconds in stage:
            self.num_jobs += 1
            self.jobs[self.num_jobs] = entry, seconds
            added.append((self.num_jobs, kind))
        entry.num_open = len(added)
        self.scheduler.add_jobs(entry.name, added)

    def _answered(self, name: str, job: int) -> None:
        worker = self.workers[name]
        worker.jobs.popleft()
        worker.is_busy = False
        entry, seconds = self.jobs.pop(job)
        self.scheduler.answered(name, job, seconds)
        self._work(name)
        entry.num_open -= 1
        if not entry.num_open:
            self._after(BETWEEN_S, "stage", entry.name)

    def _hand_out(self) -> None:
        while given := self.scheduler.assign():
            for one in given:
                self.workers[one.worker].jobs.extend(one.jobs)
                self._work(one.worker)

    def _work(self, name: str) -> None:
        worker = self.workers[name]
        if worker.is_busy or not worker.jobs:
            return
        job = worker.jobs[0]
        entry, seconds = self.jobs[job]
        worker.is_busy = True
        self.scheduler.begun(name, job)
        self.busy_s += seconds
        if entry.name not in worker.held:
            seconds += LOAD_S
            self.load_s += LOAD_S
        worker.held[entry.name] = None
        worker.held.move_to_end(entry.name)
        while len(worker.held) > NUM_HELD:
            worker.held.popitem(last=False)
        self._after(seconds, "answer", name, job)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--n", type=int, default=10_000)
    options = parser.parse_args()
    known = profiles()
    print(f"{len(known)} entries with results; n = {options.n}, fewer where a track has fewer")
    ratio = math.nan
    for num_entries in options.entries:
        chosen = [known[number % len(known)] for number in range(num_entries)]
        for num_workers in options.workers:
            simulation = Simulation(chosen, options.n, num_workers)
            simulation.run()
            efficiency = simulation.busy_s / (num_workers * simulation.now)
            print(
                f"{num_entries:5} entries, {num_workers:3} workers: "
                f"{simulation.now / 3600:9.1f} h, efficiency {efficiency:.3f}, "
                f"{simulation.num_jobs} jobs, {simulation.load_s / 3600:.1f} h loading",
                flush=True,
            )
            if (num_entries, num_workers) == (100, 64):
                ratio = efficiency
    if not math.isnan(ratio):
        print(f"ratio {ratio:.3g}")
        sys.exit(ratio < 0.9)


if __name__ == "__main__":
    main()
