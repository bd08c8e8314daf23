"""Results -> boards: one table per track, kind of data, n and epsilon, never mixed.

Rows are sorted by a stated rule and carry rank groups, not ranks: what the paired tests on the same
images cannot tell apart stands in one group. There are two such rules: by what is proven, and by
what is unbroken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath

from corobench.benchmark.records.result import CERTIFIERS, EpsilonScore, Result
from corobench.benchmark.scoring.ranking import may_rank, rank_key, why_unpublished
from corobench.benchmark.scoring.statistics import Standing, rank_groups
from corobench.benchmark.tracks import TRACKS, Track, parse_epsilon, round_of
from corobench.leaderboard.evidence import EntryEvidence, EvidenceOf
from corobench.leaderboard.format import plain, plain_reason
from corobench.leaderboard.loading import identity
from corobench.leaderboard.measures import (
    DrawnBracket,
    Retention,
    Share,
    bracket,
    is_lower_end_known,
    is_wide,
    retentions,
)
from corobench.leaderboard.seeds import trainings

#: Outcomes of an image that counts as proven, and as unbroken.
PROVEN, UNBROKEN = "c", "cuet"


@dataclass(frozen=True)
class Row:
    """One entry at one epsilon, as a line of a board.

    Attributes:
        result: the whole result file.
        epsilon: key of ``result.epsilons``.
        page: path of the entry's page inside the site.
        variant: what tells it from another row of the same entry, or empty.
        parent: result of the dense parent on the same images, or None.
        parent_page: path of the parent's page inside the site, or empty.
        training: the same for all rows of the board that differ in the seed of their training
            alone; empty where there is a single one.
        evidence: outcomes image by image, or None where no table lies beside the result.
        standing: rank group by what is proven and the ranks that the entry can hold; None on boards
            without ranks, and where the lower end is not known.
        unbroken_standing: the same by what is unbroken; None on boards without ranks.
    """

    result: Result
    epsilon: str
    page: str
    variant: str
    parent: Result | None
    parent_page: str
    training: str = field(default="", repr=False)
    evidence: EntryEvidence | None = field(default=None, repr=False)
    standing: Standing | None = None
    unbroken_standing: Standing | None = None

    @cached_property
    def quick(self) -> bool:
        """Whether the setting is not a ranked one, whatever the data."""
        return bool(why_unpublished(self.result))

    @cached_property
    def name(self) -> str:
        """The page's file name without its ending; part of the row's permanent link."""
        return PurePosixPath(self.page).stem

    @cached_property
    def plain_title(self) -> str:
        """The title on one line, without invisible characters."""
        return plain(self.result.submission.title) or self.result.entry

    @cached_property
    def title(self) -> str:
        """The title, with the seed of the training where others stand beside it."""
        title = self.plain_title
        return f"{title}, seed {self.result.submission.training.seed}" if self.training else title

    @property
    def score(self) -> EpsilonScore:
        return self.result.epsilons[self.epsilon]

    @property
    def clean(self) -> Share:
        return Share(self.result.clean, self.result.n)

    @property
    def pgd50(self) -> Share:
        return Share(self.score.pgd50, self.result.n)

    @property
    def autoattack(self) -> Share:
        return Share(self.score.autoattack, self.result.n)

    @cached_property
    def bracket(self) -> DrawnBracket:
        return bracket(self.score, self.result.n)

    @cached_property
    def retention(self) -> dict[str, Retention]:
        return retentions(self.result, self.parent, self.epsilon)

    def certifier(self, name: str) -> Share | None:
        """Share proven right by one certifier; None where it was not asked."""
        count = self.score.certified_by.get(name)
        return None if count is None else Share(count, self.result.n)

    def why_not_asked(self, name: str) -> str:
        """Why there is no number of this certifier, or of the cascade of all of them."""
        if name == "cascade":
            return "no certifier was asked"
        return f"{name} was not asked: {self._reason(name)}"

    def _reason(self, name: str) -> str:
        return plain_reason(self.result.not_asked.get(name, "no reason was recorded"))

    @cached_property
    def is_certifiable(self) -> bool:
        """Whether the lower end is known; see `measures.is_lower_end_known`."""
        return is_lower_end_known(self.score)

    @property
    def is_wide(self) -> bool:
        """Whether less than half of what is unbroken is proven."""
        return is_wide(self.score)

    @property
    def why_not_certifiable(self) -> str:
        """Who proved nothing, and who was not asked, each reason once."""
        asked = [name for name, count in self.score.certified_by.items() if count is not None]
        empty = [name for name in asked if name != "cascade"]
        reasons: dict[str, list[str]] = {}
        for name, count in self.score.certified_by.items():
            if count is None and name != "cascade":
                reasons.setdefault(self._reason(name), []).append(name)
        parts = [f"{', '.join(empty)} proved nothing"] if empty else []
        parts += [f"{', '.join(names)} not asked: {why}" for why, names in reasons.items()]
        return "; ".join(parts) or "no certifier was asked"

    def sort_key(self) -> tuple[object, ...]:
        """The stated rule: lower end known, more proven, more unbroken, fewer non-zeros."""
        return place_on_board(self.result, self.epsilon), self.page

    def unbroken_key(self) -> tuple[object, ...]:
        """The other stated rule: more unbroken, then more proven, then fewer non-zeros."""
        low, high, size = rank_key(self.result, self.epsilon)
        return high, not self.is_certifiable, low, size, self.page


def place_on_board(result: Result, epsilon: str) -> tuple[object, ...]:
    """What boards are sorted by, best first: an unknown lower end last, then `rank_key`."""
    return not is_lower_end_known(result.epsilons[epsilon]), *rank_key(result, epsilon)


@dataclass(frozen=True)
class Board:
    """All rows of one group at one epsilon."""

    id: str
    epsilon: str
    rows: tuple[Row, ...]

    @property
    def apart(self) -> tuple[Row, ...]:
        """Rows at the end whose lower end is not known; none where that is true of all."""
        found = tuple(row for row in self.rows if not row.is_certifiable)
        return found if len(found) < len(self.rows) else ()

    @property
    def certifiers(self) -> tuple[str, ...]:
        """Certifiers with a column: the protocol's first, then others that were asked."""
        named = {name for row in self.rows for name in row.score.certified_by}
        others = sorted(named - {*CERTIFIERS, "cascade"})
        return (*CERTIFIERS, *others)


