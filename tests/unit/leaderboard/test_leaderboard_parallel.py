"""Work by several processes: the same results in the same order, and the same errors."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from leaderboard_factory import make_result, write_evidence, write_result

from corobench.benchmark.errors import ResultError
from corobench.leaderboard import parallel
from corobench.leaderboard.build import build_site
from corobench.leaderboard.parallel import MANY, in_order

needs_fork = pytest.mark.skipif(not parallel._may_fork(), reason="no safe fork here")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with two processors."""
    monkeypatch.setattr(parallel, "_num_processors", lambda: 2)


@needs_fork
def test_results_come_in_the_order_of_the_items_from_other_processes(two: None) -> None:
    seen = {"state": 7}

    def work(item: int) -> tuple[int, int]:
        return item * seen["state"], os.getpid()

    done = in_order(work, range(MANY))
    assert [number for number, _ in done] == [7 * item for item in range(MANY)]
    assert os.getpid() not in {process for _, process in done}


def test_little_work_and_work_of_a_thread_stays_here(two: None) -> None:
    assert set(in_order(lambda _: os.getpid(), range(MANY - 1))) == {os.getpid()}
    found: set[int] = set()
    thread = threading.Thread(
        target=lambda: found.update(in_order(lambda _: os.getpid(), range(MANY)))
    )
    thread.start()
    thread.join()
    assert found == {os.getpid()}


@needs_fork
def test_an_error_is_that_of_the_work(two: None) -> None:
    def work(item: int) -> int:
        if item == MANY - 1:
            raise ResultError("a.npz: damaged")
        return item

    with pytest.raises(ResultError, match=r"a\.npz: damaged"):
        in_order(work, range(MANY))


@needs_fork
def test_a_site_is_the_same_by_one_process_and_by_two(
    tmp_path: Path, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in range(3):
        write_evidence(write_result(tmp_path / "results", make_result(f"entry-{place}")))
    written = []
    for many in (2, 1000):
        monkeypatch.setattr(parallel, "MANY", many)
        root = build_site([tmp_path / "results"], tmp_path / f"site-{many}").index.parent
        files = sorted(path for path in root.rglob("*") if path.is_file())
        written.append({path.relative_to(root): path.read_bytes() for path in files})
    assert written[0] == written[1]
