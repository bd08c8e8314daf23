"""A worker holds the networks of two entries in two processes, of which one computes at a time."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import toy_workers

from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors import arrays, landlock
from corobench.benchmark.executors.backend import (
    LOOK_S,
    NUM_HELD,
    Answered,
    Begun,
    Event,
    Failed,
    Lost,
    Order,
    Ready,
    Setup,
)
from corobench.benchmark.executors.bench_process import BenchProcess
from corobench.benchmark.executors.child import Target
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.slot import Slot

PATIENCE_S = 240.0


class Seat:
    """A worker and what it told."""

    def __init__(self, folder: Path, target: Target, device: str) -> None:
        self._folder = folder
        (folder / "images.npy").write_bytes(b"")
        (folder / "scratch").mkdir()
        self.slot = Slot("worker 0", device, Limits(), folder / "scratch", target)
        self.seen: list[Event] = []
        self.num_tokens = 0

    def setup(self, entry: int) -> Setup:
        return Setup({"factor": entry}, self._folder, self._folder / "images.npy", "")

    def orders(self, *kinds: str) -> list[Order]:
        found = []
        for kind in kinds:
            text = json.dumps(Job(kind, kind, (self.num_tokens,)).as_json())
            found.append(Order(self.num_tokens, text))
            self.num_tokens += 1
        return found

    def give(self, entry: int, *kinds: str) -> list[int]:
        """Tokens of jobs that the worker is given."""
        orders = self.orders(*kinds)
        self.slot.give(self.setup(entry), orders)
        return [order.token for order in orders]

    def until(self, holds: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < ends
            wait(self.slot.waitables, LOOK_S)
            self.seen += self.slot.events()

    def answers(self, *tokens: int) -> list[dict[str, Any]]:
        """Of so many jobs, once all are there."""
        self.until(lambda: set(tokens) <= self.bodies.keys())
        return [arrays.unpack(self.bodies[token]) for token in tokens]

    @property
    def bodies(self) -> dict[int, bytes]:
        return {one.token: one.body for one in self.seen if isinstance(one, Answered)}

    def told(self, kind: type[Event]) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]

    def pid(self, entry: int) -> int:
        (found,) = self.answers(*self.give(entry, "square"))
        return int(found["pid"])


Make = Callable[..., Seat]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Seat] = []

    def make_one(target: Target = toy_workers.serve, device: str = "cpu") -> Seat:
        made.append(Seat(tmp_path, target, device))
        made[-1].until(lambda: bool(made[-1].told(Ready)))
        return made[-1]

    yield make_one
    for one in made:
        one.slot.stop()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_entries_are_held_by_two_processes_that_never_compute_at_once(make: Make) -> None:
    seat = make()
    given = [(entry, seat.give(entry, "nap", "nap")) for entry in (1, 2, 1, 2)]
    tokens = [token for _, some in given for token in some]
    found = seat.answers(*tokens)
    assert [one["squares"].tolist() for one in found] == [
        [token**2 * entry] for entry, some in given for token in some
    ]
    pids = {entry: {int(found[token]["pid"]) for token in some} for entry, some in given}
    assert all(len(some) == 1 for some in pids.values())
    assert pids[1].isdisjoint(pids[2])
    assert {int(one["pid"]) for one in found} == pids[1] | pids[2]
    # The clock is the machine's, so that of two processes can be compared.
    spans = [one["span"].tolist() for one in found]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert [one.token for one in seat.told(Begun)] == tokens
    assert len(seat.told(Ready)) == 1


def test_the_process_that_was_used_longest_ago_is_ended(make: Make) -> None:
    seat = make()
    pids = [seat.pid(entry) for entry in range(NUM_HELD)]
    assert seat.pid(0) == pids[0]  # so the next one is the oldest
    seat.pid(NUM_HELD)
    assert not _is_alive(pids[1])
    assert seat.pid(0) == pids[0]
    assert seat.pid(1) != pids[1]
    assert len(seat.slot.children) == NUM_HELD
    seat.slot.stop()
    assert not any(_is_alive(child.pid) for child in seat.slot.children)


def test_the_end_of_a_process_that_waits_is_no_fault_of_the_job_at_work(make: Make) -> None:
    seat = make()
    pid = seat.pid(1)
    (token,) = seat.give(2, "nap")
    seat.until(lambda: any(one.token == token for one in seat.told(Begun)))
    os.kill(pid, signal.SIGKILL)
    assert seat.answers(token)[0]["squares"].tolist() == [token**2 * 2]
    assert seat.pid(1) != pid
    assert not seat.told(Lost)


def test_the_end_of_the_process_at_work_ends_the_others_of_the_worker(make: Make) -> None:
    seat = make()
    pid = seat.pid(1)
    seat.give(2, "crash")
    seat.give(1, "square")
    seat.until(lambda: bool(seat.told(Lost)))
    assert seat.seen[-1] == Lost("worker 0", "ended by SIGABRT")
    seat.slot.stop()
    assert not _is_alive(pid)


def test_a_process_cannot_answer_for_another_entry(make: Make) -> None:
    seat = make(partial(toy_workers.serve_garbage, "the next job, too"))
    (mine,) = seat.give(1, "square")
    seat.give(2, "square")
    seat.until(lambda: bool(seat.told(Lost)))
    assert seat.told(Lost) == [Lost("worker 0", "began a job that is not its next one")]
    assert set(seat.bodies) <= {mine}
    assert [one.token for one in seat.told(Begun)] == [mine]


def test_jobs_that_wait_for_another_entry_are_dropped_in_their_turn(make: Make) -> None:
    seat = make()
    (first,) = seat.give(1, "nap")
    second, third, fourth = seat.give(2, "square", "square", "square")
    seat.slot.drop([second, fourth])
    seat.answers(first, third)
    seat.until(lambda: len(seat.told(Failed)) == 2)
    dropped = [Failed("worker 0", token, "dropped") for token in (second, fourth)]
    assert seat.told(Failed) == dropped
    assert [one.token for one in seat.told(Begun)] == [first, second, third, fourth]


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
def test_no_process_writes_where_another_one_does(make: Make) -> None:
    seat = make()
    seat.answers(*seat.give(1, "pry"))  # there is no other one yet
    seat.give(2, "pry")
    seat.until(lambda: bool(seat.told(Failed)))
    assert seat.told(Failed)[0].reason.startswith("PermissionError")


def test_a_process_refuses_the_jobs_of_another_entry(make: Make, tmp_path: Path) -> None:
    seat = make()
    scratch = tmp_path / "alone"
    scratch.mkdir()
    process = BenchProcess(
        "alone", "cpu", Limits(), scratch, toy_workers.serve, tells_versions=False
    )
    seen: list[Event] = []
    try:
        process.give(seat.setup(1), seat.orders("square"), ())
        process.give(seat.setup(2), seat.orders("square"), ())
        ends = time.monotonic() + PATIENCE_S
        while not any(isinstance(one, Lost) for one in seen):
            assert time.monotonic() < ends
            wait(process.child.waitables, LOOK_S)
            seen += process.events()
    finally:
        process.child.stop()
    assert [type(one) for one in seen] == [Begun, Answered, Lost]
    assert seen[-1] == Lost("alone", "ended with exit code 1")


def test_a_process_that_is_started_afresh_must_have_the_same_versions(make: Make) -> None:
    seat = make(toy_workers.serve_new_versions, "cuda")
    first = seat.told(Ready)[0].versions["torch"]
    seat.give(1)
    seat.give(2)
    seat.until(lambda: bool(seat.told(Lost)))
    second = str(seat.slot.child.pid)
    reason = f"has other versions than before: torch {second} instead of {first}"
    assert seat.told(Lost) == [Lost("worker 0", reason)]
    assert len(seat.told(Ready)) == 1
