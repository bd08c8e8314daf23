"""A result is one set of three files: its result file names the digests of the two beside it.

The three are replaced one after another, and no file system replaces three at once. So the result
file has the sha256 of the outcome table and of the adversarial images, the table has that of the
images, and a reader refuses what does not fit. The writer is `benchmark.scoring.result_writing`;
why it is done this way is in docs/decisions/0008. Every reader
(`benchmark.records.reading.result_file`, `benchmark.scoring.scored`) calls :func:`verify_set`.
Imports no torch, and nothing that reads a table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from corobench.benchmark.errors import ResultError
from corobench.benchmark.files.regular import open_regular
from corobench.benchmark.records.reading.places import beside as beside
from corobench.benchmark.records.result import Result
from corobench.benchmark.tracks import is_since

OUTCOMES, ADVERSARIAL = "outcomes.parquet", "adversarial.npz"
#: Endings of the files beside a result file.
ENDINGS = (OUTCOMES, ADVERSARIAL)
#: First protocol whose results must have the digests.
REQUIRED_FROM = (1, 1)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def staged(path: Path, ending: str) -> Path:
    """Where a file of a set waits, beside its place, until all of the set are written.

    >>> staged(Path("digits/mine@100.json"), "outcomes.parquet").as_posix()
    'digits/.mine@100.outcomes.parquet.new'
    """
    return path.with_name(f".{path.stem}.{ending}.new")


def with_digest(result: Result, outcomes: str) -> Result:
    """A result whose table is not written yet or was just read, with the digest of that table.

    Args:
        result: as scored from the table; it has the digests that stand inside the table.
        outcomes: sha256 of the table's file.
    """
    return result.model_copy(update={"files": {OUTCOMES: outcomes, **(result.files or {})}})


def verify_set(path: Path, result: Result, *, missing_ok: bool = False) -> None:
    """Refuse a result file beside which lie other files than those that it was written with.

    Call it after reading the files, too, where another process may write meanwhile: files that fit
    afterwards are those that were read.

    Args:
        path: of the result file.
        result: as read from it. Without digests (protocol 1.0 only) nothing is compared.
        missing_ok: a file that is not there is no fault, for a result file may be read alone.

    Raises:
        ResultError: one error with every fault, and what to do.
    """
    digests: Mapping[str, str] = result.files or {}
    faults = [
        fault
        for ending in ENDINGS
        if ending in digests
        and (fault := _fault(beside(path, ending), digests[ending], missing_ok))
    ]
    if requires_digests(result.protocol):
        faults += [
            f"files.{ending}: expected its sha256, which every result from protocol 1.1 on has, "
            "but found none"
            for ending in ENDINGS
            if ending not in digests
        ]
    if faults:
        raise ResultError(
            f"{path}: the three files of this result do not belong together\n"
            + "\n".join(f"  - {fault}" for fault in faults)
            + "\nTo fix it, run `corobench evaluate` on the entry again, or restore all three "
            "files from one copy."
        )


def requires_digests(protocol: str) -> bool:
    """Whether results of a protocol must have the digests of their files.

    >>> requires_digests("1.0.3"), requires_digests("1.1"), requires_digests("2.0")
    (False, True, True)
    """
    return is_since(protocol, REQUIRED_FROM)


def _fault(path: Path, expected: str, missing_ok: bool) -> str:
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return "" if missing_ok else f"{path.name}: is missing"
    except OSError as error:
        return f"{path.name}: cannot be read ({error.strerror or error})"
    if found == expected:
        return ""
    return f"{path.name}: expected sha256 {expected[:12]}..., but found {found[:12]}..."
