"""Several entries share workers: what becomes of one leaves the others alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import toy_workers

from corobench.benchmark.errors import CorobenchError, SubmissionError
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.executors import isolated
from corobench.benchmark.executors.backend import Backend
from corobench.benchmark.executors.child import Child, Target
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.entries import evaluate_all
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.local_backend import LocalBackend
from corobench.benchmark.executors.scheduling import MAX_TRIES
from corobench.benchmark.executors.work import Unwatched, Work


class _Watch(Unwatched):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.num_began = 0

    def began(self, work: Work) -> None:
        self.num_began += 1

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        if message["kind"] == "say":
            self.text.append(f"{work.folder.name}: {message['text']}")

    def workers(self, text: str) -> None:
        self.text.append(text)


class _Given:
    """Entries of toys, by what their folders are called."""

    def __init__(self, folder: Path, target: Target = toy_workers.serve) -> None:
        self.folder, self.target = folder, target
        self.watch = _Watch()

    def backend(self, crew: Crew, limits: Limits, scratch: Path) -> Backend:
        return LocalBackend(limits, scratch, crew.devices, self.target)

    def evaluate(self, *names: str, limits: Limits | None = None, num_workers: int = 2) -> Any:
        works = []
        for number, name in enumerate(names):
            folder = self.folder / str(number) / name
            folder.mkdir(parents=True, exist_ok=True)
            works.append(Work(folder, Settings(out=self.folder), float(number)))
        crew = Crew(num_workers)
        return evaluate_all(works, limits or Limits(), crew, self.watch, self.backend)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Given:
    monkeypatch.setattr(isolated, "serve", toy_workers.drive)
    monkeypatch.setattr(isolated, "evaluated", lambda done: done)
    return _Given(tmp_path)


def _total(num: int) -> dict[str, Any]:
    return {"total": sum(number**2 for number in range(num)), "reasons": []}


def test_each_entry_gets_its_own_answers(given: _Given) -> None:
    names = ["100-square", "1-square", "7-nap", "50-square", "30-square", "2-nap"]
    assert given.evaluate(*names) == [_total(int(name.split("-")[0])) for name in names]
    assert given.watch.text == ["2 workers"]
    assert given.watch.num_began == 6


def test_what_an_entry_does_not_need_any_more_is_dropped(given: _Given) -> None:
    first, second = given.evaluate("500-nap-stop", "20-square")
    assert first["reasons"] == []
    assert second == _total(20)


def test_a_job_that_always_crashes_has_no_answer_and_the_others_do(given: _Given) -> None:
    crashing, hanging, well = given.evaluate("1-crash", "1-hang", "9-nap", limits=Limits(step_s=5))
    assert crashing["reasons"] == ["crash-0: ended by SIGABRT"]
    assert hanging["reasons"] == ["hang-0: no answer within 5 s (--step-limit-s)"]
    assert well == _total(9)


def test_after_too_many_ended_jobs_the_rest_of_the_entry_is_not_begun(given: _Given) -> None:
    """Not even the job that it asks for later."""
    raising, well = given.evaluate("100-raise", "9-square")
    assert len(raising["reasons"]) == 101
    assert "more: ValueError: no such image" in raising["reasons"]
    assert well == _total(9)


def test_the_process_of_an_entry_that_dies_is_started_again(given: _Given) -> None:
    assert given.evaluate("9-nap-die", "3-square") == [_total(9), _total(3)]
    said = [text for text in given.watch.text if "trying again" in text]
    assert said == ["9-nap-die: workers on nap-0 lost its process: ended by SIGABRT; trying again"]


def test_what_kills_the_process_of_an_entry_each_time_has_no_answer_and_the_others_do(
    given: _Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Child.begin

    def kill(self: Child, step: str) -> None:
        begin(self, step)
        if step == "workers on nap-0":
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(Child, "begin", kill)
    first, second = given.evaluate("9-nap", "9-square")
    ended = "ended by SIGKILL, perhaps because memory ran out"
    assert first["reasons"] == [f"nap-{number}: {ended}" for number in range(9)]
    assert second == _total(9)
    assert given.watch.num_began == MAX_TRIES + 2


@pytest.mark.parametrize(
    "kill",
    ["worker", "entry"],
)
def test_kills_change_nothing(given: _Given, kill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every tenth message of a process it is killed, some times."""
    seen = {"worker": 0, "entry": 0, "killed": 0}
    arrived = Child.arrived

    def sometimes(self: Child) -> Any:
        found = arrived(self)
        kind = "entry" if isinstance(self, Child) and self.step.startswith("w") else "worker"
        if isinstance(found, list) and found:
            seen[kind] += 1
            if kind == kill and seen[kind] % 10 == 0 and seen["killed"] < 5:
                seen["killed"] += 1
                os.kill(self.pid, signal.SIGKILL)
        return found

    monkeypatch.setattr(Child, "arrived", sometimes)
    names = ["60-square", "9-nap", "40-square", "8-nap"]
    done = given.evaluate(*names)
    assert [one for one in done if isinstance(one, CorobenchError)] == []
    assert done == [_total(int(name.split("-")[0])) for name in names]


