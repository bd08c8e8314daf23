"""`corobench status`: what runs is told by files that are read as data, stale ones as such."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from corobench.benchmark.cli.main import invoke
from corobench.benchmark.cli.status import look
from corobench.benchmark.errors import CorobenchError
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.executors import status
from corobench.benchmark.executors.board import Board
from corobench.benchmark.executors.outputs import finished, unfinished
from corobench.benchmark.executors.status import FOLDER, StatusFile, find_commands, host
from corobench.benchmark.executors.work import Work
from corobench.benchmark.files.chunks import ABOUT, CHUNKS, ChunkStore

WORKS = [Work(Path("submissions") / name, Settings(n=100)) for name in ("one", "two", "three")]


def _board() -> Board:
    board = Board(WORKS)
    board.workers("2 workers")
    board.began(WORKS[0])
    board.told(WORKS[0], {"kind": "stage", "text": "autoattack 1/16", "number": 80})
    board.told(WORKS[0], {"kind": "advance", "text": "60.0–70.0 %", "number": 30})
    board.began(WORKS[1])
    board.ended(WORKS[1], CorobenchError("two: 1 fault\n  - no weights"))
    return board


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _told(**more: object) -> dict[str, object]:
    return {
        "schema": 1,
        "host": host(),
        "pid": os.getpid(),
        "seconds": 5.0,
        "running": [],
        "num_running": 0,
        "num_done": 1,
        "num_waiting": 0,
        "failed": [],
        "workers": "",
        **more,
    }


def test_what_runs_is_told_and_gone_at_the_end(tmp_path: Path) -> None:
    with StatusFile(tmp_path, _board()):
        (found,), faults = find_commands(tmp_path)
        assert faults == [] and not found.is_stale and found.command.pid == os.getpid()
        (row,) = found.command.running
        assert (row.entry, row.stage, row.done, row.total) == ("one@100", "autoattack 1/16", 30, 80)
        assert row.note == "60.0–70.0 %"
        assert (found.command.num_waiting, found.command.failed) == (1, ("two@100",))
        assert found.command.workers == "2 workers"
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_written_again_and_again(tmp_path: Path) -> None:
    board = _board()
    with StatusFile(tmp_path, board, interval_s=0.01):
        board.began(WORKS[2])
        board.told(WORKS[2], {"kind": "stage", "text": "clean", "number": 5})
        end = time.monotonic() + 30
        while time.monotonic() < end:
            (found,), _ = find_commands(tmp_path)
            if any(row.stage == "clean" for row in found.command.running):
                break
            time.sleep(0.01)
        else:
            pytest.fail("the status file still tells what was before")


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with StatusFile(tmp_path / "file", _board()):
        pass


def test_a_killed_command_is_told_by_its_process(tmp_path: Path) -> None:
    pid = _dead_pid()
    _write(tmp_path, f"{host()}-{pid}.json", json.dumps(_told(pid=pid)))
    (found,), _ = find_commands(tmp_path)
    assert found.is_gone and found.is_stale


def test_another_machine_is_told_by_the_age_of_its_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "elsewhere-7.json", json.dumps(_told(host="elsewhere", pid=7)))
    (found,), _ = find_commands(tmp_path)
    assert not found.is_stale
    old = time.time() - 2 * status.STALE_S
    os.utime(path, (old, old))
    (found,), _ = find_commands(tmp_path)
    assert found.is_stale and not found.is_gone and found.age_s > status.STALE_S


def test_the_next_command_removes_what_killed_ones_left_here(tmp_path: Path) -> None:
    pid = _dead_pid()
    left = _write(tmp_path, f"{host()}-{pid}.json", json.dumps(_told(pid=pid)))
    other = _write(tmp_path, "elsewhere-7.json", json.dumps(_told(host="elsewhere", pid=7)))
    with StatusFile(tmp_path, _board()):
        assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "not json",
        b"\xff\xfe",
        json.dumps(_told(schema=2)),
        json.dumps(_told(pid="7")),
        json.dumps(_told(pid=-1)),
        json.dumps(_told(seconds=1e99)),
        json.dumps(_told(host="h" * 500)),
        json.dumps(_told(running=[{"entry": "a"}])),
        json.dumps(_told(failed=["x"] * (status.MAX_ROWS + 1))),
        '{"schema": NaN}',
        '{"a":' * 90 + "1" + "}" * 90,
        " " * (status.MAX_BYTES + 1),
    ],
)
def test_what_is_no_status_file_is_a_fault_and_no_end(
    content: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "strange-1.json", content)
    _write(tmp_path, f"{host()}-{os.getpid()}.json", json.dumps(_told()))
    found, faults = find_commands(tmp_path)
    assert len(found) == 1 and len(faults) == 1 and "strange-1.json" in faults[0]
    assert invoke(["status", str(tmp_path)]) == 0
    assert "not a status file" in " ".join(capsys.readouterr().out.split())


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(_told()))
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "strange-1.json").symlink_to(secret)
    found, faults = find_commands(tmp_path)
    assert found == [] and len(faults) == 1


def test_text_of_a_file_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"entry": "a\x1b[2J", "stage": "", "done": 0, "total": 0, "note": "", "seconds": 1.0}
    _write(tmp_path, "elsewhere-7.json", json.dumps(_told(host="x\x1b[2J", running=[row])))
    assert invoke(["status", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


# ----------------------------------------------------------------- finished and interrupted


def _chunks(root: Path, entry: str, about: dict[str, object] | None = None) -> ChunkStore:
    told = {"entry": entry, "track": "digits", "n": 100} if about is None else about
    chunks = ChunkStore(root / CHUNKS, {"identity": entry}, told)
    chunks.save("clean-0000", {"x": np.zeros(2)})
    chunks.save("certify-IBP-1_16-0000", {"x": np.zeros(2)})
    return chunks


def test_chunks_without_a_result_are_interrupted(tmp_path: Path) -> None:
    chunks = _chunks(tmp_path, "one")
    (left,) = unfinished(tmp_path)
    assert (left.entry, left.track, left.num_chunks) == ("one@100", "digits", 2)
    assert left.last in ("clean-0000", "certify-IBP-1_16-0000")
    chunks.discard()
    assert unfinished(tmp_path) == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("about", ["", "[]", '{"entry": 1}', '{"entry": "a"}', " " * 5000])
def test_chunks_that_do_not_say_whose_they_are_are_counted(tmp_path: Path, about: str) -> None:
    chunks = _chunks(tmp_path, "one")
    (chunks.folder / ABOUT).write_text(about)
    (left,) = unfinished(tmp_path)
    assert (left.entry, left.num_chunks) == ("", 2)


def test_a_pipe_beside_chunks_is_not_waited_for(tmp_path: Path) -> None:
    chunks = _chunks(tmp_path, "one")
    (chunks.folder / ABOUT).unlink()
    os.mkfifo(chunks.folder / ABOUT)
    (left,) = unfinished(tmp_path)
    assert (left.entry, left.num_chunks) == ("", 2)


def test_what_runs_is_not_interrupted(tmp_path: Path) -> None:
    _chunks(tmp_path, "one")
    _chunks(tmp_path, "two")
    with StatusFile(tmp_path, _board()):  # runs "one"
        assert [left.entry for left in look(tmp_path).interrupted] == ["two@100"]
    assert len(look(tmp_path).interrupted) == 2


def test_what_runs_is_not_interrupted_whatever_its_folder_is_called(tmp_path: Path) -> None:
    _chunks(tmp_path, "one")
    board = Board([Work(tmp_path / "_mine", Settings(n=100), entry="one")])
    board.began(board.works[0])
    with StatusFile(tmp_path, board):
        assert look(tmp_path).interrupted == []


def test_results_are_those_at_the_place_of_results(tmp_path: Path) -> None:
    for name in ("1.1/digits/a@100.json", "1.1/cifar10/b.json", "notes/digits/c.json", "x.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    found = [(one.round, one.track, one.name) for one in finished(tmp_path)]
    assert found == [("1.1", "cifar10", "b"), ("1.1", "digits", "a@100")]


def test_the_command_tells_people_and_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _chunks(tmp_path, "left")
    with StatusFile(tmp_path, _board()):
        assert invoke(["status", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert "0 done, 1 running, 1 waiting, 1 failed" in said and "autoattack 1/16" in said
        assert "1 evaluation was interrupted" in said and "left@100 (digits)" in said
        assert invoke(["status", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["commands"][0]["running"][0]["done"] == 30
    assert told["commands"][0]["is_stale"] is False
    assert told["interrupted"][0]["entry"] == "left@100" and told["results"] == []
    assert invoke(["status", str(tmp_path / "none")]) == 2
    assert "expected a folder of results" in capsys.readouterr().err


def test_messages_of_an_entry_are_bounded_and_harmless() -> None:
    board = Board(WORKS)
    for message in (
        {"kind": "stage", "text": "x" * 9999, "number": 10**30},
        {"kind": "advance", "number": "7", "text": "\x1b[2J"},
        {"kind": "advance", "number": -5},
        {"kind": "unheard-of"},
        {},
    ):
        board.told(WORKS[0], message)
    (row,) = board.snapshot().running
    assert len(row.stage) == 300 and (row.done, row.total) == (0, 0)
    assert row.note.isprintable()
