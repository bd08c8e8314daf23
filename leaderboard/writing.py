"""Write a site all at once, and touch nothing in the folder that corobench did not write.

The list of files that were written is itself a file of the site (:data:`LEDGER`). A new site is
completed beside its place and renamed; an existing site is replaced file by file from a complete
copy, and put back as it was when that fails midway.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from corobench.benchmark.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LEDGER = "corobench-site.json"
STAGE = ".corobench-stage"


def write_site(files: Mapping[str, bytes], out: Path) -> None:
    """Make `out` hold exactly these files of ours, beside whatever else is there.

    Args:
        files: path inside the site, with forward slashes -> content.
        out: the site's folder; made if missing.

    Raises:
        OutputError: `out` is not a folder, cannot be written, or holds a file under one of our
            names that corobench did not write.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out.parent):
            if out.exists():
                _replace(files, out)
            else:
                _create(files, out)
    except OSError as error:
        raise OutputError(
            f"{out}: expected an output folder that can be written, found: "
            f"{error.strerror or error}; name another one with --out"
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes a site into a folder; Windows has nothing of the kind."""
    if fcntl is None:
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _create(files: Mapping[str, bytes], out: Path) -> None:
    complete = {**files, LEDGER: _ledger(_hashes(files))}
    with _staged(complete, out.parent / f".{out.name}{STAGE}") as stage:
        stage.rename(out)


def _replace(files: Mapping[str, bytes], out: Path) -> None:
    if not out.is_dir():
        raise OutputError(f"{out}: expected a folder to write the site into, found a file")
    ours = _read_ledger(out)
    _refuse_foreign(files, ours, out)
    hashes = _hashes(files)
    stale = [name for name in sorted(set(ours) - set(files)) if _is_unchanged(out, name, ours)]
    order = sorted(files, key=lambda name: (name == "index.html", name))
    with _staged(files, out / STAGE) as stage, _undo_on_failure(out, stage / "old") as keep:
        keep(LEDGER)
        _swap_text(stage, out / LEDGER, _ledger({**ours, **hashes}))
        for name in order:
            keep(name)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).replace(out / name)
        for name in stale:
            keep(name)
            (out / name).unlink()
        _swap_text(stage, out / LEDGER, _ledger(hashes))
    _remove_empty_folders(out, stale)


@contextmanager
def _staged(files: Mapping[str, bytes], stage: Path) -> Iterator[Path]:
    """A complete copy of the files in a hidden folder of ours, gone afterwards."""
    shutil.rmtree(stage, ignore_errors=True)
    try:
        for folder in sorted({PurePosixPath(name).parent for name in files}):
            (stage / folder).mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            (stage / name).write_bytes(files[name])
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def _undo_on_failure(out: Path, old: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that remembers a file before it changes; put all back if the body fails."""
    known: dict[str, bool] = {}

    def keep(name: str) -> None:
        known[name] = (out / name).exists()
        if known[name]:
            (old / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(out / name, old / name)

    try:
        yield keep
    except BaseException:
        for name, was_there in reversed(known.items()):
            with suppress(OSError):
                if was_there:
                    (old / name).replace(out / name)
                else:
                    (out / name).unlink(missing_ok=True)
        raise


def _swap_text(stage: Path, target: Path, content: bytes) -> None:
    (stage / LEDGER).write_bytes(content)
    (stage / LEDGER).replace(target)


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}


def _ledger(hashes: Mapping[str, str]) -> bytes:
    files = {name: hashes[name] for name in sorted(hashes)}
    record = {"schema": 1, "written_by": "corobench render", "files": files}
    return (json.dumps(record, indent=1) + "\n").encode()


def _read_ledger(out: Path) -> dict[str, str]:
    """Files that an earlier build wrote into `out` -> sha256; empty where none did."""
    try:
        files = json.loads((out / LEDGER).read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items() if _is_inside(out, name)}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{out / LEDGER}: expected the list of files that corobench wrote, found other "
            "content; remove it, or name another folder with --out"
        ) from error


def _refuse_foreign(files: Mapping[str, bytes], ours: Mapping[str, str], out: Path) -> None:
    """Refuse to write over what corobench did not write, or through a link out of the folder."""
    for name in sorted(files):
        target = out / name
        if not _is_inside(out, name):
            raise OutputError(
                f"{target}: expected a path inside {out}, found a link that leads outside"
            )
        taken = target.exists() and name not in ours
        if target.is_dir() or (taken and target.read_bytes() != files[name]):
            raise OutputError(
                f"{target}: already there and not written by corobench; "
                "move it away, or name another folder with --out"
            )


def _is_inside(out: Path, name: str) -> bool:
    """Whether a name leads to a file under `out`, also after its links are followed."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        return False
    return (out / name).resolve().is_relative_to(out.resolve())


def _is_unchanged(out: Path, name: str, ours: Mapping[str, str]) -> bool:
    """Whether a file is still as corobench wrote it, so that it may be removed."""
    target = out / name
    return target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == ours[name]


def _remove_empty_folders(out: Path, removed: list[str]) -> None:
    folders = {parent for name in removed for parent in PurePosixPath(name).parents}
    for folder in sorted(folders, key=lambda item: -len(item.parts)):
        if folder.parts:
            with suppress(OSError):  # not empty: someone else's files are in it
                (out / folder).rmdir()