def test_the_process_of_an_entry_cannot_have_files_elsewhere_sent_to_workers(
    given: _Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x")
    monkeypatch.setattr(isolated, "serve", partial(toy_workers.ask_for_file, "../../secret"))
    (first,) = given.evaluate("1-square")
    assert isinstance(first, SubmissionError)
    assert "sent what is no message" in str(first)


def test_whatever_the_process_of_an_entry_says_the_others_are_finished(
    given: _Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        '{"kind": "done"}',
        '{"kind": "done", "value": "no JSON"}',
        '{"kind": "done", "value": "3"}',
        '{"kind": "refused"}',
        '{"kind": "refused", "name": "SubmissionError", "path": "a", "faults": 3}',
        '{"kind": "failed", "name": "printable", "text": "a"}',
        '{"kind": "failed", "name": "ConfigError"}',
        '{"kind": "failed", "name": ["ConfigError"], "text": "a"}',
        '{"kind": "note", "text": "a", "number": Infinity}',
        '{"kind": "step"}',
        '{"kind": "cancel", "bench": Infinity, "first": 0, "last": 0}',
        '{"kind": "setup", "bench": Infinity, "images": "a", "told": {}, "sha256": ""}',
        f'{{"kind": "setup", "bench": 0, "images": "{"a" * 5000}", "told": {{}}, "sha256": ""}}',
        '{"kind": "jobs", "bench": 7, "jobs": []}',
        str(signal.SIGRTMIN + 6),
    ]
    texts = {f"strange {number}": text for number, text in enumerate(said)}
    monkeypatch.setattr(isolated, "serve", partial(toy_workers.say, texts))
    *strange, well = given.evaluate(*texts, "9-square")
    assert [text for text, one in zip(said, strange, strict=True) if isinstance(one, dict)] == []
    assert well == _total(9)


@pytest.mark.parametrize("path", ["pipe", "folder", "nothing", "a\0b", "a" * 5000])
def test_a_result_that_the_process_of_an_entry_did_not_write_is_told(
    path: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorobenchError, match="wrote no result"):
        isolated.evaluated({"path": str(tmp_path / path), "reused": False})


def test_answers_that_are_no_arrays_are_found_by_the_process_of_the_entry(given: _Given) -> None:
    given.target = partial(toy_workers.serve_garbage, "no arrays")
    (first,) = given.evaluate("1-square", num_workers=2)
    reasons = ["more: no worker's answer was whole", "square-0: no worker's answer was whole"]
    assert first["reasons"] == reasons
    lost = [text for text in given.watch.text if "its answer was no arrays" in text]
    assert len(lost) >= MAX_TRIES


@pytest.mark.slow
def test_the_server_that_processes_are_forked_from_may_be_killed(given: _Given) -> None:
    assert given.evaluate("3-square") == [_total(3)]
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGKILL)
    assert given.evaluate("3-square") == [_total(3)]
    assert forkserver._forkserver._forkserver_pid != server  # type: ignore[attr-defined]


def test_a_server_that_is_lost_each_time_is_one_error(
    given: _Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: BaseProcess) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(BaseProcess, "start", start)
    with pytest.raises(CorobenchError, match="enough memory"):
        given.evaluate("3-square")


def test_no_workers_at_all_is_one_error(given: _Given) -> None:
    given.target = toy_workers.serve_other_versions
    with pytest.raises(CorobenchError, match="every worker was refused"):
        given.evaluate("1-square")


@pytest.mark.slow
def test_a_hundred_thousand_jobs(given: _Given) -> None:
    assert given.evaluate("100000-square") == [_total(100_000)]
