"""Write a result as one set of three files, so that a kill at any moment leaves no mixture.

All new files are made durable under hidden names beside their places, the result file last. Then
the old result file goes, the others take their places, and the new result file comes. So at every
moment there is the whole old set, or no result file, or the whole new set; and what was interrupted
once everything was beside its place is finished by the next writer (`finish_set`). No locks: they
do not work on every network file system. docs/decisions/0008 says what else was looked at.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.errors import OutputError, ResultError, printable
from corobench.benchmark.files.atomic import replace_whole
from corobench.benchmark.records import image_coding
from corobench.benchmark.records.encoding import encode_outcomes, encode_result
from corobench.benchmark.records.reading.coded_images import Clean
from corobench.benchmark.records.reading.result_file import read_scorecard
from corobench.benchmark.records.result import Result, Run
from corobench.benchmark.records.result_set import (
    ADVERSARIAL,
    ENDINGS,
    OUTCOMES,
    beside,
    sha256_of,
    staged,
    with_digest,
)
from corobench.benchmark.scoring.score import score

if TYPE_CHECKING:
    import pandas as pd

_RESULT = "json"


def write_set(
    path: Path,
    table: pd.DataFrame,
    run: Run,
    images: NDArray[np.float32] | None = None,
    clean: Clean | None = None,
) -> Result:
    """Write outcome table, adversarial images and result file as one set.

    Args:
        path: of the result file; the others lie beside it.
        table: one row per image and epsilon.
        run: what the table belongs to; its digests are filled in here.
        images: float32 (m, C, H, W), the adversarial images; None to leave those that lie there.
        clean: the dataset they were made from, to store them coded; None to store them as they are.

    Returns:
        The result as it was written.

    Raises:
        ResultError: the table contradicts itself, or the images that lie there are not its own.
        OutputError: a file cannot be written; then the old set is there, or none, or the next
            writer finishes this one.
    """
    contents: dict[str, bytes] = {}
    if images is None:
        files = _those_there(path, run)
    else:
        contents[ADVERSARIAL] = _archive(images, table, run, clean)
        files = {ADVERSARIAL: sha256(contents[ADVERSARIAL]).hexdigest()}
    run = _on_one_line(run).model_copy(update={"files": files})
    result = score(table, run)
    contents[OUTCOMES] = encode_outcomes(table, run)
    result = with_digest(result, sha256(contents[OUTCOMES]).hexdigest())
    with _as_output_error(path):
        content = encode_result(result)
        _stage(path, contents, content)
        _commit(path, content, result.files or {})
    return result


def _on_one_line(run: Run) -> Run:
    """The run with messages of libraries on one line each, as readers want them."""
    reasons = {name: printable(reason) for name, reason in run.not_asked.items()}
    errors = tuple(printable(line) for line in run.errors)
    return run.model_copy(update={"not_asked": reasons, "errors": errors})


def _archive(
    images: NDArray[np.float32], table: pd.DataFrame, run: Run, clean: Clean | None
) -> bytes:
    if clean is not None:
        return image_coding.encode(images, table, run, clean)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images)
    return buffer.getvalue()


def finish_set(path: Path) -> bool:
    """Finish a writing that was interrupted, or clear away what is left of one.

    Args:
        path: of the result file.

    Returns:
        Whether a set was finished.

    Raises:
        OutputError: a file cannot be written.
    """
    if not is_unfinished(path):
        return False
    with _as_output_error(path):
        try:
            result = read_scorecard(staged(path, _RESULT))
            content = staged(path, _RESULT).read_bytes()
        except (ResultError, FileNotFoundError):
            _clear(path)
            return False
        digests = result.files or {}
        if not (digests and all(_is_at_hand(path, *item) for item in digests.items())):
            _clear(path)
            return False
        _commit(path, content, digests)
    return True


def is_unfinished(path: Path) -> bool:
    """Whether files of an interrupted writing lie beside a result file, or in its place."""
    return any(staged(path, ending).exists() for ending in (_RESULT, *ENDINGS))


def _those_there(path: Path, run: Run) -> dict[str, str]:
    """The digest of the images that lie there; none for an old result without any.

    Raises:
        ResultError: they are not those of the run, which no writing may cover up.
    """
    images = beside(path, ADVERSARIAL)
    try:
        found = {ADVERSARIAL: sha256_of(images)}
    except FileNotFoundError:
        found = {}
    if run.files and found != run.files:
        raise ResultError(
            f"{images}: {'differs from' if found else 'is missing, but is named in'} the outcome "
            "table beside it; to fix it, run `corobench evaluate` on the entry again"
        )
    return found


def _stage(path: Path, contents: Mapping[str, bytes], result: bytes) -> None:
    """Make the new files durable beside their places, the result file last: it makes them count."""
    _clear(path)
    try:
        for ending, content in contents.items():
            replace_whole(staged(path, ending), content)
        _sync_folder(path.parent)
        replace_whole(staged(path, _RESULT), result)
        _sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            _clear(path)
        raise


def _commit(path: Path, content: bytes, digests: Mapping[str, str]) -> None:
    """Put the set in its place, by renaming alone; the staged files are enough to finish it.

    Another writer may finish this very set meanwhile.
    """
    if path.exists() and path.read_bytes() != content:
        path.unlink()
        _sync_folder(path.parent)
    for ending in [ending for ending in ENDINGS if ending in digests]:
        new, place, digest = staged(path, ending), beside(path, ending), digests[ending]
        if _digest(place) != digest:
            with contextlib.suppress(FileNotFoundError):
                new.replace(place)
        new.unlink(missing_ok=True)
        if _digest(place) != digest:
            raise _another_writer(place)
    _sync_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        staged(path, _RESULT).replace(path)
    _sync_folder(path.parent)
    if _digest(path) != sha256(content).hexdigest():
        raise _another_writer(path)


def _another_writer(place: Path) -> OutputError:
    return OutputError(
        f"{place}: another process is writing the same result; wait until it ends, then run this "
        "again"
    )


def _is_at_hand(path: Path, ending: str, digest: str) -> bool:
    """Whether a file of the staged set is there, staged or in its place already."""
    return ending in ENDINGS and digest in (
        _digest(staged(path, ending)),
        _digest(beside(path, ending)),
    )


def _digest(path: Path) -> str | None:
    """The sha256 of a file, None where there is none."""
    try:
        return sha256_of(path)
    except FileNotFoundError:
        return None


def _clear(path: Path) -> None:
    """Remove staged files, the result file first, so that no others are taken for its set."""
    if not path.parent.is_dir():
        return
    for ending in (_RESULT, *ENDINGS):
        staged(path, ending).unlink(missing_ok=True)
    # What a kill left of files that were not whole yet.
    names = [path.name, *(staged(path, ending).name for ending in (_RESULT, *ENDINGS))]
    for left in path.parent.iterdir():
        if any(re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}", left.name) for name in names):
            left.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renamings durable in this order, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.parent.is_dir():
            raise _another_writer(path) from error  # it cleared away what was half written
        where = error.filename or path
        raise OutputError(
            f"{where}: cannot be written ({error.strerror or error}); choose another folder with "
            "--out, or fix its permissions or free space"
        ) from error
