"""Workers: whatever becomes of them, each job is answered once, and what is to blame is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
import toy_workers

from corobench.benchmark.errors import CorobenchError, DependencyError
from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors import arrays
from corobench.benchmark.executors.backend import LOOK_S, Setup
from corobench.benchmark.executors.child import Target
from corobench.benchmark.executors.limits import GIB, Limits
from corobench.benchmark.executors.local_backend import LocalBackend
from corobench.benchmark.executors.pool import Asked, Done, Pool
from corobench.benchmark.executors.scheduling import MAX_TRIES
from corobench.benchmark.executors.versions import versions
from corobench.benchmark.files.steps import Ended

PATIENCE_S = 240.0


class Workers:
    """A pool of toy workers and the entry "a"."""

    def __init__(self, folder: Path, num: int, limits: Limits, target: Target) -> None:
        self.said: list[str] = []
        self.found: dict[tuple[str, int], bytes | Ended] = {}
        self.folder = folder
        self.images = folder / "images.npy"
        self.images.write_bytes(b"")
        scratch = folder / "scratch"
        scratch.mkdir()
        self.backend = LocalBackend(limits, scratch, target=target)
        self.pool = Pool(self.backend, num, versions, self.said.append)
        self.open("a")

    def open(self, entry: str, **told: object) -> None:
        self.pool.open(entry, Setup({"factor": 1, **told}, self.folder, self.images, entry))

    def ask(self, *kinds: str, entry: str = "a", first: int = 0) -> None:
        self.pool.ask(
            entry,
            [
                Asked(number, f"{kind}-{number}", kind, _text(number, kind))
                for number, kind in enumerate(kinds, first)
            ],
        )

    def turns(self) -> Iterator[list[Done]]:
        """Turns of the pool, for as long as a test may take; answers are noted."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            wait(self.pool.waitables(), LOOK_S)
            done = self.pool.turn()
            for one in done:
                assert (one.entry, one.number) not in self.found
                self.found[one.entry, one.number] = one.answer
            yield done
        raise AssertionError("nothing more happened")

    def answers(self, num: int) -> dict[tuple[str, int], object]:
        """The next `num` answers: squares, or why there are none."""
        self.until(lambda: len(self.found) >= num)
        found, self.found = self.found, {}
        assert len(found) == num
        return {
            key: one if isinstance(one, Ended) else arrays.unpack(one)["squares"].tolist()
            for key, one in found.items()
        }

    def until(self, holds: Callable[[], bool]) -> None:
        """Turns until something holds."""
        for _ in self.turns():
            if holds():
                return

    def pids(self) -> list[int]:
        """Of all workers."""
        return [worker.child.pid for worker in self.backend._workers.values()]

    def busy(self) -> list[int]:
        """Processes of the workers that have begun a job."""
        workers = self.backend._workers.values()
        return [worker.child.pid for worker in workers if worker.begun is not None]


def _text(number: int, kind: str) -> str:
    import json

    return json.dumps(Job(f"{kind}-{number}", kind, (number,)).as_json())


Make = Callable[..., Workers]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Workers] = []

    def make_one(
        num: int = 1, limits: Limits | None = None, target: Target = toy_workers.serve
    ) -> Workers:
        made.append(Workers(tmp_path, num, limits or Limits(), target))
        return made[-1]

    yield make_one
    for one in made:
        one.pool.close()


def _squares(*numbers: int, entry: str = "a") -> dict[tuple[str, int], object]:
    return {(entry, number): [number**2] for number in numbers}


def test_jobs_of_several_entries_are_answered(make: Make) -> None:
    workers = make(2)
    workers.open("b", factor=10)
    workers.open("c", factor=100)
    for entry in ("a", "b", "c"):
        workers.ask(*["square"] * 20, entry=entry)
    found = workers.answers(60)
    assert found == {
        (entry, number): [number**2 * factor]
        for entry, factor in (("a", 1), ("b", 10), ("c", 100))
        for number in range(20)
    }
    assert workers.said == []


def test_a_worker_that_is_killed_in_a_job_is_replaced_and_the_job_done(make: Make) -> None:
    workers = make(2)
    workers.ask("nap", "nap", "nap", "nap")
    workers.until(lambda: bool(workers.busy()))
    os.kill(workers.busy()[0], signal.SIGKILL)
    assert workers.answers(4) == _squares(0, 1, 2, 3)
    (said,) = workers.said
    assert "was lost: ended by SIGKILL, perhaps because memory ran out; another one is st" in said


