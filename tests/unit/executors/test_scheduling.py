"""Who gets which job next: every job is answered once, whatever happens to the workers."""

from __future__ import annotations

import random

import pytest

from corobench.benchmark.executors.limits import MAX_ENDED
from corobench.benchmark.executors.scheduling import (
    MAX_AHEAD,
    MAX_TRIES,
    Given,
    Scheduler,
    UnexpectedError,
)
from corobench.benchmark.files.steps import PROOF_KINDS, Ended


def _with(num_workers: int, **costs: float) -> Scheduler:
    scheduler = Scheduler()
    for number in range(num_workers):
        scheduler.add_worker(f"w{number}")
    for entry, cost in costs.items():
        scheduler.add_entry(entry, f"bench-{entry}", cost)
    return scheduler


def _jobs(*numbers: int) -> list[tuple[int, str]]:
    return [(number, "attack") for number in numbers]


def _do(scheduler: Scheduler, worker: str, job: int, seconds: float = 10.0) -> str | None:
    scheduler.begun(worker, job)
    return scheduler.answered(worker, job, seconds)


def test_jobs_of_an_entry_keep_their_order_and_long_ones_are_handed_out_one_by_one() -> None:
    scheduler = _with(2, a=0)
    scheduler.add_jobs("a", _jobs(5, 3, 9))
    assert scheduler.assign() == [Given("w0", "a", (5,)), Given("w1", "a", (3,))]
    assert scheduler.assign() == []
    assert _do(scheduler, "w1", 3) == "a"
    assert scheduler.assign() == [Given("w1", "a", (9,))]
    assert _do(scheduler, "w0", 5) == "a"
    assert scheduler.assign() == []
    assert _do(scheduler, "w1", 9) == "a"
    assert scheduler.num_unanswered == 0


def test_the_entry_with_the_most_work_left_comes_first() -> None:
    scheduler = _with(1, short=10, long=12)
    scheduler.add_jobs("short", _jobs(1))
    scheduler.add_jobs("long", _jobs(2, 3, 4))
    for job in (2, 3):
        assert scheduler.assign() == [Given("w0", "long", (job,))]
        _do(scheduler, "w0", job, seconds=4)
    assert scheduler.assign() == [Given("w0", "short", (1,))]
    _do(scheduler, "w0", 1)
    assert scheduler.assign() == [Given("w0", "long", (4,))]


def test_a_worker_stays_with_its_entry_among_similar_ones() -> None:
    scheduler = _with(1, a=100, b=99)
    scheduler.add_jobs("a", _jobs(1, 2))
    scheduler.add_jobs("b", _jobs(3))
    scheduler.assign()
    _do(scheduler, "w0", 1, seconds=10)  # now b is the longer one
    assert scheduler.assign() == [Given("w0", "a", (2,))]


def test_a_job_goes_to_the_worker_that_holds_its_workbench() -> None:
    scheduler = _with(2, a=100, b=100)
    scheduler.add_jobs("a", _jobs(1))
    scheduler.add_jobs("b", _jobs(2))
    assert scheduler.assign() == [Given("w0", "a", (1,)), Given("w1", "b", (2,))]
    _do(scheduler, "w0", 1)
    _do(scheduler, "w1", 2)
    scheduler.add_jobs("b", _jobs(3))
    assert scheduler.assign() == [Given("w1", "b", (3,))]


def test_no_worker_idles_for_the_sake_of_a_workbench() -> None:
    scheduler = _with(2, a=100)
    scheduler.add_jobs("a", _jobs(1))
    scheduler.assign()
    _do(scheduler, "w0", 1)
    scheduler.add_jobs("a", _jobs(2, 3))
    assert {given.worker for given in scheduler.assign()} == {"w0", "w1"}


def test_short_jobs_are_handed_out_ahead_and_fairly() -> None:
    scheduler = _with(2, a=0)
    scheduler.add_jobs("a", _jobs(*range(1000)))
    scheduler.assign()
    _do(scheduler, "w0", 0, seconds=0.0001)
    given = dict[str, int]()
    for one in scheduler.assign():
        given[one.worker] = given.get(one.worker, 0) + len(one.jobs)
    assert given == {"w0": 1 + MAX_AHEAD, "w1": MAX_AHEAD}
    few = _with(2, a=0)
    few.add_jobs("a", _jobs(*range(7)))
    few.assign()
    _do(few, "w0", 0, seconds=0.0001)
    # The last ones are not all of one worker.
    assert [len(one.jobs) for one in few.assign()] == [1, 2, 1]


