"""Families of the reproduction report: a dense parent and what was compressed from it.

From result files and their outcome tables alone; every child is compared with its own parent on the
same images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corobench.benchmark.errors import ResultError
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.scored import table_path
from corobench.benchmark.scoring.statistics import Kept, retention
from corobench.leaderboard.evidence import EntryEvidence, read_evidence
from corobench.leaderboard.loading import Loaded, load_results, require_public
from corobench.leaderboard.measures import VERIFIABLE, is_wide
from corobench.leaderboard.taxonomy import times_fewer

#: Measures of the report, with their names.
MEASURES = {"clean": "benign", "era": "ERA (PGD-50)", "autoattack": "AutoAttack", "vra": "VRA"}
#: Track -> radius of certified training, where that is not the track's largest.
CERTIFIED_RADII = {"cifar10": "2/255", "svhn": "2/255"}

#: Rivals are of the same size where the weights kept differ by less than this share: whole filters
#: and layer widths cannot be cut to the weight.
SAME_SIZE = 0.1
#: Of which at least this share of the other's lies on a path from the image to a logit, where both
#: results tell: what reads a dead channel is kept and does nothing.
SAME_LIVE = 0.5

Flags = dict[str, NDArray[np.bool_]]


def number_format(result: Result) -> str:
    """What weights are stored as: "int8", "bf16" as `corobench convert` names it, or "float32".

    A version in another format than its source is no other entry of the same method.
    """
    if result.compactness.format == "onnx-qdq":
        return "int8"
    return "bf16" if result.submission.method.name.endswith(", bf16") else "float32"


@dataclass(frozen=True)
class Child:
    """A pruned entry beside its parent.

    Attributes:
        result: its result.
        times: how many times fewer convolution and linear weights it has than its parent.
        kept: measure -> retention, or None where the parent has too few right images for one.
        flags: measure -> per-image answers at the radius of the report.
        by: who made it, where that is not who made the parent; empty otherwise.
    """

    result: Result
    times: float
    kept: dict[str, Kept | None]
    flags: Flags
    by: str = ""

    @property
    def method(self) -> str:
        """What the board calls it; of other authors with their name, so that no claim of theirs is
        counted as the method of the parent's authors."""
        name = self.result.submission.method.name
        return f"{name} ({self.by})" if self.by else name

    @property
    def is_natural(self) -> bool:
        """Fine-tuned on clean images."""
        return self.result.submission.method.finetune_objective == "natural"

    @property
    def uses_papers_method(self) -> bool:
        """Pruned once by least magnitude per layer, the robust objective before and after.

        Rounds, one threshold for all layers, exempt layers, rewound weights and weights in fewer
        bits are variants, and are compared with it like any rival. So are networks of others than
        the parent's authors: what a manifest says of a method is believed of nobody else.
        """
        method = self.result.submission.method
        return (
            self.is_pruned_once
            and method.criterion == "least-weight-magnitude"
            and method.scope == "layer-wise"
        )

    @property
    def is_pruned_once(self) -> bool:
        """Single weights removed once, the same objective before and after, by the same authors."""
        method = self.result.submission.method
        return (
            not self.by
            and number_format(self.result) == "float32"
            and method.structure == "unstructured"
            and (method.pipeline, method.schedule) == ("after", "one-shot")
            and method.pretrain_objective == method.finetune_objective
        )

    @property
    def num_live(self) -> int | None:
        """Weights on a path from the image to a logit; None where its result does not tell."""
        return self.result.compactness.num_live

    @property
    def epochs(self) -> float | None:
        """Of all steps together, as its manifest tells; None where it does not."""
        return self.result.submission.training.epochs

    def keeps_as_many_as(self, other: Child) -> bool:
        """Whether the two keep about as many weights, see `SAME_SIZE`."""
        return abs(self.times / other.times - 1) < SAME_SIZE

    def is_as_alive_as(self, other: Child) -> bool:
        """Whether neither has far fewer live weights, see `SAME_LIVE`, as far as results tell."""
        if self.num_live is None or other.num_live is None:
            return True
        less, more = sorted((self.num_live, other.num_live))
        return less >= SAME_LIVE * more

    def is_as_small_as(self, other: Child) -> bool:
        """Whether the two keep about as many weights, of which about as many are live."""
        return self.keeps_as_many_as(other) and self.is_as_alive_as(other)


