"""New folders: made whole or not at all, and never put over old ones. Imports no torch."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from corobench.benchmark.errors import OutputError


def refuse_existing(out: Path) -> None:
    """A new folder is never put over an old one.

    Raises:
        OutputError: `out` is there.
    """
    if out.exists() or out.is_symlink():
        raise OutputError(
            f"{out}: already exists; expected a new folder: choose another name, or move it away"
        )


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes it when all went well, and else goes away.

    Raises:
        OutputError: it cannot be made.
    """
    with beside(out) as folder:
        folder.chmod(0o755)
        yield folder
        become(folder, out)


@contextlib.contextmanager
def room_beside(out: Path) -> Iterator[Path]:
    """A place for another process to make `out` in, which becomes it when all went well.

    Yields:
        A path of the same name in a temporary folder beside `out`; nothing is there yet.

    Raises:
        OutputError: it cannot be made, or `out` is there.
    """
    refuse_existing(out)
    with beside(out) as folder:
        yield folder / out.name
        become(folder / out.name, out)


@contextlib.contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out`, which goes away.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def become(made: Path, out: Path) -> None:
    """Put what was made in its place.

    Raises:
        OutputError: it cannot be put there.
    """
    try:
        made.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error.strerror or error}") from error
