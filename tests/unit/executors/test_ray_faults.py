"""What is left of a Ray cluster's work when a machine, its head or a process is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_clusters import TESTS, Cluster, is_alive, ppid, wait_until
from ray_team import Team

from corobench.benchmark.errors import ConfigError, CorobenchError, DependencyError
from corobench.benchmark.executors.backend import Answered, Failed
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.node_files import NodeFiles
from corobench.benchmark.executors.pool import Pool
from corobench.benchmark.executors.ray_backend import RayBackend
from corobench.benchmark.executors.versions import versions

pytestmark = pytest.mark.slow


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that may be broken, whose head has room for one worker."""
    pytest.importorskip("ray")
    found = Cluster(num_cpus=1)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    yield found
    found.stop()


@pytest.fixture
def team(own: Cluster, tmp_path: Path) -> Iterator[Team]:
    found = Team(Crew(ray=own.address), tmp_path)
    yield found
    found.backend.close()


def test_a_machine_is_lost(own: Cluster, team: Team) -> None:
    (first,) = team.start()  # the head has no more room
    second_node = own.add(num_cpus=1)
    (second,) = team.start()
    isolated = team.pid(second)
    assert ppid(ppid(isolated)) in second_node.pids()
    token = team.give(second, "wait", mark=str(team.folder / "never"))
    team.until(lambda: team.seen[-1].worker == second)
    second_node.kill("raylet/raylet")
    lost = team.lost(second)
    assert lost.by_limit is None
    wait_until("its isolated process ends", lambda: not is_alive(isolated))
    assert team.about(token, Answered, Failed) == []
    # The others go on, and so does a new machine.
    assert isinstance(team.ask(first, "sum"), dict)
    own.add(num_cpus=1)
    (third,) = team.start()
    assert isinstance(team.ask(third, "sum"), dict)


@pytest.mark.parametrize("what", ["gcs/gcs_server", "raylet/raylet"])
def test_the_head_is_lost(own: Cluster, team: Team, what: str) -> None:
    (worker,) = team.start()
    isolated = team.pid(worker)
    own.nodes[0].kill(what)
    with pytest.raises(CorobenchError, match="What is finished is kept"):
        team.until(lambda: False)
    wait_until("its isolated process ends", lambda: not is_alive(isolated))


def test_the_process_that_speaks_with_ray_is_lost(team: Team) -> None:
    (worker,) = team.start()
    isolated = team.pid(worker)
    (relay,) = _relays(os.getpid())
    os.kill(relay, signal.SIGKILL)
    with pytest.raises(CorobenchError, match=r"ended by SIGKILL.*What is finished is kept"):
        team.until(lambda: False)
    wait_until("its isolated process ends", lambda: not is_alive(isolated))


def _relays(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            text = (folder / "cmdline").read_text()
            if "spawn_main" in text and ppid(pid) == parent:
                found.append(pid)
        except (OSError, UnicodeDecodeError):
            continue
    return found


_LOCAL = """
import sys, tempfile, toy_bench
from pathlib import Path
from ray_team import Team
from corobench.benchmark.executors.crew import Crew

if __name__ == "__main__":
    team = Team(Crew(1, ray="local"), Path(tempfile.mkdtemp(dir=sys.argv[1])))
    (worker,) = team.start()
    print(team.pid(worker), flush=True)
    sys.stdin.read()
    team.backend.close()
"""


@pytest.mark.parametrize("how", ["the end", "a kill", "a kill of the relay"])
def test_nothing_is_left_of_a_private_cluster(how: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(TESTS), "TMPDIR": str(tmp_path)}
    before = set(Path("/tmp").glob("cb-*"))
    script = tmp_path / "local.py"
    script.write_text(_LOCAL)
    command = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdin is not None
    assert command.stdout is not None
    isolated = int(command.stdout.readline())
    (relay,) = _relays(command.pid)
    mine = _of_session(relay)
    assert len(mine) > 3
    assert os.getpriority(os.PRIO_PROCESS, isolated) == os.getpriority(os.PRIO_PROCESS, 0)
    if how == "the end":
        command.stdin.close()
    elif how == "a kill":
        command.kill()
    else:
        os.kill(relay, signal.SIGKILL)
        command.stdin.close()
    wait_until("everything ends", lambda: not any(map(is_alive, [isolated, *mine])))
    command.kill()
    command.wait()
    assert set(Path("/tmp").glob("cb-*")) == before
    folder = tmp_path / f"corobench-{os.getuid()}"
    if how != "the end":
        NodeFiles("another", folder).close()  # removes what was left
    assert list(folder.iterdir()) == []


def _command(pid: int) -> str:
    return (Path("/proc") / str(pid) / "cmdline").read_text().split("\0")[0]


def _of_session(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_wrong_token(own: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    with pytest.raises(ConfigError, match=r"refuses this machine.*RAY_AUTH_TOKEN_PATH"):
        RayBackend(Crew(ray=own.address), Limits(), tmp_path)


def test_other_versions_are_refused_by_name(team: Team) -> None:
    said: list[str] = []
    here = {**versions(), "torch": "0.1"}
    pool = Pool(team.backend, 1, lambda: here, said.append)
    with pytest.raises(DependencyError, match=r"torch .* instead of 0\.1"):
        wait_until("a worker is refused", lambda: pool.turn() == [] and False)
    assert "was refused: torch" in said[0]


def test_who_has_no_room_is_said(team: Team) -> None:
    (worker,) = team.start()
    team.said.clear()
    team.backend.start(1)
    team.until(lambda: team.said)
    assert team.said[-1].startswith("1 of 2 workers have not started yet")
    assert isinstance(team.ask(worker, "sum"), dict)


@pytest.mark.parametrize("what", ["/raylet", "ray::RuntimeEnvAgent", "ray::DashboardAgent"])
def test_the_node_of_a_private_cluster_is_lost(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raylet ends with its agents; then Ray would wait for ever for room that nobody has."""
    pytest.importorskip("ray")
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    team = Team(Crew(1, ray="local"), tmp_path)
    try:
        (worker,) = team.start()
        isolated = team.pid(worker)
        (relay,) = _relays(os.getpid())
        (pid,) = (pid for pid in _of_session(relay) if _command(pid).endswith(what))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(CorobenchError, match="What is finished is kept"):
            team.until(lambda: False)
    finally:
        team.backend.close()
    wait_until("its isolated process ends", lambda: not is_alive(isolated))