@dataclass(frozen=True)
class Group:
    """Results that may stand in one table: same track, protocol, data, n and standing.

    Attributes:
        ranked: canonical data at a public subset and the track's epsilons.
        boards: one per epsilon, ascending.
    """

    id: str
    track: Track
    protocol: str
    kind: str
    fingerprint: str
    n: int
    ranked: bool
    boards: tuple[Board, ...] = field(repr=False)

    @cached_property
    def num_entries(self) -> int:
        return len({row.page for board in self.boards for row in board.rows})

    @cached_property
    def quick(self) -> bool:
        """Whether n or the epsilons are no ranked setting, whatever the data."""
        return any(row.quick for board in self.boards for row in board.rows)

    @cached_property
    def frozen(self) -> bool:
        """Whether an entry here has an image both proven right and broken."""
        return any(row.result.is_frozen for board in self.boards for row in board.rows)


GroupKey = tuple[int, str, str, str, int, bool]


def group_results(
    results: Sequence[Result], evidence: EvidenceOf | None = None
) -> tuple[Group, ...]:
    """Groups in the order of the page: track; ranked first, mirrors, quick ones; larger n first.

    Args:
        results: validated results in any order.
        evidence: identity of a result -> its outcomes; rank groups need those of a whole board.
    """
    ordered = sorted(results, key=identity)
    pages = page_paths(ordered)
    members: dict[GroupKey, list[Result]] = {}
    for result in ordered:
        members.setdefault(_group_key(result), []).append(result)
    keys = sorted(members, key=lambda key: (key[0], *_newest_first(key[1]), *_standing(key)))
    return tuple(_group(key, members[key], pages, evidence or {}) for key in keys)


def page_paths(results: Iterable[Result]) -> dict[tuple[str, ...], str]:
    """Path of every result's page: the entry's name, n, and more only where needed.

    Returns:
        identity -> ``entries/<protocol>/<track>/<entry>.n<n>[.mirror][.<digest>].html``.
    """
    by_name: dict[str, list[Result]] = {}
    for result in results:
        mirror = ".mirror" if result.data.kind == "mirror" else ""
        name = f"entries/{result.protocol}/{result.track}/{result.entry}.n{result.n}{mirror}"
        by_name.setdefault(name, []).append(result)
    paths: dict[tuple[str, ...], str] = {}
    for name, same in by_name.items():
        for result in same:
            digest = f".{_digest(result)}" if len(same) > 1 else ""
            paths[identity(result)] = f"{name}{digest}.html"
    return paths


