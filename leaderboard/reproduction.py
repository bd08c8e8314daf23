"""The reproduction report: what pruning keeps, beside what the paper says it keeps.

From result files and their outcome tables alone. Every child is compared with its own dense parent
on the same images: retention with a paired bootstrap interval, and exact McNemar tests of the
paper's method against its rivals, Holm-corrected over the whole report.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.errors import ResultError
from benchmark.records import Outcome, Result
from benchmark.statistics import RESAMPLES, Kept, holm, mcnemar_exact, retention
from leaderboard.loading import load_results, require_public

#: Kept share of each measure at ten times compression, averaged over four networks (the paper).
PAPER = {"clean": 0.93, "era": 0.925, "vra": 0.85}
#: What this report asks of the paper's method, on average over the families.
GOALS = {"clean": 0.97, "autoattack": 0.97, "vra": 0.95}
#: Measures of the table, with their names.
MEASURES = {"clean": "benign", "era": "ERA (PGD-50)", "autoattack": "AutoAttack", "vra": "VRA"}
#: Training objectives whose networks are made to be verified.
VERIFIABLE = ("ibp", "crown-ibp", "mixtrain")
#: Track -> radius of certified training, where that is not the track's largest.
CERTIFIED_RADII = {"cifar10": "2/255", "svhn": "2/255"}
ALPHA = 0.05
#: Rivals are of the same size where the weights kept differ by less than this share: whole filters
#: and layer widths cannot be cut to the weight.
SAME_SIZE = 0.1

Flags = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Child:
    """A pruned entry beside its parent.

    Attributes:
        result: its result.
        times: how many times fewer convolution and linear weights it has than its parent.
        kept: measure -> retention, or None where the parent has no such image.
        flags: measure -> per-image answers at the radius of the report.
    """

    result: Result
    times: float
    kept: dict[str, Kept | None]
    flags: Flags

    @property
    def method(self) -> str:
        """What the board calls it."""
        return self.result.submission.method.name

    @property
    def is_papers(self) -> bool:
        """Pruned once by least magnitude per layer, the robust objective before and after.

        Rounds, one threshold for all layers, exempt layers and rewound weights are variants, and
        are compared with it like any rival.
        """
        method = self.result.submission.method
        return (
            method.criterion == "least-weight-magnitude"
            and (method.structure, method.scope) == ("unstructured", "layer-wise")
            and (method.pipeline, method.schedule) == ("after", "one-shot")
            and method.pretrain_objective == method.finetune_objective
        )


@dataclass(frozen=True)
class Comparison:
    """The paper's method against a rival of the same size, on the same images."""

    family: str
    rival: str
    measure: str
    ours: int
    theirs: int
    n: int
    p_value: float
    p_holm: float = field(default=1.0)

    @property
    def verdict(self) -> str:
        """In words, at 5 % over the whole report."""
        if self.p_holm >= ALPHA:
            return "no difference shown"
        return "the paper's method is better" if self.ours > self.theirs else "the rival is better"


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
    def series(self) -> tuple[object, ...]:
        """What families that differ in the seed of the training alone have in common; n last."""
        parent, submission = self.parent, self.parent.submission
        model = (submission.model.network, str(sorted(submission.model.arguments.items())))
        images = (parent.track, parent.protocol, parent.data.fingerprint)
        return (*images, *model, submission.method.pretrain_objective, self.epsilon, parent.n)


@dataclass(frozen=True)
class SeedRow:
    """One method over several seeds of the training.

    Attributes:
        series: entry id of the first family's parent.
        method: of the entries.
        values: measure -> share right per seed, in [0, 1], in the families' order.
    """

    series: str
    method: str
    values: dict[str, list[float]]

    @staticmethod
    def text(values: Sequence[float]) -> str:
        """Each seed in %, then the mean and the standard deviation over seeds.

        >>> SeedRow.text([0.5, 0.6])
        '50.0, 60.0 (55.0 ± 7.1)'
        """
        shown = ", ".join(f"{100 * value:.1f}" for value in values)
        return f"{shown} ({100 * mean(values):.1f} ± {100 * stdev(values):.1f})"


