"""What a handed-in result must be before a network is asked, beyond what every reader asks of it.

That the three files belong together, agree key by key, are about the published images and weigh
what the weights weigh is asked by `benchmark.evaluation.evidence.load_evidence`. Here: regular
files, not a byte that `evaluate` would not write, this entry and this protocol to the letter.
"""

from __future__ import annotations

import json
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from corobench.benchmark.errors import ResultError
from corobench.benchmark.evaluation import engine
from corobench.benchmark.evaluation.evidence import Evidence
from corobench.benchmark.evaluation.identity import ENGINE, versions
from corobench.benchmark.files.atomic import canonical_json
from corobench.benchmark.records.encoding import encode_result
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.image_coding import code
from corobench.benchmark.records.reading.coded_images import ARRAYS, read_coded
from corobench.benchmark.records.reading.places import beside
from corobench.benchmark.records.reading.result_file import read_payload, read_result
from corobench.benchmark.records.reading.table_file import read_raw_outcomes
from corobench.benchmark.records.result import Outcome, Run
from corobench.benchmark.records.result_set import ADVERSARIAL, ENDINGS, OUTCOMES
from corobench.benchmark.review.verification.mismatch import Mismatch, shown
from corobench.benchmark.scoring import rounds
from corobench.benchmark.scoring.result_writing import is_unfinished
from corobench.benchmark.scoring.scored import table_path
from corobench.benchmark.tracks import Protocol, round_of, settings_of

#: Constants that a note lists.
MAX_LISTED = 8

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,79}")
_DEVICE = re.compile(r"[0-9A-Za-z][0-9A-Za-z .,+_/()-]{0,119}")


def require_regular(path: Path) -> None:
    """Refuse a result of which a file is missing, a link, or anything but a file.

    Raises:
        ResultError: names the file; or files of another writing wait beside the result, which the
            next writer would put in its place.
    """
    if is_unfinished(path):
        raise ResultError(
            f"{path}: files of an interrupted writing lie beside it (.{path.stem}.*.new); finish "
            "it with the same command again, or remove them"
        )
    for one in (path, *(beside(path, ending) for ending in ENDINGS)):
        try:
            mode = one.lstat().st_mode
        except OSError as error:
            raise ResultError(f"{one}: cannot be read ({error.strerror or error})") from error
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "something else"
            raise ResultError(f"{one}: expected a regular file, but found {kind}")


def require_published(path: Path) -> None:
    """Refuse a result that may not stand in its round, or is not its table's scorecard.

    Raises:
        ResultError: all faults.
    """
    faults = rounds.faults_of(path, path.parent.parent.name)
    if faults:
        raise ResultError(
            "\n".join(["a handed-in result cannot be published", *(f"{path}: {f}" for f in faults)])
        )


def compare_files(evidence: Evidence) -> list[Mismatch]:
    """What the strict readers let pass in a result that may be anybody's, and intake does not."""
    return (
        [*_unweighed(evidence)]
        or [*_bytes(evidence)]
        or [
            *_identity(evidence),
            *_earlier(evidence),
            *_arrays(evidence),
            *_records(evidence),
        ]
    )


def _unweighed(evidence: Evidence) -> Iterator[Mismatch]:
    """Keys of `compactness` that older results lack, and that every new one has."""
    said, measured = evidence.result.compactness, evidence.weighed
    for key in type(said).model_fields:
        if getattr(said, key) is None and (value := getattr(measured, key)) is not None:
            told = value if isinstance(value, int | str) else "a record"
            yield Mismatch(f"compactness.{key}", "missing", told)