def find_parent(result: Result, among: Sequence[Result]) -> Result | None:
    """The dense parent's result on the same images, of the same seed where there is one."""
    parent = result.submission.parent
    same = [
        other
        for other in among
        if other.entry == parent
        and (other.track, round_of(other.protocol), other.n)
        == (result.track, round_of(result.protocol), result.n)
        and other.data.fingerprint == result.data.fingerprint
    ]
    return min(same, key=lambda other: (other.seed != result.seed, identity(other)), default=None)


def _group_key(result: Result) -> GroupKey:
    place = list(TRACKS).index(result.track)
    ranked = may_rank(result) and result.data.kind == "canonical"
    fingerprint = result.data.fingerprint
    return place, round_of(result.protocol), result.data.kind, fingerprint, result.n, ranked


def _newest_first(protocol: str) -> tuple[tuple[int, ...]]:
    return (tuple(-int(part) for part in protocol.split(".")),)


def _standing(key: GroupKey) -> tuple[object, ...]:
    _, _, kind, fingerprint, n, ranked = key
    return not ranked, kind == "mirror", -n, fingerprint


def _group(
    key: GroupKey,
    results: list[Result],
    pages: dict[tuple[str, ...], str],
    evidence: EvidenceOf,
) -> Group:
    place, protocol, kind, fingerprint, n, ranked = key
    track = list(TRACKS.values())[place]
    standing = "" if ranked else f"-{kind}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}"
    group_id = f"{track.name}-{protocol}-n{n}{standing}"
    variants = _variants(results)
    epsilons = sorted({eps for result in results for eps in result.epsilons}, key=_radius)
    named: dict[str, list[Result]] = {}
    for result in results:
        named.setdefault(result.entry, []).append(result)
    keys = [identity(result) for result in results]
    parents = [find_parent(one, named.get(one.submission.parent or "", [])) for one in results]
    parent_pages = [pages[identity(parent)] if parent else "" for parent in parents]
    same = trainings(results)
    boards = []
    for epsilon in epsilons:
        rows = [
            Row(
                result=result,
                epsilon=epsilon,
                page=pages[key],
                variant=variants[key],
                parent=parent,
                parent_page=parent_page,
                training=same.get(key, ""),
                evidence=evidence.get(key),
            )
            for result, key, parent, parent_page in zip(
                results, keys, parents, parent_pages, strict=True
            )
            if epsilon in result.epsilons
        ]
        board_id = f"{group_id}-eps{epsilon.replace('/', '-')}"
        rows = sorted(rows, key=Row.sort_key)
        boards.append(Board(board_id, epsilon, _with_standings(rows) if ranked else tuple(rows)))
    return Group(group_id, track, protocol, kind, fingerprint, n, ranked, tuple(boards))


def _with_standings(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their rank groups by either rule; see `_standings`.

    An entry whose lower end is not known is compared with none by what is proven.
    """
    proven = _standings([row for row in rows if row.is_certifiable], PROVEN)
    unbroken = _standings(sorted(rows, key=Row.unbroken_key), UNBROKEN)
    return tuple(
        replace(row, standing=proven.get(row.page), unbroken_standing=unbroken.get(row.page))
        for row in rows
    )


def _standings(ordered: Sequence[Row], letters: str) -> dict[str, Standing]:
    """Page -> standing by paired tests; none where a row has no table, or that of other images.

    Args:
        ordered: best first by what is counted.
        letters: outcomes that count.
    """
    known = [row.evidence for row in ordered if row.evidence is not None]
    if len(known) < len(ordered) or len({item.images.tobytes() for item in known}) != 1:
        return {}
    right = [item.is_right(row.epsilon, letters) for row, item in zip(ordered, known, strict=True)]
    standings = rank_groups(right)
    return {row.page: standing for row, standing in zip(ordered, standings, strict=True)}


def _radius(epsilon: str) -> tuple[object, ...]:
    return parse_epsilon(epsilon), epsilon


def _variants(results: Sequence[Result]) -> dict[tuple[str, ...], str]:
    """What tells two results of one entry apart: the seed and a digest of the rest."""
    times: dict[str, int] = {}
    for result in results:
        times[result.entry] = times.get(result.entry, 0) + 1
    return {
        identity(result): f"seed {result.seed}, result {_digest(result)}"
        if times[result.entry] > 1
        else ""
        for result in results
    }


def _digest(result: Result) -> str:
    return hashlib.sha256("\n".join(identity(result)).encode()).hexdigest()[:8]
