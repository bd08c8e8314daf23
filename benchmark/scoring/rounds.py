"""Rounds: the results of one protocol major.minor, in one folder; a frozen one does not change.

``corobench freeze`` writes the sha256 of every file of a round into ``SHA256SUMS``, in the format
of the tool ``sha256sum``. From then on commands refuse to write there, pages refuse to be built
from a round that differs, and whoever freezes it again changes a file under version control.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from corobench.benchmark.errors import OutputError, ResultError
from corobench.benchmark.files.atomic import write_atomic
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result_set import verify_set
from corobench.benchmark.scoring.score import why_unpublished
from corobench.benchmark.scoring.scored import read_beside
from corobench.benchmark.tracks import round_of

SUMS = "SHA256SUMS"

_NAME = re.compile(r"\d+\.\d+")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def freeze(folder: Path) -> int:
    """Write the checksums of a round whose results may all be published.

    Args:
        folder: ``leaderboard/results/<major.minor>``.

    Returns:
        How many files they cover.

    Raises:
        ResultError: no round, or a result at fault: quick, of other settings or another round, or
            not what its outcome table says. All faults at once.
    """
    if not folder.is_dir() or not _NAME.fullmatch(folder.resolve().name):
        raise ResultError(
            f"{folder}: expected the folder of a round, named after its protocol such as 1.0"
        )
    results = sorted(folder.glob("*/*.json"))
    if not results:
        raise ResultError(f"{folder}: expected results at <track>/<entry>.json, but found none")
    name = folder.resolve().name
    faults = [f"{path}: {fault}" for path in results for fault in faults_of(path, name)]
    if faults:
        raise ResultError("\n".join(faults))
    lines = [f"{digest}  {name}\n" for name, digest in sorted(_digests(folder).items())]
    write_atomic(folder / SUMS, "".join(lines).encode())
    return len(lines)


def faults_of(path: Path, name: str) -> list[str]:
    """Why a result file may not stand in a round, one line each; empty for one that may.

    Args:
        path: of the result file; its outcome table lies beside it.
        name: of the round, such as "1.0".
    """
    try:
        result = read_result(path)
        read_beside(path, result)
        verify_set(path, result)  # here, the images must be there, too
    except ResultError as error:
        return [error.message.removeprefix(f"{path}: ")]
    faults = why_unpublished(result)
    if round_of(result.protocol) != name:
        faults.append(f"protocol: {result.protocol} does not belong to the round {name}")
    return faults


def is_frozen(folder: Path) -> bool:
    """Whether a folder is a frozen round."""
    return (folder / SUMS).is_file()


def changes(folder: Path) -> list[str]:
    """What differs from the checksums of a frozen round: one line per file.

    Raises:
        ResultError: the round is not frozen, or its checksums cannot be read.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "the round is not frozen" if isinstance(error, FileNotFoundError) else str(error)
        raise ResultError(
            f"{path}: cannot be read ({reason}); `corobench freeze {folder}` writes it"
        ) from error
    stated = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ResultError(f"{path}: line {number}: expected a sha256, two spaces and a path")
        stated[found[2]] = found[1]
    here = _digests(folder)
    return [
        f"{folder / name}: {_change(stated.get(name), here.get(name))}"
        for name in sorted({*stated, *here})
        if stated.get(name) != here.get(name)
    ]


def _change(stated: str | None, here: str | None) -> str:
    if stated is None:
        return "was added to the frozen round"
    return "is missing from the frozen round" if here is None else "differs from the frozen round"


def require_unchanged(paths: Iterable[Path]) -> None:
    """Refuse results of a frozen round that is not as it was frozen.

    Args:
        paths: result files at ``<round>/<track>/<entry>.json``.

    Raises:
        ResultError: lists every file that changed.
    """
    folders = {path.resolve().parent.parent for path in paths}
    changed = [line for one in sorted(folders) if is_frozen(one) for line in changes(one)]
    if changed:
        raise ResultError(
            "\n".join(changed)
            + "\nRestore the files, or freeze the round again if the change is intended."
        )


def require_open(folder: Path) -> None:
    """Refuse to write into a frozen round.

    Args:
        folder: ``<round>/<track>`` or the round itself.

    Raises:
        OutputError: it is frozen.
    """
    for place in (folder, folder.parent):
        if is_frozen(place):
            raise OutputError(
                f"{place}: this round is frozen, so its results cannot change; choose another "
                f"--out, or remove {place / SUMS} to open it again"
            )


def _digests(folder: Path) -> dict[str, str]:
    """Path below the folder -> sha256, of every file but the checksums and hidden ones."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and path != folder / SUMS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