@dataclass(frozen=True)
class Family:
    """A dense parent and what was pruned from it.

    Attributes:
        parent: its result.
        epsilon: the radius that such reference entries are trained at, see `radius_of`.
        children: sorted by size, then name.
        flags: the parent's.
    """

    parent: Result
    epsilon: str
    children: tuple[Child, ...]
    flags: Flags

    @property
    def name(self) -> str:
        """Entry id of the parent."""
        return self.parent.entry

    @property
    def is_verifiable(self) -> bool:
        """Trained to be verified, so that its VRA is a retention worth averaging."""
        return self.parent.submission.method.pretrain_objective in VERIFIABLE

    @property
    def measure(self) -> str:
        """What its networks are trained for: "vra" or "autoattack"."""
        return "vra" if self.is_verifiable else "autoattack"

    @property
    def has_vra_shares(self) -> bool:
        """Whether a share of the parent's VRA means anything: made to be verified, not wide.

        The same rule as on boards, see `measures.retentions`.
        """
        return self.is_verifiable and not is_wide(self.parent.epsilons[self.epsilon])

    @property
    def series(self) -> tuple[object, ...]:
        """What families have in common that differ in n, round and seed of the training alone."""
        parent, submission = self.parent, self.parent.submission
        model = (submission.model.network, str(sorted(submission.model.arguments.items())))
        images = (parent.track, parent.data.fingerprint)
        by = tuple(sorted(submission.authors))
        return (*images, *model, submission.method.pretrain_objective, self.epsilon, by)

    @property
    def papers(self) -> list[Child]:
        """Children by the paper's method."""
        return [child for child in self.children if child.uses_papers_method]

    def rivals(self, papers: Child) -> list[Child]:
        """Children of the size of this one by other methods than the paper's."""
        return [
            child
            for child in self.children
            if not child.uses_papers_method and papers.is_as_small_as(child)
        ]

    def hollow(self, papers: Child) -> list[Child]:
        """Children that keep as many weights as this one and have far fewer or more live ones."""
        return [
            child
            for child in self.children
            if papers.keeps_as_many_as(child) and not papers.is_as_alive_as(child)
        ]

    def trained_as_long_as(self, child: Child) -> Child | None:
        """The network of the parent, dense, trained as many epochs as a child in all its steps."""
        ours = self.parent.submission.model
        for one in self.children:
            model = one.result.submission.model
            if (
                one.result.submission.method.pipeline == "none"
                and (model.network, model.arguments) == (ours.network, ours.arguments)
                and one.epochs is not None
                and one.epochs == child.epochs
            ):
                return one
        return None


def find_families(paths: Sequence[Path]) -> list[Family]:
    """Dense parents with the children that have a result on the same images, round and seed.

    Raises:
        ResultError: a file at fault or quick, an outcome table missing, or no family.
    """
    return families_in(load_results(paths))


def families_in(loaded: Loaded) -> list[Family]:
    """As `find_families`, of results that are loaded."""
    require_public(loaded, "leave them out, or evaluate on the standard subset")
    files = {_key(result): path for path, result in zip(loaded.paths, loaded.results, strict=True)}

    def read(result: Result) -> EntryEvidence:
        path = files[_key(result)]
        evidence = read_evidence(result, path)
        if evidence is None:
            raise ResultError(
                f"{table_path(path)}: expected the outcome table of {path.name}, found none"
            )
        return evidence

    families = families_of(loaded.results, read)
    if not families:
        raise ResultError("expected pruned entries beside the results of their parents, found none")
    return families