def _bytes(evidence: Evidence) -> Iterator[Mismatch]:
    """Both records are what `evaluate` writes: not a key more, not a byte else."""
    run, path = evidence.run, evidence.path
    expected = encode_result(evidence.result)
    if path.read_bytes() != expected:
        here, there = read_payload(path), json.loads(expected)
        what, claimed, measured = next(_differences(here, there), ("the file", "other bytes", ""))
        yield Mismatch(what, claimed, measured or "the scorecard of its outcome table")
    raw = read_raw_outcomes(table_path(path))[1]
    yield from (
        Mismatch(f"run record of {path.stem}.{OUTCOMES}: {what}", claimed, measured)
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


def _identity(evidence: Evidence) -> Iterator[Mismatch]:
    run, entry = evidence.run, evidence.submission
    settings = settings_of(Protocol(), entry.track) | {"version": run.protocol}
    expected: dict[str, object] = {
        "entry": entry.manifest.id,
        "protocol": Protocol().version,
        "data.kind": evidence.dataset.info.kind,
        "settings": canonical_json(settings),  # 50 and 50.0 are two texts
        "identity": identity_of(run),
        "versions": ", ".join(sorted(versions())),
    }
    claimed: dict[str, object] = {
        "entry": run.entry,
        "protocol": run.protocol,
        "data.kind": run.data.kind,
        "settings": canonical_json(run.settings),
        "identity": run.identity,
        "versions": ", ".join(sorted(run.versions)),
    }
    yield from (
        Mismatch(key, claimed[key], value)
        for key, value in expected.items()
        if claimed[key] != value
    )
    yield from _texts(run)
    if run.versions.get("engine") == ENGINE and run.constants != dict(engine.constants()):
        what, said, measured = next(_differences(run.constants or {}, engine.constants()))
        yield Mismatch(f"constants.{what}", said, f"{measured} with the named engine")
    yield from (
        Mismatch(f"submission.{what}", one, other)
        for what, one, other in _differences(
            _manifest(run), _told_then(run, entry.manifest.model_dump(by_alias=True))
        )
    )


def other_constants(run: Run) -> list[str]:
    """Constants of a run that the engine here has otherwise, both values; empty for its own."""
    found = [*_differences(run.constants or {}, engine.constants())]
    lines = [
        f"{name} {'none' if said is None else shown(said)}, here {shown(here)}"
        for name, said, here in found[:MAX_LISTED]
    ]
    return lines + ([f"and {len(found) - MAX_LISTED} more"] if len(found) > MAX_LISTED else [])


def _texts(run: Run) -> Iterator[Mismatch]:
    """Versions and the device have the form of a version and of a device's name."""
    for name, text in run.versions.items():
        if not _VERSION.fullmatch(text):
            yield Mismatch(f"versions.{name}", text, "no version")
    if not _DEVICE.fullmatch(run.device):
        yield Mismatch("device", run.device, "not the name of a device")


def _arrays(evidence: Evidence) -> Iterator[Mismatch]:
    """The archive of images holds them and nothing else, coded as `evaluate` codes them."""
    path = beside(evidence.path, ADVERSARIAL)
    with zipfile.ZipFile(path) as archive:
        names, comment = archive.namelist(), archive.comment
    coded = [f"{name}.npy" for name in ARRAYS]
    if names not in (["images.npy"], coded) or comment:
        found = ", ".join(names) + (" and a comment" if comment else "")
        written = f"{', '.join(coded)} or images.npy alone are written"
        yield Mismatch(f"arrays of {path.name}", found, written)
    elif names == coded:
        stored = read_coded(path, evidence.submission.track.shape)
        ours = code(evidence.adversarial, evidence.table, evidence.run, evidence.dataset)
        if not stored.is_same(ours):
            yield Mismatch(f"codes of {path.name}", "others", "those that evaluate writes")


def _earlier(evidence: Evidence) -> Iterator[Mismatch]:
    """The result whose attacks were taken over lies in its round, of the same weights and images.

    Without it nobody can tell what ran where; a new entry has none and is evaluated anew.
    """
    run, path = evidence.run, evidence.path
    if run.earlier is None:
        return
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4}){1,3}", run.earlier.protocol):
        yield Mismatch("earlier.protocol", run.earlier.protocol, "not a version of a protocol")
        return
    there = path.parents[2] / round_of(run.earlier.protocol) / run.track / path.name
    if there == path or not there.is_file():
        yield Mismatch("earlier", f"a result of protocol {run.earlier.protocol}", f"no {there}")
        return
    then = read_result(there)
    measured = {key: getattr(then, key) for key in type(run.earlier).model_fields}
    for what, claimed, found in _differences(run.earlier.model_dump(), measured):
        yield Mismatch(f"earlier.{what}", claimed, found)
    for key in ("weights_sha256", "seed", "n"):
        if getattr(then, key) != getattr(run, key):
            yield Mismatch(f"{key} of {there}", getattr(then, key), getattr(run, key))
            return
    yield from _frozen(there)


def _frozen(there: Path) -> Iterator[Mismatch]:
    """Whether an earlier result stands as its round was frozen; what was put there is nobody's."""
    folder = there.parent.parent
    if not rounds.is_frozen(folder):
        yield Mismatch("earlier", f"the result {there}", "a round that is not frozen")
        return
    for line in rounds.changes(folder):
        if line.startswith(f"{there.with_suffix('')}."):
            yield Mismatch("earlier", f"the result {there}", line.removeprefix(f"{folder}/"))


def _told_then(run: Run, manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without a budget, if the result is from before it told one."""
    if run.submission.training.epochs is None:
        manifest["training"].pop("epochs", None)
    return manifest


def _manifest(run: Run) -> dict[str, Any]:
    return run.submission.model_dump(by_alias=True)


def _records(evidence: Evidence) -> Iterator[Mismatch]:
    """Seconds, date, errors, contradictions and contests are possible and follow from the table."""
    run = evidence.run
    spent = run.seconds.model_dump()
    for key, value in spent.items():
        if not 0 <= value < float("inf"):
            yield Mismatch(f"seconds.{key}", value, "a time, at least 0")
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    if run.date > tomorrow:
        yield Mismatch("date", run.date, "a day in the future")
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
        if not any(contest.broken.values()) or {*contest.broken} != {*run.epsilons}:
            shown = ", ".join(f"{n} at {e}" for e, n in contest.broken.items()) or "none"
            yield Mismatch("contests.broken", shown, "a contest that breaks nothing is not written")
        if (
            not max(contest.broken.values(), default=0)
            <= contest.num_confirmed
            <= contest.num_images
        ):
            yield Mismatch(
                "contests",
                f"{contest.num_confirmed} of {contest.num_images} images confirmed",
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