def test_a_crash_is_tried_again_first_and_a_bounded_number_of_times() -> None:
    scheduler = _with(3, a=0)
    scheduler.add_jobs("a", _jobs(1, 2))
    for number in range(MAX_TRIES):
        given = scheduler.assign()
        assert (given[0].worker, given[0].jobs) == (f"w{number}", (1,))
        if len(given) > 1:
            _do(scheduler, given[1].worker, given[1].jobs[0])
        scheduler.begun(f"w{number}", 1)
        decided = scheduler.lost(f"w{number}", "ended by SIGSEGV")
        scheduler.add_worker(f"again{number}")
        if number < MAX_TRIES - 1:
            assert decided == []
    assert [(one.job, one.ended) for one in decided] == [(1, Ended("ended by SIGSEGV", False))]
    assert scheduler.num_unanswered == 0


def test_what_a_limit_ended_is_not_tried_again() -> None:
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", _jobs(1, 2))
    scheduler.assign()
    scheduler.begun("w0", 1)
    ended = Ended("no answer within 3 s", by_clock=True)
    decided = scheduler.lost("w0", "it hung", ended)
    assert [(one.entry, one.job, one.ended) for one in decided] == [("a", 1, ended)]
    scheduler.add_worker("w1")
    assert scheduler.assign() == [Given("w1", "a", (2,))]


def test_jobs_that_only_waited_at_a_lost_worker_are_not_blamed() -> None:
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", _jobs(*range(20)))
    scheduler.assign()
    _do(scheduler, "w0", 0, seconds=0.001)
    first = [job for given in scheduler.assign() for job in given.jobs]
    for number in range(10):
        assert scheduler.lost(f"w{number}", "killed") == []
        scheduler.add_worker(f"w{number + 1}")
        given = [job for given in scheduler.assign() for job in given.jobs]
        assert given == first  # in the same order, and none is lost


def test_a_loss_that_is_nobodys_fault_does_not_count() -> None:
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", _jobs(1))
    for number in range(10):
        scheduler.assign()
        scheduler.begun(f"w{number}", 1)
        assert scheduler.lost(f"w{number}", "stopped by us", blames=False) == []
        scheduler.add_worker(f"w{number + 1}")
    assert scheduler.assign() == [Given("w10", "a", (1,))]


def test_after_too_many_ended_jobs_an_entry_is_given_up_and_others_are_not() -> None:
    scheduler = _with(1, a=0, b=0)
    scheduler.add_jobs("a", _jobs(*range(10)))
    scheduler.add_jobs("b", _jobs(100))
    ended = Ended("ValueError: no", by_clock=False)
    for job in range(MAX_ENDED):
        assert scheduler.assign() == [Given("w0", "a", (job,))]
        scheduler.begun("w0", job)
        decided = scheduler.failed("w0", job, ended)
    assert [one.job for one in decided] == list(range(MAX_ENDED - 1, 10))
    assert [one.job for one in scheduler.add_jobs("a", _jobs(50))] == [50]
    assert scheduler.assign() == [Given("w0", "b", (100,))]


@pytest.mark.parametrize("kind", PROOF_KINDS)
def test_proofs_that_end_give_up_no_entry(kind: str) -> None:
    """A certifier is not asked again after one; attacks go on where every certifier fails."""
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", [(job, kind) for job in range(2 * MAX_ENDED)])
    for job in range(2 * MAX_ENDED):
        assert scheduler.assign() == [Given("w0", "a", (job,))]
        scheduler.begun("w0", job)
        assert len(scheduler.failed("w0", job, Ended("IndexError", by_clock=False))) == 1
    assert scheduler.add_jobs("a", _jobs(50)) == []
    assert scheduler.assign() == [Given("w0", "a", (50,))]


def test_cancelled_jobs_are_not_handed_out_and_their_answers_are_nobodys() -> None:
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", _jobs(1, 2, 3))
    scheduler.assign()
    scheduler.begun("w0", 1)
    assert scheduler.cancel([1, 2, 77]) == [("w0", 1)]
    assert scheduler.answered("w0", 1, 1.0) is None
    assert scheduler.assign() == [Given("w0", "a", (3,))]
    assert scheduler.remove_entry("a") == [("w0", 3)]
    scheduler.begun("w0", 3)
    assert scheduler.failed("w0", 3, Ended("dropped", False)) == []
    assert scheduler.num_unanswered == 0


def test_a_cancelled_job_does_not_come_back_with_its_lost_worker() -> None:
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", _jobs(1))
    scheduler.assign()
    scheduler.cancel([1])
    assert scheduler.lost("w0", "killed") == []
    scheduler.add_worker("w1")
    assert scheduler.assign() == []


def test_a_spoilt_answer_is_computed_again_a_bounded_number_of_times() -> None:
    scheduler = _with(1, a=0)
    scheduler.add_jobs("a", _jobs(1))
    for number in range(MAX_TRIES):
        scheduler.assign()
        assert _do(scheduler, "w0", 1) == "a"
        decided = scheduler.spoilt("a", 1, "attack", number)
    assert [one.job for one in decided] == [1]
    assert scheduler.assign() == []