def report(paths: Sequence[Path]) -> str:
    """The report as Markdown.

    Args:
        paths: result folders, with the outcome tables beside the result files.

    Raises:
        ResultError: a file at fault or quick, an outcome table missing, or no child beside its
            parent.
    """
    families = find_families(paths)
    comparisons = compare(families)
    seeds = compare_seeds(families)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("leaderboard"),
        autoescape=False,  # noqa: S701 - Markdown; what submissions write goes through `plain`
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    averages = {key: average(families, key) for key in MEASURES}
    return environment.get_template("reproduction.md").render(
        families=families,
        comparisons=comparisons,
        seeds=seeds,
        averages=averages,
        measures=MEASURES,
        paper=PAPER,
        goals={key: (averages[key], goal) for key, goal in GOALS.items()},
        curves=[family for family in families if len(_papers(family)) > 1],
        mismatches=[
            (family, child, papers)
            for family in families
            for child in family.children
            if child.result.submission.method.finetune_objective == "natural"
            for papers in _papers(family)
            if _same_size(child, papers)
        ],
        alpha=ALPHA,
        resamples=RESAMPLES,
    )


def find_families(paths: Sequence[Path]) -> list[Family]:
    """Dense parents with the children that have a result on the same images and seed."""
    loaded = load_results(paths)
    require_public(loaded, "name results without them, or evaluate on the standard subset")
    tables = {_key(result): result for result in loaded.results}
    files = {_key(result): path for path, result in zip(loaded.paths, loaded.results, strict=True)}
    children: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for result in loaded.results:
        if result.submission.parent is not None:
            children[_key(result, result.submission.parent)].append(result)
    families = []
    for key in sorted(children, key=str):
        if key not in tables:
            continue
        parent = tables[key]
        epsilon = radius_of(parent)
        flags = _flags(files[key], epsilon)
        members = [_child(one, files[_key(one)], epsilon, parent, flags) for one in children[key]]
        members.sort(key=lambda child: (round(child.times, 1), not child.is_papers, child.method))
        families.append(Family(parent, epsilon, tuple(members), flags))
    if not families:
        raise ResultError("expected pruned entries beside the results of their parents, found none")
    return families


def radius_of(parent: Result) -> str:
    """The radius at which a family is compared: the one that its kind is trained at.

    That is the track's largest, but for certified training on colour images 2/255, as in the
    literature: at 8/255 next to nothing of such a network can be proven.
    """
    certified = CERTIFIED_RADII.get(parent.track)
    if parent.submission.method.pretrain_objective in VERIFIABLE and certified in parent.epsilons:
        return certified
    return list(parent.epsilons)[-1]


def compare(families: list[Family]) -> list[Comparison]:
    """Exact McNemar tests of the paper's method against rivals of its size, Holm-corrected."""
    found = []
    for family in families:
        for papers in _papers(family):
            for rival in family.children:
                if rival is papers or rival.is_papers or not _same_size(papers, rival):
                    continue
                for measure in ("autoattack", "vra"):
                    ours, theirs = papers.flags[measure], rival.flags[measure]
                    p_value = mcnemar_exact(
                        int((ours & ~theirs).sum()), int((~ours & theirs).sum())
                    )
                    found.append(
                        Comparison(
                            family.name,
                            rival.method,
                            MEASURES[measure],
                            int(ours.sum()),
                            int(theirs.sum()),
                            len(ours),
                            p_value,
                        )
                    )
    corrected = holm([one.p_value for one in found])
    return [
        Comparison(**{**vars(one), "p_holm": p_holm})
        for one, p_holm in zip(found, corrected, strict=True)
    ]


