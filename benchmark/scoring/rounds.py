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
from corobench.benchmark.records.result_set import sha256_of, verify_set
from corobench.benchmark.scoring.ranking import why_unpublished
from corobench.benchmark.scoring.scored import read_beside
from corobench.benchmark.tracks import round_of

SUMS = "SHA256SUMS"
#: Files of a frozen round that were coded later: what they were, and what they hold.
RECODED = "RECODED"

_NAME = re.compile(r"\d+\.\d+")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_RECODED_LINE = re.compile(r"([0-9a-f]{64})  ([0-9a-f]{64})  ([0-9a-f]{64})  (.+)")


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
    stated = _stated(folder)
    here = _digests(folder)
    return [
        f"{folder / name}: {_change(stated.get(name), here.get(name))}"
        for name in sorted({*stated, *here})
        if stated.get(name) != here.get(name)
    ]


def _stated(folder: Path) -> dict[str, str]:
    """Path below the folder -> sha256, as the checksums say."""
    path = folder / SUMS
    stated = {}
    for number, line in enumerate(_lines(path), start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ResultError(f"{path}: line {number}: expected a sha256, two spaces and a path")
        stated[found[2]] = found[1]
    return stated


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "the round is not frozen" if isinstance(error, FileNotFoundError) else str(error)
        raise ResultError(
            f"{path}: cannot be read ({reason}); `corobench freeze {path.parent}` writes it"
        ) from error


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


def recode(folder: Path, path: Path, content: bytes, images: str) -> None:
    """Replace a file of images in a frozen round by one that holds the same images.

    The old checksum goes to ``RECODED`` first, so that :func:`finish_recoding` can finish what is
    interrupted.

    Args:
        folder: of the round.
        path: of the file.
        content: the new one.
        images: sha256 of the images, decoded, which both hold.

    Raises:
        ResultError: the round was changed since it was frozen.
        OutputError: a file cannot be written.
    """
    if changed := changes(folder):
        raise ResultError("\n".join(changed) + "\nBring the files back before they are coded.")
    name = path.relative_to(folder).as_posix()
    old, new = (hashlib.sha256(one).hexdigest() for one in (path.read_bytes(), content))
    recoded = {**read_recoded(folder), name: (old, new, images)}
    lines = [f"{'  '.join(digests)}  {name}\n" for name, digests in sorted(recoded.items())]
    write_atomic(folder / RECODED, "".join(lines).encode())
    write_atomic(path, content)
    finish_recoding(folder)


def finish_recoding(folder: Path) -> None:
    """Make the checksums of a frozen round anew for the files that ``RECODED`` names, and for it.

    Nothing else is looked at: any other file that differs still differs from its checksum.

    Raises:
        ResultError: the checksums cannot be read.
        OutputError: they cannot be written.
    """
    recoded = read_recoded(folder)
    if not recoded:
        return
    stated = _stated(folder)
    expected = dict(stated)
    for name, (old, new, _) in recoded.items():
        place = folder / name
        if stated.get(name) == old and place.is_file() and sha256_of(place) == new:
            expected[name] = new
    expected[RECODED] = sha256_of(folder / RECODED)
    if expected != stated:
        lines = [f"{digest}  {name}\n" for name, digest in sorted(expected.items())]
        write_atomic(folder / SUMS, "".join(lines).encode())


def read_recoded(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Path below the round -> sha256 of the file as frozen, as coded, and of the images decoded.

    Raises:
        ResultError: a line at fault.
    """
    path = folder / RECODED
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = _RECODED_LINE.fullmatch(line)
        if fields is None:
            raise ResultError(
                f"{path}: line {number}: expected three sha256 and a path, two spaces between them"
            )
        found[fields[4]] = (fields[1], fields[2], fields[3])
    return found


def _digests(folder: Path) -> dict[str, str]:
    """Path below the folder -> sha256, of every file but the checksums and hidden ones."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and path != folder / SUMS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