@pytest.mark.parametrize(
    "say",
    [
        lambda scheduler: scheduler.begun("w0", 2),
        lambda scheduler: scheduler.answered("w0", 1, 1.0),
        lambda scheduler: (scheduler.begun("w0", 1), scheduler.begun("w0", 1)),
        lambda scheduler: (scheduler.begun("w0", 1), scheduler.answered("w0", 2, 1.0)),
        lambda scheduler: (scheduler.begun("w0", 1), scheduler.failed("w0", 9, Ended("", False))),
        lambda scheduler: scheduler.begun("w1", 1),
    ],
)
def test_a_worker_cannot_speak_of_other_jobs(say: object) -> None:
    scheduler = _with(2, a=0)
    scheduler.add_jobs("a", _jobs(1))
    scheduler.assign()
    with pytest.raises(UnexpectedError):
        say(scheduler)  # type: ignore[operator]


def test_a_number_is_one_job() -> None:
    scheduler = _with(0, a=0)
    scheduler.add_jobs("a", _jobs(1))
    with pytest.raises(ValueError, match="job 1 is there already"):
        scheduler.add_jobs("a", _jobs(1))


@pytest.mark.parametrize("seed", range(60))
def test_every_job_is_answered_once_whatever_happens(seed: int) -> None:
    """Random answers, losses, cancels and new workers; nothing hangs and nothing comes twice."""
    draw = random.Random(seed)
    scheduler = _with(draw.randint(1, 4), a=draw.random(), b=draw.random(), c=0)
    names, number, answered, cancelled = ["a", "b", "c"], 0, dict[int, int](), set[int]()
    waiting = {f"w{one}": list[int]() for one in range(scheduler.num_workers)}
    begun: set[str] = set()

    def note(jobs: list[int]) -> None:
        for job in jobs:
            answered[job] = answered.get(job, 0) + 1

    num_events = 0
    while num_events < 300 or scheduler.num_unanswered:
        num_events += 1
        assert num_events < 5000
        if num_events < 300 and draw.random() < 0.2:
            new = list(range(number, number + draw.randint(1, 30)))
            number += len(new)
            note([one.job for one in scheduler.add_jobs(draw.choice(names), _jobs(*new))])
        for given in scheduler.assign():
            waiting[given.worker] += given.jobs
        # Nobody idles while a job is to be had.
        idle = [worker for worker, jobs in waiting.items() if not jobs]
        assert not idle or sum(map(len, waiting.values())) >= scheduler.num_unanswered
        if num_events < 300 and draw.random() < 0.05 and number:
            chosen = draw.randrange(number)
            cancelled.add(chosen)
            scheduler.cancel([chosen])
        worker = draw.choice(sorted(waiting))
        if draw.random() < 0.08:
            by_limit = Ended("limit", True) if draw.random() < 0.1 else None
            note([one.job for one in scheduler.lost(worker, "killed", by_limit)])
            begun.discard(worker)
            del waiting[worker]
            waiting[f"n{num_events}"] = []
            scheduler.add_worker(f"n{num_events}")
        elif waiting[worker] and worker not in begun:
            begun.add(worker)
            scheduler.begun(worker, waiting[worker][0])
        elif waiting[worker]:
            begun.discard(worker)
            job = waiting[worker].pop(0)
            if scheduler.answered(worker, job, draw.choice([0.0001, 1.0])):
                note([job])
    assert set(answered.values()) <= {1}
    assert set(range(number)) - set(answered) <= cancelled


def test_what_is_handed_out_does_not_depend_on_the_order_of_answers_for_one_entry() -> None:
    """Each order of answers gives the same jobs, each once."""
    for seed in range(20):
        draw = random.Random(seed)
        scheduler = _with(3, a=0)
        scheduler.add_jobs("a", _jobs(*range(50)))
        seen: list[int] = []
        at: dict[str, int] = {}
        while scheduler.num_unanswered:
            at |= {given.worker: given.jobs[0] for given in scheduler.assign()}
            worker = draw.choice(sorted(at))
            job = at.pop(worker)
            assert _do(scheduler, worker, job) == "a"
            seen.append(job)
        assert sorted(seen) == list(range(50))


def test_a_hundred_thousand_jobs_pass() -> None:
    """Where the work per job grew with their number, this would take hours."""
    scheduler = _with(8, a=0)
    scheduler.add_jobs("a", _jobs(*range(100_000)))
    done = 0
    while scheduler.num_unanswered:
        for given in scheduler.assign():
            for job in given.jobs:
                assert _do(scheduler, given.worker, job, seconds=0.0005) == "a"
                done += 1
    assert done == 100_000
