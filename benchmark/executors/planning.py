"""Which results a command makes, in which order, and which share of them; imports no torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corobench.benchmark.errors import ConfigError, CorobenchError, ResultError, SubmissionError
from corobench.benchmark.evaluation.settings import Settings
from corobench.benchmark.executors.costs import cost_of
from corobench.benchmark.executors.work import Work
from corobench.benchmark.records.reading.places import result_stem
from corobench.benchmark.records.reading.result_file import read_result, read_scorecard
from corobench.benchmark.records.result_set import ENDINGS, staged, verify_set
from corobench.benchmark.submission.manifest import load_manifest
from corobench.benchmark.tracks import get_track, round_of, standard_subset

MAX_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """A share of the entries, for schedulers that know nothing of corobench.

    Attributes:
        number: from 1 to `count`.
        count: of shares.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The share that a text such as "3/8" names.

        Raises:
            ConfigError: it names none.

        >>> Shard.parse("3/8")
        Shard(number=3, count=8)
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        number, count = (int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= number <= count <= MAX_SHARDS:
            raise ConfigError(
                f"--shard: expected i/N with i from 1 to N, such as 1/8, but found {text!r}"
            )
        return cls(number, count)

    def holds(self, entry: str) -> bool:
        """Whether an entry belongs to this share: its name alone decides.

        So another entry moves no other one, and all subsets of an entry are in one share.

        >>> [Shard(number, 2).holds("digits-adv-dense") for number in (1, 2)]
        [False, True]
        """
        digest = hashlib.sha256(entry.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        works: longest first.
        there: result files that are there already and are left alone.
        num_elsewhere: results of entries that belong to another share.
        refused: what cannot be evaluated, each with the reason.
    """

    works: tuple[Work, ...]
    there: tuple[Path, ...] = ()
    num_elsewhere: int = 0
    refused: tuple[CorobenchError, ...] = ()


def plan(
    folders: Iterable[Path],
    settings: Settings,
    subsets: Sequence[int] = (),
    *,
    missing_only: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """The results of entries and subsets, longest first.

    Args:
        folders: of submissions; one that is named twice, in whatever way, counts once.
        settings: what the user chose; `n` is set here.
        subsets: sizes, each once; empty for the standard subset of the track.
        missing_only: leave alone what has a whole result of the current protocol. Its weights and
            settings are not compared.
        shard: the share of the entries to plan, by the names of their folders.
    """
    works: dict[Path, Work] = {}
    there: list[Path] = []
    refused: list[CorobenchError] = []
    num_elsewhere = 0
    sizes: tuple[int | None, ...] = tuple(dict.fromkeys(subsets)) or (None,)
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        if shard is not None and not shard.holds(_name_of(folder)):
            num_elsewhere += len(sizes)
            continue
        for n in sizes:
            try:
                path, work = _work(folder, replace(settings, n=n))
                if path in works and _is_same(works[path].folder, folder):
                    break
                if path in works:
                    raise _twice(path, works[path].folder, work.folder)
            except CorobenchError as error:
                refused.append(error)
                break
            if missing_only and has_result(path):
                there.append(path)
            else:
                works[path] = work
    return Plan(longest_first(works.values()), tuple(there), num_elsewhere, tuple(refused))


def plan_again(
    results: Iterable[Path],
    submissions: Path,
    settings: Settings,
    *,
    missing_only: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """Stored results that are brought to the current certificates, longest first.

    Args:
        results: stored result files.
        submissions: folder of the entries.
        settings: what the user chose; `earlier` is set here.
        missing_only, shard: see `plan`.
    """
    works: dict[Path, Work] = {}
    there: list[Path] = []
    refused: list[CorobenchError] = []
    num_elsewhere = 0
    for old in dict.fromkeys(Path(result) for result in results):
        try:
            result = read_result(old)
            if shard is not None and not shard.holds(result.entry):
                num_elsewhere += 1
                continue
            chosen = replace(settings, track=result.track, n=result.n)
            path, work = _work(submissions / result.entry, chosen)
            if path in works:
                raise _twice(path, works[path].folder, work.folder)
        except CorobenchError as error:
            refused.append(error)
            continue
        if missing_only and has_result(path):
            there.append(path)
        else:
            own = replace(settings, earlier=old)
            works[path] = replace(work, settings=own)
    return Plan(longest_first(works.values()), tuple(there), num_elsewhere, tuple(refused))


def place_of(work: Work) -> Path:
    """Where the result of a work lies.

    Raises:
        SubmissionError: see `plan`.
    """
    return _work(work.folder, work.settings)[0]


def longest_first(works: Iterable[Work]) -> tuple[Work, ...]:
    """By estimated seconds, and by name and subset where they are equal."""
    return tuple(
        sorted(works, key=lambda work: (-work.cost_s, str(work.folder), work.settings.n or 0))
    )


def has_result(path: Path) -> bool:
    """Whether a whole result lies at a place: its three files belong together.

    Args:
        path: of the result file.
    """
    if not path.is_file() or any(staged(path, ending).exists() for ending in ("json", *ENDINGS)):
        return False
    try:
        verify_set(path, read_scorecard(path))
    except ResultError:
        return False
    return True


def _name_of(folder: Path) -> str:
    """The entry's id, so that two folders of one id are in one share; else its folder's name."""
    try:
        return load_manifest(folder).id
    except CorobenchError:
        return folder.resolve().name


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are those of one folder."""
    return one.resolve() == other.resolve()


def _work(folder: Path, settings: Settings) -> tuple[Path, Work]:
    """One result to make, and the place of its file.

    Raises:
        SubmissionError: the folder has no valid manifest, its track is unknown, or a subset is
            larger than its test set.
    """
    manifest = load_manifest(folder)
    try:
        track = get_track(settings.track or manifest.track)
    except ConfigError as error:
        raise SubmissionError(folder, [error.message]) from error
    standard = standard_subset(track)
    n = settings.n or standard
    if n > max(track.subsets):
        raise SubmissionError(
            folder, [f"--subset {n}: {track.name} has {max(track.subsets)} test images"]
        )
    stem = result_stem(manifest.id, n, standard)
    path = settings.out / round_of(settings.protocol.version) / track.name / f"{stem}.json"
    num_radii = len(settings.epsilons or track.epsilons)
    cost_s = cost_of(manifest, folder, track, n, num_radii)
    return path, Work(folder, settings, cost_s, manifest.id)


def _twice(path: Path, one: Path, other: Path) -> ConfigError:
    return ConfigError(
        f"{other}: its result would be {path}, as that of {one}; give them other ids, or evaluate "
        "them into different --out folders"
    )
