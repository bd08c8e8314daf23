"""Files that workers of one machine share."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from corobench.benchmark.errors import OutputError
from corobench.benchmark.executors import node_files
from corobench.benchmark.executors.node_files import NodeFiles


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Fetched:
    """Gives bytes by their sha256, and counts."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {_digest(content): content for content in contents}
        self.asked: list[str] = []

    def __call__(self, sha256: str) -> bytes:
        self.asked.append(sha256)
        return self.contents[sha256]


def test_a_file_comes_once_and_is_removed_with_the_last_worker(tmp_path: Path) -> None:
    base, fetch = tmp_path / "base", _Fetched(b"weights")
    first = NodeFiles("run", base)
    second = NodeFiles("run", base)
    assert first.scratch != second.scratch
    files = {"submission/weights": _digest(b"weights")}
    for worker in (first, second, first):
        folder = worker.lay_out("key", files, fetch)
        assert (folder / "submission" / "weights").read_bytes() == b"weights"
    assert len(fetch.asked) == 1
    first.close()
    assert (folder.parent).exists() is False
    assert list(second.lay_out("key", files, fetch).rglob("weights"))
    second.close()
    assert list(base.iterdir()) == []


def test_other_bytes_are_refused_and_damaged_ones_replaced(tmp_path: Path) -> None:
    base, fetch = tmp_path / "base", _Fetched(b"weights")
    worker = NodeFiles("run", base)
    with pytest.raises(OutputError, match="other bytes came"):
        worker.lay_out("key", {"x": _digest(b"weights")}, lambda sha256: b"others")
    worker.lay_out("one", {"x": _digest(b"weights")}, fetch)
    (shared,) = (base / "run" / "files").iterdir()
    shared.chmod(0o600)
    shared.write_bytes(b"damaged")
    folder = worker.lay_out("two", {"x": _digest(b"weights")}, fetch)
    assert (folder / "x").read_bytes() == b"weights"
    worker.close()


def test_only_the_last_setups_are_kept(tmp_path: Path) -> None:
    base = tmp_path / "base"
    contents = [str(number).encode() for number in range(node_files.NUM_KEPT + 2)]
    fetch = _Fetched(*contents)
    worker = NodeFiles("run", base)
    for content in contents:
        worker.lay_out(content.decode(), {"x": _digest(content)}, fetch)
    assert len(list((base / "run" / "files").iterdir())) == node_files.NUM_KEPT
    again = worker.lay_out("0", {"x": _digest(b"0")}, fetch)
    assert (again / "x").read_bytes() == b"0"
    assert fetch.asked.count(_digest(b"0")) == 2
    worker.close()


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../../x", "a//b"])
def test_nothing_is_written_elsewhere(tmp_path: Path, path: str) -> None:
    worker = NodeFiles("run", tmp_path / "base")
    with pytest.raises(OutputError, match="expected a path below"):
        worker.lay_out("key", {path: _digest(b"x")}, _Fetched(b"x"))
    worker.close()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir(mode=0o755)
    with pytest.raises(OutputError, match="only you can use"):
        NodeFiles("run", base)
    link = tmp_path / "link"
    link.symlink_to(base)
    with pytest.raises(OutputError, match="only you can use"):
        NodeFiles("run", link)


@pytest.mark.parametrize("run", ["same", "other"])
def test_what_a_killed_worker_left_is_removed_by_the_next(tmp_path: Path, run: str) -> None:
    base = tmp_path / "base"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from corobench.benchmark.executors.node_files import NodeFiles\n"
        "files = NodeFiles(sys.argv[2], Path(sys.argv[1]))\n"
        "(files.scratch / 'left').write_text('x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(base), run], check=False)
    assert len(list(base.rglob("left"))) == 1
    worker = NodeFiles("same", base)
    assert list(base.rglob("left")) == []
    assert [path.name for path in base.iterdir()] == ["same"]
    assert list((base / "same" / "workers").iterdir()) == [worker.scratch]
    worker.close()