def test_a_lost_worker_takes_no_other_one_with_it(make: Make) -> None:
    workers = make(3)
    workers.until(lambda: workers.pool.num_workers == 3)
    os.kill(workers.pids()[0], signal.SIGKILL)
    workers.until(lambda: bool(workers.said))
    workers.until(lambda: workers.pool.num_workers == 3)
    workers.ask(*["nap"] * 6)
    assert workers.answers(6) == _squares(*range(6))
    assert len(workers.said) == 1
    assert len(workers.pids()) == 3


def test_every_worker_is_killed_again_and_again(make: Make) -> None:
    workers = make(2)
    workers.ask(*["nap"] * 10)
    killed: set[int] = set()
    for _ in workers.turns():
        # No more losses than a job survives, even if all of them were its own.
        if workers.busy() and len(killed) < MAX_TRIES - 1:
            killed |= set(workers.pids()[: MAX_TRIES - 1 - len(killed)])
            for pid in killed & set(workers.pids()):
                os.kill(pid, signal.SIGKILL)
        if len(workers.found) == 10:
            break
    assert len(killed) == MAX_TRIES - 1
    assert workers.answers(10) == _squares(*range(10))


@pytest.mark.parametrize(
    ("kind", "reason"), [("crash", "ended by SIGABRT"), ("leave", "ended with exit code 3")]
)
def test_a_job_that_always_crashes_is_given_up_with_the_reason(
    make: Make, kind: str, reason: str
) -> None:
    workers = make(1)
    workers.ask(kind, "square", "square")
    found = workers.answers(3)
    assert found == {("a", 0): Ended(reason, by_clock=False), **_squares(1, 2)}
    assert len(workers.said) == MAX_TRIES


def test_a_workbench_that_crashes_while_it_is_loaded_ends_its_own_entry_alone(make: Make) -> None:
    workers = make(1)
    workers.open("bad", crashes=True)
    workers.ask(*["square"] * 5, entry="bad")
    workers.ask("square", "square")
    found = workers.answers(7)
    assert {found["bad", number] for number in range(5)} == {Ended("ended by SIGABRT", False)}
    assert found["a", 1] == [1]


def test_what_crashes_in_one_entry_changes_no_answer_of_another(make: Make) -> None:
    workers = make(1)
    workers.open("bad")
    workers.ask("square", "crash", "square", "leave", entry="bad")
    workers.ask("nap", "square", "nap", "square")
    found = workers.answers(8)
    assert {key: one for key, one in found.items() if key[0] == "a"} == _squares(*range(4))
    assert found["bad", 1] == Ended("ended by SIGABRT", by_clock=False)


@pytest.mark.parametrize(
    ("kind", "limits", "ended"),
    [
        ("hang", Limits(step_s=4.0), Ended("no answer within 4 s (--step-limit-s)", True)),
        (
            "eat",
            Limits(memory_bytes=GIB),
            Ended("used more than 1 GiB of memory (--memory-limit-gib)", False),
        ),
    ],
)
def test_what_a_limit_ends_is_not_tried_again(
    make: Make, kind: str, limits: Limits, ended: Ended
) -> None:
    workers = make(1, limits)
    workers.ask(kind, "square")
    assert workers.answers(2) == {("a", 0): ended, **_squares(1)}
    assert len(workers.said) == 1