def families_of(
    results: Sequence[Result], read: Callable[[Result], EntryEvidence | None]
) -> list[Family]:
    """The families among some results.

    Args:
        results: none of them quick.
        read: the outcomes of a result; an entry that has none is left out.
    """
    parents = {_key(result): result for result in results}
    children: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in results:
        if result.submission.parent is not None:
            children[_key(result, result.submission.parent)].append(result)
    families = []
    for key in sorted(children, key=str):
        evidence = read(parents[key]) if key in parents else None
        if evidence is None:
            continue
        parent = parents[key]
        epsilon = radius_of(parent)
        flags = _flags(evidence, epsilon)
        members = [
            _child(one, known, epsilon, parent, flags)
            for one in children[key]
            if epsilon in one.epsilons and (known := read(one)) is not None
        ]
        members.sort(
            key=lambda child: (round(child.times, 1), not child.uses_papers_method, child.method)
        )
        if members:
            families.append(Family(parent, epsilon, tuple(members), flags))
    return in_one_round(families)


def round_order(result: Result) -> list[int]:
    """Larger for newer rounds: 1.10 is newer than 1.9."""
    return [int(part) for part in result.protocol.split(".")]


def in_one_round(families: Sequence[Family]) -> list[Family]:
    """Each family once: in the newest round that has all its rows of the rounds before.

    While a new round is filled, a family stays in the old one until its last row is there, so that
    rows of two rounds are never compared.

    Args:
        families: of one or several rounds.
    """
    rounds: dict[tuple[object, ...], list[Family]] = defaultdict(list)
    for family in families:
        parent = family.parent
        key = (parent.track, parent.data.fingerprint, parent.n, parent.seed, parent.entry)
        rounds[key].append(family)
    kept = []
    for versions in rounds.values():
        versions.sort(key=lambda one: round_order(one.parent))
        rows: set[str] = set()
        chosen = versions[0]
        for family in versions:
            here = {child.result.entry for child in family.children}
            if here >= rows:
                chosen, rows = family, here
        kept.append(chosen)
    return [family for family in families if any(family is one for one in kept)]


def radius_of(parent: Result) -> str:
    """The radius at which a family is compared: the one that its kind is trained at.

    That is the track's largest, but for certified training on colour images 2/255, as in the
    literature: at 8/255 next to nothing of such a network can be proven.
    """
    certified = CERTIFIED_RADII.get(parent.track)
    if parent.submission.method.pretrain_objective in VERIFIABLE and certified in parent.epsilons:
        return certified
    return list(parent.epsilons)[-1]


def _child(
    result: Result, evidence: EntryEvidence, epsilon: str, parent: Result, theirs: Flags
) -> Child:
    flags = _flags(evidence, epsilon)
    kept = {measure: retention(flags[measure], theirs[measure]) for measure in MEASURES}
    authors = result.submission.authors
    is_own = {*authors} == {*parent.submission.authors}
    by = "" if is_own else authors[0] + " et al." * (len(authors) > 1)
    return Child(result, times_fewer(result, parent), kept, flags, by)


def _flags(evidence: EntryEvidence, epsilon: str) -> Flags:
    """Per-image answers at one radius, in published order."""
    known = evidence.epsilons[epsilon]
    return {
        "clean": evidence.predicted == evidence.labels,
        "era": known.right_after["pgd50"],
        "autoattack": known.right_after["autoattack"],
        "vra": evidence.is_right(epsilon, "c"),
    }


def _key(result: Result, entry: str | None = None) -> tuple[object, ...]:
    name = entry or result.entry
    return (result.track, result.protocol, result.data.fingerprint, result.n, result.seed, name)


def by_series(families: Sequence[Family]) -> list[list[Family]]:
    """Families that differ in the seed of the training alone, together, in their order."""
    found: dict[tuple[object, ...], list[Family]] = defaultdict(list)
    for family in families:
        found[(*family.series, family.parent.n)].append(family)
    return list(found.values())