def average(families: list[Family], measure: str) -> Kept | None:
    """Mean retention of the paper's method at ten times over the families.

    Seeds of one family are averaged first, and so count once together; of a family that has
    results on a smaller and a larger subset the larger one counts. VRA counts for families that are
    trained to be verified. The interval is that of the mean, from the bootstrap intervals taken as
    independent.
    """
    largest: dict[tuple[object, ...], int] = {}
    for family in families:
        if any(_is_headline(child) for child in _papers(family)):
            key = family.series[:-1]
            largest[key] = max(largest.get(key, 0), family.parent.n)
    series: dict[tuple[object, ...], list[Kept]] = defaultdict(list)
    for family in families:
        if family.parent.n != largest.get(family.series[:-1]):
            continue
        if measure == "vra" and not family.is_verifiable:
            continue
        for child in _papers(family):
            kept = child.kept[measure]
            if kept is not None and _is_headline(child):
                series[family.series].append(kept)
    if not series:
        return None
    return _mean([_mean(seeds) for seeds in series.values()])


def _is_headline(child: Child) -> bool:
    """Ten times smaller, up to what whole weights allow."""
    return 9.5 <= child.times <= 10.5


def _mean(kept: Sequence[Kept]) -> Kept:
    if len(kept) == 1:
        return kept[0]
    rate = sum(one.rate for one in kept) / len(kept)
    below = np.sqrt(sum((one.rate - one.low) ** 2 for one in kept)) / len(kept)
    above = np.sqrt(sum((one.high - one.rate) ** 2 for one in kept)) / len(kept)
    return Kept(rate, rate - float(below), rate + float(above))


def compare_seeds(families: list[Family]) -> list[SeedRow]:
    """Every method that has results from more than one seed of the training."""
    series: dict[tuple[object, ...], list[Family]] = defaultdict(list)
    for family in families:
        series[family.series].append(family)
    rows = []
    for members in series.values():
        found: dict[str, list[Flags]] = defaultdict(list)
        for family in members:
            found["dense"].append(family.flags)
            for child in family.children:
                found[child.method].append(child.flags)
        rows += [
            SeedRow(
                members[0].name,
                method,
                {key: [float(flags[key].mean()) for flags in seeds] for key in MEASURES},
            )
            for method, seeds in found.items()
            if len(seeds) > 1
        ]
    return rows


def _child(result: Result, path: Path, epsilon: str, parent: Result, theirs: Flags) -> Child:
    flags = _flags(path, epsilon)
    kept = {measure: retention(flags[measure], theirs[measure]) for measure in MEASURES}
    return Child(result, _num_weights(parent) / max(1, _num_weights(result)), kept, flags)


def _num_weights(result: Result) -> int:
    """Convolution and linear weights that are not zero."""
    return sum(layer.num_nonzero for layer in result.compactness.layers)


def _flags(path: Path, epsilon: str) -> Flags:
    """Per-image answers at one radius, in published order."""
    source = path.with_name(f"{path.stem}.outcomes.parquet")
    try:
        table = pd.read_parquet(source)
    except (OSError, ValueError) as error:
        raise ResultError(
            f"{source}: expected the outcome table of {path.name} ({error})"
        ) from error
    rows = table[table["epsilon"] == epsilon].sort_values("position")
    return {
        "clean": (rows["outcome"] != str(Outcome.MISCLASSIFIED)).to_numpy(dtype=bool),
        "era": rows["pgd50"].fillna(False).to_numpy(dtype=bool),
        "autoattack": rows["autoattack"].fillna(False).to_numpy(dtype=bool),
        "vra": (rows["outcome"] == str(Outcome.CERTIFIED)).to_numpy(dtype=bool),
    }


def _plain(text: str) -> str:
    """Text from a submission as text: neither HTML nor Markdown.

    >>> _plain("<b>a|b</b>")
    '&lt;b&gt;a\\\\|b&lt;/b&gt;'
    """
    escaped = html.escape(text, quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(escaped.split()))


def _papers(family: Family) -> list[Child]:
    return [child for child in family.children if child.is_papers]


def _same_size(one: Child, other: Child) -> bool:
    return abs(one.times / other.times - 1) < SAME_SIZE


def _key(result: Result, entry: str | None = None) -> tuple[object, ...]:
    name = entry or result.entry
    return (result.track, result.protocol, result.data.fingerprint, result.n, result.seed, name)
