"""Result files -> validated results, or one error that lists every fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from benchmark.errors import ResultError
from benchmark.records import MAX_RESULT_BYTES, Result
from benchmark.rounds import require_unchanged
from benchmark.safe_json import check_depth, no_repeats
from benchmark.scoring import why_unpublished
from benchmark.tracks import round_of
from leaderboard.consistency import contradictions
from leaderboard.discovery import LAYOUT, Candidate, Ignored, find_result_files
from leaderboard.faults import describe


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
        raise ResultError("\n".join(["these results may not be published", *faults, hint]))


def read_result(path: Path) -> Result:
    """Read one result file that was named by the user.

    Raises:
        ResultError: unreadable, not JSON, a key at fault, or numbers that contradict each other.
    """
    result = read_candidate(Candidate(path, named=True))
    assert result is not None, "only files found by searching can be side files"
    return result


def read_candidate(candidate: Candidate) -> Result | None:
    """The result in a file, or None for a file that lies beside a result and belongs to it."""
    path = candidate.path
    text, raw = _read_json(path)
    if not candidate.named and _is_side_file(path, raw):
        return None
    try:
        result = Result.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _error(path, [describe(fault, Result) for fault in error.errors()]) from None
    except RecursionError:
        raise _error(path, ["nested too deeply to be a result"]) from None
    found = contradictions(result)
    if not candidate.named:
        found += _misplaced(path, result)
    if found:
        raise _error(path, found)
    return result


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


def _read_json(path: Path) -> tuple[str, object]:
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise ValueError(f"expected at most {MAX_RESULT_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        check_depth(text)
        return text, json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=no_repeats)
    except OSError as error:
        raise _error(path, [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise _error(path, [f"expected UTF-8 text, found byte {error.start} at fault"]) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _error(path, [f"expected JSON, found a fault at {place}: {error.msg}"]) from error
    except (ValueError, RecursionError) as error:
        raise _error(path, [f"expected JSON: {error}"]) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"expected a finite number, found {name}")


def _is_side_file(path: Path, raw: object) -> bool:
    """Whether ``a.run.json`` describes the entry ``a`` beside it, and is no result itself."""
    entry = raw.get("entry") if isinstance(raw, dict) else None
    return isinstance(entry, str) and path.stem.startswith(f"{entry}.")


def _misplaced(path: Path, result: Result) -> list[str]:
    """Faults of a file whose folder or name says something else than it holds."""
    real = path.resolve()
    stem, _, size = real.stem.partition("@")
    said = {
        "protocol": (real.parent.parent.name, round_of(result.protocol)),
        "track": (real.parent.name, result.track),
        "entry": (stem, result.entry),
        "n": (size or str(result.n), str(result.n)),
    }
    return [
        f"{key}: expected {expected!r} as in the file's path, found {found!r}"
        for key, (expected, found) in said.items()
        if expected != found
    ]


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


def _error(path: Path, faults: list[str]) -> ResultError:
    lines = "\n".join(f"  - {fault}" for fault in faults)
    return ResultError(f"{path}: not a valid result file\n{lines}")
