"""Files that the workers of one machine share: each is there once, under its sha256.

They lie in a folder of the machine's own temporary one that nobody else may read. Whoever works in
a folder holds a lock on it, which ends with the process, so that what a killed one left is found
and removed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from corobench.benchmark.errors import OutputError

#: Setups of which a worker keeps the files; older ones are brought again when they are needed.
NUM_KEPT = 8
_LOCK = "lock"


class NodeFiles:
    """The files of one worker, and those that it shares with others of the same command.

    Args:
        run: name of the command, the same for all its workers.
        base: of the machine; a folder of this user below the temporary one by default.

    Attributes:
        scratch: folder of this worker alone.
    """

    def __init__(self, run: str, base: Path | None = None) -> None:
        self._base = base or Path(tempfile.gettempdir()) / f"corobench-{os.getuid()}"
        _make_own(self._base)
        _sweep(self._base)
        self._run = self._base / run
        self._run_lock = _hold(self._run)
        for name in ("files", "workers"):
            (self._run / name).mkdir(exist_ok=True)
        _sweep(self._run / "workers")
        self.scratch = self._run / "workers" / secrets.token_hex(8)
        self._lock = _hold(self.scratch)
        self._kept: dict[str, Path] = {}

    def lay_out(self, key: str, files: Mapping[str, str], fetch: Callable[[str], bytes]) -> Path:
        """Lay the files of one setup into a folder of this worker.

        Args:
            key: of the setup.
            files: relative path -> sha256.
            fetch: gives the bytes of a sha256 that is not here yet.

        Returns:
            The folder.

        Raises:
            OutputError: the bytes are not those of their sha256.
            OSError: there is no room.
        """
        folder = self._kept.pop(key, self.scratch / "setups" / key)
        self._kept[key] = folder  # the one used last stands last
        while len(self._kept) > NUM_KEPT:
            self._forget(next(iter(self._kept)))
        for path, sha256 in files.items():
            _check_relative(path)
            target = folder / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                self._link(sha256, target, fetch)
        return folder

    def _link(self, sha256: str, target: Path, fetch: Callable[[str], bytes]) -> None:
        shared = self._run / "files" / sha256
        with contextlib.suppress(FileNotFoundError):
            os.link(shared, target)
            if _sha256(target) == sha256:
                return
            target.unlink()
        content = fetch(sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise OutputError(f"expected a file with the sha256 {sha256}, but other bytes came")
        draft = self.scratch / f"{sha256}.part"
        draft.write_bytes(content)
        draft.chmod(0o400)
        os.link(draft, target)
        draft.replace(shared)

    def _forget(self, key: str) -> None:
        """Remove the files of a setup, and from the shared ones what nobody else has."""
        shutil.rmtree(self._kept.pop(key), ignore_errors=True)
        for shared in (self._run / "files").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if shared.stat().st_nlink == 1:
                    shared.unlink()

    def close(self) -> None:
        """Remove what is this worker's, and with the last one what they shared."""
        os.close(self._lock)
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.close(self._run_lock)
        _sweep(self._base)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_relative(path: str) -> None:
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise OutputError(f"{path!r}: expected a path below a folder")


def _make_own(folder: Path) -> None:
    """Make a folder that belongs to this user alone.

    Raises:
        OutputError: somebody else has made one of that name.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OutputError(
            f"{folder}: expected a folder that only you can use; remove it, or set TMPDIR"
        )


def _hold(folder: Path) -> int:
    """Make a folder and hold it, together with others, until the descriptor is closed."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # it was swept in between
            continue
        fcntl.flock(held, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if (folder / _LOCK).stat().st_ino == os.fstat(held).st_ino:
                return held
        os.close(held)


def _sweep(parent: Path) -> None:
    """Remove folders that nobody holds any more."""
    for folder in parent.iterdir():
        try:
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)
