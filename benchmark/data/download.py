"""torchvision's downloads, made harmless: no hang, no half-written file, no traceback."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from corobench.benchmark.data.dataset import Split

OFFLINE_VARIABLE = "COROBENCH_OFFLINE"
TIMEOUT_S = 20.0


def is_offline() -> bool:
    """Whether ``COROBENCH_OFFLINE`` forbids downloads."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Every socket made inside gives up after `seconds` without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fetch(download: Callable[[Path, Split], None], cache: Path, split: Split) -> str:
    """Download a split into a temporary folder and move what came whole into the cache.

    Args:
        download: writes files into the folder it is given.
        cache: folder to fill; files that are there are kept.
        split: which images.

    Returns:
        What happened, for the error of a missing dataset.
    """
    if is_offline():
        return f"not tried, because {OFFLINE_VARIABLE} is set"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as name:
            folder = Path(name)
            with _socket_timeout(TIMEOUT_S), contextlib.redirect_stdout(io.StringIO()):
                download(folder, split)
            _install(folder, cache)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"failed ({type(error).__name__}: {' '.join(lines)[:300]})"
    return "done, but the images were not in it"


def _install(folder: Path, cache: Path) -> None:
    """Move every file to the same place below `cache`, each in one step."""
    for path in sorted(folder.rglob("*")):
        target = cache / path.relative_to(folder)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)  # noqa: PTH105 -- the standard name of an atomic move
