"""What runs, is finished or was interrupted below a folder of results, told through small files.

The process of a command writes ``DIR/.status/<host>-<pid>.json`` about once a second, and removes
it at its end. Anybody who sees the folder can read it, on another machine, too. The files are read
as data: small, strict, and never a reason to stop. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from corobench.benchmark.errors import CorobenchError, printable
from corobench.benchmark.evaluation.settings import Evaluated
from corobench.benchmark.executors.board import Board
from corobench.benchmark.executors.work import Work
from corobench.benchmark.files.atomic import replace_whole
from corobench.benchmark.records.base import FirstSchema
from corobench.benchmark.records.reading.result_file import parse_object

FOLDER = ".status"
INTERVAL_S = 1.0
#: A file that nobody wrote for so long belongs to a command that was killed, or stands still.
STALE_S = 30.0
MAX_BYTES = 256 * 1024
MAX_FILES = 200
#: Entries of one command that are written one by one; the others are counted.
MAX_ROWS = 200

Text = Annotated[str, Field(max_length=400)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Length = Annotated[float, Field(ge=0.0, lt=1e12)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", populate_by_name=True)


class RunningEntry(_Told):
    """An entry that is being worked on.

    Attributes:
        entry: its name, with the number of images if that was chosen.
        stage: that runs.
        done, total: images of the stage.
        note: what is known so far.
        seconds: since the entry began.
    """

    entry: Text
    stage: Text
    done: Count
    total: Count
    note: Text
    seconds: Length


class Command(_Told):
    """A command that runs, as it says itself.

    Attributes:
        schema_version: key ``schema``; 1.
        host, pid: its process.
        seconds: since it began.
        running: entries that are being worked on; at most `MAX_ROWS`.
        num_running, num_done, num_waiting: how many entries.
        failed: entries without a result; at most `MAX_ROWS`.
        workers: one line about them.
    """

    schema_version: FirstSchema = Field(alias="schema", default=1)
    host: Text
    pid: Count
    seconds: Length
    running: Annotated[tuple[RunningEntry, ...], Field(max_length=MAX_ROWS)]
    num_running: Count
    num_done: Count
    num_waiting: Count
    failed: Annotated[tuple[Text, ...], Field(max_length=MAX_ROWS)]
    workers: Text


class Found(_Told):
    """A status file as it was found.

    Attributes:
        command: what it says.
        age_s: seconds since it was written.
        is_gone: it was written on this machine, by a process that is no more.
    """

    command: Command
    age_s: float
    is_gone: bool

    @property
    def is_stale(self) -> bool:
        """Whether nobody works on what it says, as far as can be seen."""
        return self.is_gone or self.age_s > STALE_S


def host() -> str:
    """This machine's name, as it can be part of a file's.

    >>> host() == re.sub(r"[^A-Za-z0-9.-]", "_", host())
    True
    """
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:64] or "host"


class StatusFile:
    """Tells what a board knows, until the end; a folder that cannot be written changes nothing.

    Args:
        root: folder of results.
        board: that somebody else keeps.
        interval_s: seconds between two writings.
    """

    def __init__(self, root: Path, board: Board, interval_s: float = INTERVAL_S) -> None:
        self.path = root / FOLDER / f"{host()}-{os.getpid()}.json"
        self._board, self._interval_s = board, interval_s
        self._made_root = not root.exists()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="status", daemon=True)

    def __enter__(self) -> Self:
        _remove_gone(self.path.parent)
        self.write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()
            if self._made_root:
                self.path.parents[1].rmdir()  # where nothing came of it

    def _write_on(self) -> None:
        while not self._over.wait(self._interval_s):
            self.write()

    def write(self) -> None:
        """Write what the board knows now."""
        with contextlib.suppress(OSError):
            replace_whole(self.path, self._told().model_dump_json(by_alias=True).encode())

    def _told(self) -> Command:
        now, at = self._board.clock(), self._board.snapshot()
        failed = [one.label for one in at.endings if isinstance(one.outcome, CorobenchError)]
        return Command(
            host=host(),
            pid=os.getpid(),
            seconds=at.seconds,
            running=tuple(
                RunningEntry(
                    entry=row.label,
                    stage=row.stage,
                    done=row.done,
                    total=row.total,
                    note=row.note,
                    seconds=max(now - row.began_s, 0.0),
                )
                for row in at.running[:MAX_ROWS]
            ),
            num_running=len(at.running),
            num_done=len(at.endings) - at.num_failed,
            num_waiting=at.num_waiting,
            failed=tuple(failed[:MAX_ROWS]),
            workers=at.crew,
        )

    def began(self, work: Work) -> None:
        """The board knows."""

    def told(self, work: Work, message: Mapping[str, Any]) -> None:
        """The board knows."""

    def ended(self, work: Work, outcome: Evaluated | CorobenchError) -> None:
        """The board knows."""

    def workers(self, text: str) -> None:
        """The board knows."""


def find_commands(root: Path) -> tuple[list[Found], list[str]]:
    """The commands that say they work below a folder, and what is wrong with other files there.

    Args:
        root: folder of results.
    """
    found: list[Found] = []
    faults: list[str] = []
    folder = root / FOLDER
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    for path in paths[:MAX_FILES]:
        try:
            found.append(_read(path))
        except FileNotFoundError:
            continue  # it has ended meanwhile
        except (OSError, ValueError) as error:
            reason = printable(str(error).splitlines()[0][:200] if str(error) else "unreadable")
            faults.append(f"{printable(str(path))}: not a status file ({reason})")
    if len(paths) > MAX_FILES:
        faults.append(f"{printable(str(folder))}: {len(paths) - MAX_FILES} more files, not read")
    return found, faults


def _read(path: Path) -> Found:
    """A status file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what we write.
    """
    if path.is_symlink() or not path.is_file():
        if not path.exists():
            raise FileNotFoundError(path)
        raise ValueError("expected a regular file")
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
        written = os.fstat(stream.fileno()).st_mtime
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    table = parse_object(content.decode("utf-8"))
    try:
        command = Command.model_validate_json(json.dumps(table))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}") from None
    is_gone = command.host == host() and not _is_alive(command.pid)
    return Found(command=command, age_s=max(time.time() - written, 0.0), is_gone=is_gone)


def _is_alive(pid: int) -> bool:
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove_gone(folder: Path) -> None:
    """Remove files that killed processes of this machine left."""
    with contextlib.suppress(OSError):
        for path in list(folder.glob(f"{host()}-*.json"))[:MAX_FILES]:
            pid = path.stem.rpartition("-")[2]
            if pid.isdecimal() and len(pid) < 12 and not _is_alive(int(pid)):
                path.unlink(missing_ok=True)
