"""Workers on a Ray cluster: the same answers, whatever is killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest
import toy_bench
from ray_clusters import Cluster, is_alive, ppid, wait_until

from corobench.benchmark.errors import ConfigError, CorobenchError, DependencyError
from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors import arrays, ray_backend
from corobench.benchmark.executors.backend import (
    Answered,
    Begun,
    Event,
    Failed,
    Lost,
    Order,
    Ready,
    Setup,
)
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.ray_backend import RayBackend

PATIENCE_S = 3.0


class Team:
    """A backend, a submission, and what has happened."""

    def __init__(self, crew: Crew, folder: Path, limits: Limits | None = None) -> None:
        self.folder, self.said = folder, list[str]()
        place = folder / "submission"
        place.mkdir()
        (place / "submission.toml").write_text("hello")
        (place / "weights").write_text("world")
        (place / "link").symlink_to("/etc/hostname")
        images = folder / "images.npy"
        np.save(images, np.arange(10.0))
        digest = hashlib.sha256(images.read_bytes()).hexdigest()
        self.setup = Setup({"seed": 0}, place, images, digest)
        (folder / "scratch").mkdir()
        self.backend = RayBackend(
            crew,
            limits or Limits(),
            folder / "scratch",
            self.said.append,
            toy_bench.serve,
            PATIENCE_S,
        )
        self.seen: list[Event] = []
        self.num_tokens = 0

    def start(self, count: int = 1) -> list[str]:
        """Names of so many new workers, which are ready."""
        known = {event.worker for event in self.seen if isinstance(event, Ready)}
        self.backend.start(count)
        self.until(lambda: len(self._ready() - known) >= count)
        return sorted(self._ready() - known)

    def _ready(self) -> set[str]:
        return {event.worker for event in self.seen if isinstance(event, Ready)}

    def until(self, holds: object, most_s: float = 120.0) -> None:
        def look() -> bool:
            wait(self.backend.waitables(), 0.05)
            self.seen += self.backend.events()
            assert callable(holds)
            return bool(holds())

        wait_until("an event", look, most_s)

    def give(self, worker: str, kind: str, **told: object) -> int:
        token = self.num_tokens
        self.num_tokens += 1
        job = Job(f"{kind}-{token}", kind, (1, 2), "", told)
        self.backend.give(worker, self.setup, [Order(token, json.dumps(job.as_json()))])
        return token

    def found(self, token: int) -> dict[str, np.ndarray] | str:
        """Arrays of a job, or why there are none."""
        (event,) = self.about(token, Answered, Failed)
        if isinstance(event, Answered):
            return arrays.unpack(event.body)
        assert isinstance(event, Failed)
        return event.reason

    def about(self, token: int, *kinds: type[Event]) -> list[Event]:
        return [one for one in self.seen if isinstance(one, kinds) and vars(one)["token"] == token]

    def ask(self, worker: str, kind: str, **told: object) -> dict[str, np.ndarray] | str:
        token = self.give(worker, kind, **told)
        self.until(lambda: self.about(token, Answered, Failed))
        assert len(self.about(token, Begun)) == 1
        return self.found(token)

    def lost(self, worker: str) -> Lost:
        """What is said of a worker that is lost."""

        def mine() -> list[Lost]:
            return [one for one in self.seen if isinstance(one, Lost) and one.worker == worker]

        self.until(mine)
        (event,) = mine()
        return event

    def pid(self, worker: str) -> int:
        found = self.ask(worker, "pid")
        assert isinstance(found, dict)
        return int(found["pid"])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    found = Cluster(num_cpus=2)
    yield found
    found.stop()


@pytest.fixture
def at_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, with its token in the environment."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return cluster


@pytest.fixture
def team(at_cluster: Cluster, tmp_path: Path) -> Iterator[Team]:
    found = Team(Crew(ray=at_cluster.address), tmp_path)
    yield found
    found.backend.close()


def test_workers_compute_and_the_lost_are_told(team: Team) -> None:
    """One test, because a worker takes seconds to start."""
    assert team.backend.size == 2  # the cores of the cluster
    (worker,) = team.start()
    found = team.ask(worker, "sum")
    assert isinstance(found, dict)
    assert found["sum"] == 3.0
    found = team.ask(worker, "files")
    assert isinstance(found, dict)
    assert found["names"].tolist() == ["submission.toml hello", "weights world"]
    found = team.ask(worker, "large", size=20_000_000)
    assert isinstance(found, dict)
    assert found["zeros"].shape == (20_000_000,)
    assert team.ask(worker, "raise") == "ValueError: no such thing"

    # The isolated process dies: the reason is told, and what is begun is known.
    token = team.give(worker, "killed-once", mark=str(team.folder / "mark"))
    assert team.lost(worker) == Lost(worker, "ended by SIGKILL, perhaps because memory ran out")
    assert len(team.about(token, Begun)) == 1

    # The process that speaks for it dies: the isolated one ends with it.
    (worker,) = team.start()
    isolated = team.pid(worker)
    os.kill(ppid(ppid(isolated)), signal.SIGKILL)
    assert "ActorDiedError" in team.lost(worker).reason
    wait_until("the isolated process ends", lambda: not is_alive(isolated))

    # What is given to a lost worker is of no effect, and another one goes on.
    team.give(worker, "sum")
    (other,) = team.start()
    assert isinstance(team.ask(other, "sum"), dict)


def test_nobody_at_an_address(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for address, error, words in (
        ("127.0.0.1:1", CorobenchError, "nobody answers"),
        ("ray://127.0.0.1:10001", ConfigError, "expected local, auto, or host:port"),
        ("nonsense", ConfigError, "expected local, auto, or host:port"),
    ):
        with pytest.raises(error, match=words):
            RayBackend(Crew(ray=address), Limits(), tmp_path)


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'corobench\[ray\]'"):
        RayBackend(Crew(ray="local"), Limits(), tmp_path)
