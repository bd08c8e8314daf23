"""Workers on a Ray cluster: the same answers, whatever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_clusters import Cluster, is_alive, ppid, wait_until
from ray_team import Team

from corobench.benchmark.errors import ConfigError, CorobenchError, DependencyError
from corobench.benchmark.executors import ray_backend
from corobench.benchmark.executors.backend import Begun, Lost
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.ray_backend import RayBackend


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
