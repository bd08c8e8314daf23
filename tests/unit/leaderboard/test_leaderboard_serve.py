"""`corobench serve` and `render --watch`: a local look that follows the files."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import pytest
from leaderboard_factory import make_result, write_result

from corobench.benchmark.errors import ConfigError
from corobench.leaderboard.build import build_site
from corobench.leaderboard.cli_serve import serving, watch


def test_the_server_shows_the_site_on_this_machine(tmp_path: Path) -> None:
    write_result(tmp_path / "results", make_result("lwm-10x"))
    index = build_site([tmp_path / "results"], tmp_path / "site").index
    with serving(index.parent, 0) as server:
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html") as answer:
            assert answer.read() == index.read_bytes()


def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    with serving(tmp_path, 0) as server:
        port = server.server_address[1]
        with pytest.raises(ConfigError, match=f"--port {port}: cannot be used"):
            serving(tmp_path, port)


def test_a_changed_result_is_built_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    path = write_result(results, make_result("lwm-10x"))
    stop, built = threading.Event(), threading.Event()

    def build() -> None:
        built.set()
        stop.set()

    watching = threading.Thread(target=watch, args=((results,), build, stop), daemon=True)
    watching.start()
    for number in range(300):  # the watcher needs a moment before it sees anything
        path.write_text(path.read_text() + " ")
        if built.wait(0.1):
            break
        assert watching.is_alive(), number
    watching.join(10)
    assert built.is_set()
