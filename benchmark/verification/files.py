"""What a handed-in result must be before a network is asked: regular files that agree.

The result file is the very scorecard of its table; both are of this entry, its weights, this
protocol and these images; the table has one row for each published image at each radius, and its
columns do not contradict each other.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmark import rounds, scoring, store
from benchmark.errors import ResultError
from benchmark.evaluate import identity_of
from benchmark.evidence import Evidence
from benchmark.records import Outcome, Run
from benchmark.submission import load_submission
from benchmark.tracks import Protocol, round_of, settings_of, standard_subset
from benchmark.verification.mismatch import Mismatch

ENDINGS = ("outcomes.parquet", "adversarial.npz")
#: Another release of zstandard may make a few bytes more or less of the same values.
UNSTEADY_BYTES = {"bytes_packed_zstd": 0.02}
#: Longest text of a result; a manifest's description is the longest that we write.
MAX_TEXT = 4000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSIONS = ("auto_LiRPA", "corobench", "pyautoattack", "torch")


def require_regular(path: Path) -> None:
    """Refuse a result of which a file is missing, a link, or anything but a file.

    Raises:
        ResultError: names the file.
    """
    for one in (path, *(store.beside(path, ending) for ending in ENDINGS)):
        try:
            mode = one.lstat().st_mode
        except OSError as error:
            raise ResultError(f"{one}: cannot be read ({error.strerror or error})") from error
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
            raise ResultError(f"{one}: expected a regular file, but found {kind}")


def require_weights(path: Path, folder: Path) -> None:
    """Refuse a result of other weights than those of a submission.

    Raises:
        ResultError: it is.
        SubmissionError: the folder is no submission.
    """
    result = store.read_result(path)
    if load_submission(folder, result.track).weights_sha256 != result.weights_sha256:
        raise ResultError(f"{path}: belongs to other weights than {folder}")


def require_published(path: Path) -> None:
    """Refuse a result that may not stand in its round, or is not its table's scorecard.

    Raises:
        ResultError: all faults.
    """
    faults = rounds.faults_of(path, path.parent.parent.name)
    if faults:
        raise ResultError(
            "\n".join(
                ["a handed-in result may not be published", *(f"{path}: {f}" for f in faults)]
            )
        )


def check(evidence: Evidence) -> list[Mismatch]:
    """What two files say differently, or the result and the entry."""
    found = [*_bytes(evidence), *_texts(evidence.path)]
    return found or [*_identity(evidence), *_sizes(evidence), *_records(evidence)]


def _bytes(evidence: Evidence) -> Iterator[Mismatch]:
    """The result file is what `evaluate` writes for this table, byte by byte."""
    table, run, path = evidence.table, evidence.run, evidence.path
    expected = store.encode_result(scoring.score(table, run))
    if path.read_bytes() != expected:
        here, there = store.read_payload(path), json.loads(expected)
        what, claimed, measured = next(_differences(here, there), ("the file", "other bytes", ""))
        yield Mismatch(what, claimed, measured or "the scorecard of its outcome table")
    raw = store.read_raw_outcomes(store.beside(path, "outcomes.parquet"))[1]
    yield from (
        Mismatch(f"run record of {path.stem}.outcomes.parquet: {what}", claimed, measured)
        for what, claimed, measured in _differences(
            raw, json.loads(run.model_dump_json(by_alias=True))
        )
    )


def _differences(
    here: Mapping[str, Any], there: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Keys whose values differ, with both; the deepest key that tells."""
    for key in sorted({*here, *there}):
        one, other = here.get(key), there.get(key)
        if one == other and type(one) is type(other):
            continue
        name = f"{above}{key}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{name}.")
        else:
            yield name, one, "no such key" if key not in there else other


def _texts(path: Path) -> Iterator[Mismatch]:
    """No text is longer than any that we write; such files are for filling pages or memory."""
    todo: list[tuple[str, object]] = [("", store.read_payload(path))]
    while todo:
        name, value = todo.pop()
        if isinstance(value, str) and len(value) > MAX_TEXT:
            yield Mismatch(name, f"{len(value)} characters", f"at most {MAX_TEXT} are written")
        elif isinstance(value, dict):
            todo += [(f"{name}.{key}".lstrip("."), one) for key, one in value.items()]
            todo += [(f"{name}: a key", key) for key in value]
        elif isinstance(value, list):
            todo += [(name, one) for one in value]


