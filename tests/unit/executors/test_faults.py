"""Whatever is killed, full, late or doubled: the result is the undisturbed one, times aside."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import trapped
from rich.console import Console

from corobench.benchmark.errors import OutputError
from corobench.benchmark.evaluation.settings import Evaluated, Settings
from corobench.benchmark.executors import bench_worker, isolated
from corobench.benchmark.executors.backend import Backend, Begun, Event
from corobench.benchmark.executors.child import Child
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.entries import evaluate_all
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.local_backend import LocalBackend
from corobench.benchmark.executors.work import Unwatched, Work
from corobench.benchmark.files.progress import Reporter

TEMPLATE = Path(__file__).parents[3] / "submissions" / "_template"
SIZES = (4, 7)
#: The command, with the same works as `_works`, in an interpreter of its own.
COMMAND = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
if __name__ == "__main__":
    import test_faults
    test_faults.evaluate(Path(sys.argv[1]))
"""


def _works(out: Path) -> list[Work]:
    return [Work(TEMPLATE, Settings(n=n, epsilons=("1/3", "1/2"), out=out)) for n in SIZES]


def evaluate(
    out: Path, make_backend: Callable[..., Backend] | None = None
) -> list[Evaluated | Exception]:
    """Two results, with two workers."""
    works = _works(out)
    return [*evaluate_all(works, Limits(), Crew(2), Unwatched(), make_backend)]


def _found(out: Path) -> dict[str, Any]:
    """What is in a folder of results, times aside."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".json":
            payload = json.loads(path.read_text())
            payload.pop("seconds")
            payload["files"].pop("outcomes.parquet")  # has seconds in it, too
            found[name] = payload
        elif path.suffix == ".parquet":
            table = pd.read_parquet(path)
            found[name] = table.drop(columns=["seconds"]).to_csv()
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a single process makes of it, which nobody disturbs."""
    from corobench.benchmark.evaluation import evaluate as module

    out = tmp_path_factory.mktemp("calm")
    for work in _works(out):
        report = Reporter("test", Console(file=io.StringIO()))
        module.evaluate(work.folder, work.settings, report)
    found = _found(out)
    assert len([name for name in found if name.endswith(".json")]) == len(SIZES)
    return found


def test_workers_change_nothing(tmp_path: Path, calm: dict[str, Any]) -> None:
    assert not [one for one in evaluate(tmp_path) if isinstance(one, Exception)]
    assert _found(tmp_path) == calm
    for outcome in evaluate(tmp_path):
        assert isinstance(outcome, Evaluated)
        assert outcome.reused


def test_each_job_loses_its_worker_once(
    tmp_path: Path, calm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: set[int] = set()
    events = LocalBackend.events

    def kill(self: LocalBackend) -> list[Event]:
        found = events(self)
        for event in found:
            if isinstance(event, Begun) and event.token not in killed:
                killed.add(event.token)
                worker = self._workers.get(event.worker)
                if worker is not None:
                    os.kill(worker.child.pid, signal.SIGKILL)
        return found

    monkeypatch.setattr(LocalBackend, "events", kill)
    evaluate(tmp_path)
    assert len(killed) > 10
    assert _found(tmp_path) == calm


@pytest.mark.slow
def test_the_process_of_an_entry_is_lost_in_each_step_once(
    tmp_path: Path, calm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: set[str] = set()
    begin = Child.begin

    def kill(self: Child, step: str) -> None:
        begin(self, step)
        if step.startswith(("load", "measure", "workers on")) and step not in killed:
            killed.add(step)
            os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(Child, "begin", kill)
    evaluate(tmp_path)
    assert len(killed) > 5
    assert _found(tmp_path) == calm


def _command(out: Path) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(out), str(here), str(here.parents[1])],
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_the_command_is_killed_and_given_again(tmp_path: Path, calm: dict[str, Any]) -> None:
    command = _command(tmp_path)
    ends = time.monotonic() + 200
    while not list(tmp_path.glob(".chunks/*/*.chunk")):
        assert time.monotonic() < ends and command.poll() is None
        time.sleep(0.01)
    command.kill()
    command.communicate()
    assert not list(tmp_path.glob("[!.]*/*/*.json"))
    evaluate(tmp_path)
    assert _found(tmp_path) == calm


@pytest.mark.slow
def test_two_commands_work_on_one_output_at_once(tmp_path: Path, calm: dict[str, Any]) -> None:
    commands = [_command(tmp_path) for _ in range(2)]
    for command in commands:
        _, said = command.communicate(timeout=300)
        assert command.returncode == 0, said.decode()
    assert _found(tmp_path) == calm


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(
    tmp_path: Path, calm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(isolated, "serve", partial(trapped.serve_full, 3))
        for outcome in evaluate(tmp_path):
            assert isinstance(outcome, OutputError)
            assert "cannot be written (No space left on device)" in str(outcome)
            assert outcome.exit_code == 2
    evaluate(tmp_path)
    assert _found(tmp_path) == calm


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, calm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jumping = partial(trapped.serve_with_jumping_clock, bench_worker.serve)

    def backend(crew: Crew, limits: Limits, scratch: Path) -> Backend:
        return LocalBackend(limits, scratch, crew.devices, jumping)

    serve = partial(trapped.serve_with_jumping_clock, isolated.serve)
    monkeypatch.setattr(isolated, "serve", serve)
    monkeypatch.setattr(time, "time", time.time)  # is put back
    trapped.jump()
    evaluate(tmp_path, backend)
    assert _found(tmp_path) == calm