def test_processor_time_has_a_limit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at by the system, however seldom the parent looks."""
    workers = make(1, Limits(step_s=3.0))
    worker = next(iter(workers.backend._workers.values()))
    monkeypatch.setattr(worker.child, "over_limit", lambda: None)
    workers.ask("spin")
    reason = "more than 3 s of processor time (--step-limit-s)"
    assert workers.answers(1) == {("a", 0): Ended(reason, by_clock=True)}


def test_an_exception_is_the_answer_of_its_job_and_the_worker_goes_on(make: Make) -> None:
    workers = make(1)
    workers.ask("square", "raise", "square")
    ended = Ended("ValueError: no such image", by_clock=False)
    assert workers.answers(3) == {("a", 1): ended, **_squares(0, 2)}
    assert workers.said == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("another job", "of a job that it had not begun"),
        ("too large", "sent a message of more than"),
        ("no message", "sent what is no message"),
        ("no event", "sent what is no event"),
        ("unbegun", "of a job that it had not begun"),
        ("twice", "of a job that it had not begun"),
    ],
)
def test_a_worker_that_sends_garbage_is_lost_and_named(make: Make, what: str, reason: str) -> None:
    workers = make(1, target=partial(toy_workers.serve_garbage, what))
    workers.ask("square")
    for _ in workers.turns():
        if workers.said:
            break
    assert workers.said[0].startswith("worker 0 was lost: ")
    assert reason in workers.said[0]


def test_half_a_message_does_not_hold_up_the_others(make: Make) -> None:
    workers = make(1, Limits(step_s=4.0), partial(toy_workers.serve_garbage, "half a message"))
    workers.ask("square")
    assert workers.answers(1) == {("a", 0): Ended("no answer within 4 s (--step-limit-s)", True)}


def test_answers_that_are_no_arrays_are_asked_for_again_a_bounded_number_of_times(
    make: Make,
) -> None:
    workers = make(1, target=partial(toy_workers.serve_garbage, "no arrays"))
    workers.ask("square")
    num_spoilt = 0
    for _ in workers.turns():
        answer = workers.found.pop(("a", 0), None)
        if isinstance(answer, Ended):
            break
        if answer is not None:
            num_spoilt += 1
            workers.pool.spoilt("a", 0)
    assert num_spoilt == MAX_TRIES
    assert answer == Ended("no worker's answer was whole", by_clock=False)
    assert "worker 0 was lost: its answer was no arrays; another one is started" in workers.said


def test_a_worker_with_other_versions_is_refused_and_named(make: Make) -> None:
    workers = make(1, target=toy_workers.serve_other_versions)
    workers.ask("square")
    with pytest.raises(DependencyError, match=r"torch 1\.0 instead of"):
        workers.until(lambda: False)
    assert workers.said[0].startswith("worker 0 (cpu) was refused: torch 1.0 instead of")


def test_workers_that_die_before_they_begin_a_job_are_one_error(make: Make) -> None:
    workers = make(1)
    with pytest.raises(CorobenchError, match="workers were lost before they began a job"):
        for _ in workers.turns():
            for pid in workers.pids():
                os.kill(pid, signal.SIGKILL)


def test_cancelled_jobs_are_not_answered(make: Make) -> None:
    workers = make(1)
    workers.ask(*["nap"] * 50)
    workers.until(lambda: bool(workers.busy()))
    workers.pool.cancel("a", 0, 48)
    assert workers.pool.num_left("a") == 1
    assert workers.answers(1) == _squares(49)
    workers.ask(*["nap"] * 50, first=100)
    workers.until(lambda: bool(workers.busy()))
    workers.pool.close_entry("a")
    workers.open("b")
    workers.ask("square", entry="b")
    assert workers.answers(1) == _squares(0, entry="b")


def test_a_frozen_worker_that_takes_no_orders_does_not_hold_up_the_others(make: Make) -> None:
    workers = make(2)
    workers.until(lambda: workers.pool.num_workers == 2)
    workers.ask("square", "square")
    workers.answers(2)
    frozen = workers.pids()[0]
    os.kill(frozen, signal.SIGSTOP)
    big = "x" * 3_000_000
    workers.pool.ask(
        "a",
        [
            Asked(number, "n", "square", _text(number, "square")[:-1] + f', "more": "{big}"}}')
            for number in range(10, 14)
        ],
    )
    workers.until(lambda: bool(workers.found))
    os.kill(frozen, signal.SIGKILL)
    assert workers.answers(4) == _squares(10, 11, 12, 13)


def test_arrays_from_anybody() -> None:
    import io
    import zipfile

    from corobench.benchmark.executors.wire import GarbageError

    values = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.array(["x", "yz"]),
        "d": np.array(True),
        "e": np.zeros((0, 1, 8, 8), np.float32),
    }
    found = arrays.unpack(arrays.pack(values))
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        arrays.pack({"a": np.array([None])})
    whole = arrays.pack(values)
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros(10**6))
    objects = io.BytesIO()
    np.savez(objects, a=np.array([None]))
    huge = io.BytesIO()
    with zipfile.ZipFile(huge, "w") as archive:
        header = io.BytesIO()
        told = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(header, told)
        archive.writestr("a.npy", header.getvalue())
    many = arrays.pack({f"a{number}": 0 for number in range(arrays.MAX_ARRAYS + 1)})
    for body in (
        *(b"", b"x", whole[:-10], whole[10:], packed.getvalue(), objects.getvalue()),
        *(huge.getvalue(), many, whole.replace(b"<f4", b"|O8")),
    ):
        with pytest.raises(GarbageError):
            arrays.unpack(body)
