"""Result files -> validated results, or one error that lists every fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.reading.places import LAYOUT
from corobench.benchmark.records.reading.result_file import (
    read_payload,
    read_result,
    read_scorecard,
)
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.ranking import why_unpublished
from corobench.benchmark.scoring.rounds import require_unchanged
from corobench.leaderboard.discovery import Candidate, Ignored, find_result_files


@dataclass(frozen=True)
class Loaded:
    """Everything that was read, sorted by what identifies a result.

    Attributes:
        results: each once; files that hold the same result are merged.
        paths: the file of each result.
        ignored: JSON files that are not results, with the reason.
    """

    results: tuple[Result, ...]
    paths: tuple[Path, ...]
    ignored: tuple[Ignored, ...]


def load_results(paths: Sequence[Path]) -> Loaded:
    """Read every result file under `paths`.

    Args:
        paths: result files, or folders searched for ``<protocol>/<track>/<entry>.json``.

    Raises:
        ResultError: a path is missing, no result was found, or some files are at fault; then
            the error names each file, the key, what was expected and what was found; or a frozen
            round changed.
    """
    candidates, ignored = find_result_files(paths)
    faults: list[str] = []
    read: list[tuple[Path, Result]] = []
    for candidate in candidates:
        try:
            result = read_candidate(candidate)
        except ResultError as error:
            faults.append(error.message)
            continue
        if result is None:
            ignored.append(Ignored(candidate.path, "belongs to another result file beside it"))
        else:
            read.append((candidate.path, result))
    if faults:
        raise ResultError("\n".join(faults))
    if not read:
        names = ", ".join(str(path) for path in paths)
        seen = f", only {len(ignored)} other JSON files" if ignored else ""
        raise ResultError(f"{names}: expected result files at {LAYOUT}, found none{seen}")
    require_unchanged(path for path, _ in read)
    _refuse_circles(read)
    merged = _merge(read)
    results, files = tuple(result for _, result in merged), tuple(path for path, _ in merged)
    return Loaded(results, files, tuple(sorted(ignored, key=lambda item: str(item.path))))


def unpublished(loaded: Loaded) -> list[str]:
    """Why results may not be published: one line per reason, with the file; empty if all may."""
    return [
        f"{path}: {reason}"
        for path, result in zip(loaded.paths, loaded.results, strict=True)
        for reason in why_unpublished(result)
    ]


def require_public(loaded: Loaded, hint: str) -> None:
    """Refuse results that may not be published: quick ones, and those of other settings.

    Args:
        loaded: what was read.
        hint: what a user can do instead.

    Raises:
        ResultError: every such file with its reasons.
    """
    faults = unpublished(loaded)
    if faults:
        raise ResultError("\n".join(["these results cannot be published", *faults, hint]))


def read_candidate(candidate: Candidate) -> Result | None:
    """The result in a file, or None for a file that lies beside a result and belongs to it.

    Raises:
        ResultError: see `benchmark.records.reading.result_file.read_result`.
    """
    return None if _describes_another(candidate) else read_result(candidate.path)


def read_alone(candidate: Candidate) -> Result | None:
    """Like :func:`read_candidate`, whatever lies beside the file, or is not there.

    Raises:
        ResultError: see `benchmark.records.reading.result_file.read_scorecard`.
    """
    return None if _describes_another(candidate) else read_scorecard(candidate.path)


def _describes_another(candidate: Candidate) -> bool:
    path = candidate.path
    return not candidate.named and "." in path.stem and _is_side_file(path)


def identity(result: Result) -> tuple[str, ...]:
    """What makes it this result and no other, as a sortable key (design.md)."""
    return (
        result.track,
        result.protocol,
        result.data.kind,
        result.data.fingerprint,
        f"{result.n:09d}",
        result.entry,
        f"{result.seed:020d}",
        result.weights_sha256,
        result.device,
        json.dumps(result.versions, sort_keys=True),
        json.dumps(result.settings, sort_keys=True, default=str),
        " ".join(sorted(result.epsilons)),
    )


def _is_side_file(path: Path) -> bool:
    """Whether ``a.run.json`` describes the entry ``a`` beside it, and is no result itself."""
    entry = read_payload(path).get("entry")
    return isinstance(entry, str) and path.stem.startswith(f"{entry}.")


def _refuse_circles(read: list[tuple[Path, Result]]) -> None:
    """No entry is its own ancestor."""
    parents = {(one.track, one.entry): one.submission.parent for _, one in read}
    for path, result in read:
        seen, entry = [result.entry], result.submission.parent
        while entry is not None and entry not in seen:
            seen.append(entry)
            entry = parents.get((result.track, entry))
        if entry == result.entry:
            raise ResultError(
                f"{path}: submission.parent: expected an entry that is compressed from no other of "
                f"this circle: {' <- '.join([*seen, entry])}"
            )


def _merge(read: list[tuple[Path, Result]]) -> list[tuple[Path, Result]]:
    """Each result once; two files that claim the same evaluation must agree on its counts."""
    kept: dict[tuple[str, ...], tuple[Path, Result]] = {}
    for path, result in read:
        first_path, first = kept.setdefault(identity(result), (path, result))
        if _untimed(first) != _untimed(result):
            raise ResultError(
                f"{path}: expected the same numbers as {first_path}, which has the same entry, "
                "track, n, data, weights, seed, versions and settings; remove one of the two"
            )
    return [kept[key] for key in sorted(kept)]


def _untimed(result: Result) -> dict[str, object]:
    return result.model_dump(exclude={"seconds"})