def _identity(evidence: Evidence) -> Iterator[Mismatch]:
    run, entry, path = evidence.run, evidence.submission, evidence.path
    track, dataset = entry.track, evidence.dataset
    expected: dict[str, object] = {
        "entry": entry.manifest.id,
        "track": track.name,
        "data": (dataset.info.kind, dataset.fingerprint),
        "weights_sha256": entry.weights_sha256,
        "epsilons": track.epsilons,
        "quick": False,
        "settings": settings_of(Protocol(), track) | {"version": run.protocol},
        "identity": identity_of(run),
    }
    claimed: dict[str, object] = {
        "entry": run.entry,
        "track": run.track,
        "data": (run.data.kind, run.data.fingerprint),
        "weights_sha256": run.weights_sha256,
        "epsilons": run.epsilons,
        "quick": run.quick,
        "settings": run.settings,
        "identity": run.identity,
    }
    yield from (
        Mismatch(key, claimed[key], value)
        for key, value in expected.items()
        if claimed[key] != value
    )
    yield from (
        Mismatch(f"submission.{what}", one, other)
        for what, one, other in _differences(
            _manifest(run), entry.manifest.model_dump(by_alias=True)
        )
    )
    stem = store.result_stem(run.entry, run.n, standard_subset(track))
    place = (round_of(run.protocol), track.name, f"{stem}.json")
    if path.absolute().parts[-3:] != place:
        yield Mismatch("place of the file", "/".join(path.parts[-3:]), "/".join(place))
    if sorted(run.versions) != sorted(_VERSIONS):
        yield Mismatch("versions", ", ".join(run.versions), ", ".join(_VERSIONS))


def _manifest(run: Run) -> dict[str, Any]:
    return run.submission.model_dump(by_alias=True)


def _sizes(evidence: Evidence) -> Iterator[Mismatch]:
    claimed = evidence.run.compactness.model_dump()
    measured = evidence.submission.measure().model_dump()
    for what, one, other in _differences(claimed, measured):
        slack = UNSTEADY_BYTES.get(what)
        is_close = (
            slack is not None
            and isinstance(one, int)
            and isinstance(other, int)
            and abs(one - other) <= slack * other
        )
        if not is_close:
            yield Mismatch(f"compactness.{what}", one, other)


def _records(evidence: Evidence) -> Iterator[Mismatch]:
    """Seconds, date, errors, contradictions and contests are possible and follow from the table."""
    run = evidence.run
    spent = run.seconds.model_dump()
    for key, value in spent.items():
        if not 0 <= value < float("inf"):
            yield Mismatch(f"seconds.{key}", value, "a time, at least 0")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    if run.date > tomorrow:
        yield Mismatch("date", run.date, "a day that is still to come")
    if unknown := sorted({*run.flags} - {*run.epsilons}):
        yield Mismatch("flags", ", ".join(unknown), f"flags of {', '.join(run.epsilons)}")
    yield from _errors(evidence)
    yield from _contests(evidence)


def _errors(evidence: Evidence) -> Iterator[Mismatch]:
    run, table = evidence.run, evidence.table
    named = dict.fromkeys(run.epsilons, 0)
    for line in run.errors:
        found = re.fullmatch(r"(\d{1,9}) images at (\d+/\d+): .+", line)
        if found is None or found[2] not in named:
            yield Mismatch("errors", line, '"<number> images at <epsilon>: <reason>"')
            return
        named[found[2]] += int(found[1])
    for epsilon, most in named.items():
        rows = table[(table["epsilon"] == epsilon) & (table["outcome"] == str(Outcome.ERROR))]
        if len(rows) > most:
            yield Mismatch(
                "errors", f"{most} images without an answer", f"{len(rows)} in the table", epsilon
            )


def _contests(evidence: Evidence) -> Iterator[Mismatch]:
    run, table = evidence.run, evidence.table
    by_contest = table[table["decided_by"] == "contest"].groupby("epsilon").size().to_dict()
    claimed: dict[str, int] = {}
    for contest in run.contests:
        if not _DIGEST.fullmatch(contest.sha256):
            yield Mismatch("contests.sha256", contest.sha256, "64 hexadecimal digits")
        if (
            not max(contest.broken.values(), default=0)
            <= contest.num_confirmed
            <= contest.num_images
        ):
            yield Mismatch(
                "contests",
                f"{contest.num_confirmed} of {contest.num_images} images hold",
                f"{max(contest.broken.values(), default=0)} rows broken by them",
            )
        for epsilon, number in contest.broken.items():
            claimed[epsilon] = claimed.get(epsilon, 0) + number
    for epsilon in sorted({*claimed, *by_contest}):
        if claimed.get(epsilon, 0) != by_contest.get(epsilon, 0):
            yield Mismatch(
                "contests",
                f"{claimed.get(epsilon, 0)} rows broken",
                f"{by_contest.get(epsilon, 0)} rows decided by a contest",
                epsilon,
            )
