"""The reproduction report: what pruning keeps, beside what the paper says it keeps.

Retention with a paired bootstrap interval, and exact McNemar tests of the paper's method against
its rivals, Holm-corrected over the whole report.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev

import jinja2

from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.known import is_lower_end_known
from corobench.benchmark.scoring.statistics import RESAMPLES, holm, mcnemar_exact
from corobench.leaderboard.assets import TEMPLATES
from corobench.leaderboard.averages import average, average_as_long, average_groups, ten_times
from corobench.leaderboard.budget_rules import best_rules
from corobench.leaderboard.families import MEASURES, Family, Flags, by_series, families_in
from corobench.leaderboard.levels import goals, levels, shares
from corobench.leaderboard.loading import load_results
from corobench.leaderboard.seed_tests import SeedComparison, seed_comparisons

#: Kept share of each measure at ten times compression, averaged over four networks (the paper).
PAPER = {"clean": 0.93, "era": 0.925, "vra": 0.85}
#: What this report asks of the paper's method, on average over the families.
GOALS = {"clean": 0.97, "autoattack": 0.97, "vra": 0.95}
ALPHA = 0.05
#: Verdicts of a test.
OURS, THEIRS = "the paper's method is better", "the rival is better"
NEITHER = "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """The paper's method against a rival of the same size, on the same images.

    Attributes:
        live: live weights of both, None where a result does not tell.
        epochs: of both, likewise.
        entries: ids of both.
    """

    family: str
    rival: str
    measure: str
    ours: int
    theirs: int
    n: int
    p_value: float
    is_natural: bool
    p_holm: float = field(default=1.0)
    live: tuple[int | None, int | None] = (None, None)
    epochs: tuple[float | None, float | None] = (None, None)
    entries: tuple[str, str] = ("", "")

    @property
    def verdict(self) -> str:
        """In words, at 5 % over the whole report."""
        if self.p_holm >= ALPHA:
            return NEITHER
        return OURS if self.ours > self.theirs else THEIRS


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
    loaded = load_results(paths)
    families = families_in(loaded)
    return markdown(families, compare(families), loaded.results)


def markdown(
    families: list[Family],
    comparisons: Sequence[Comparison],
    results: Sequence[Result],
    *,
    is_page: bool = False,
) -> str:
    """What the report says.

    Args:
        families: all that are compared.
        comparisons: their tests, see `compare`.
        results: all that are there, for what needs no parent beside it.
        is_page: for a page of the site, which says in its own words where it comes from.
    """
    seeds, seed_tests = compare_seeds(families), seed_comparisons(families)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701 - Markdown; what submissions write goes through `plain`
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    environment.filters["knows_vra"] = _knows_vra
    environment.filters["shares"] = shares
    averages = {key: average(families, key) for key in MEASURES}
    return environment.get_template("reproduction.md").render(
        is_page=is_page,
        families=families,
        comparisons=comparisons,
        tallies=tally(comparisons, seed_tests),
        hollow=hollow(families),
        as_long={key: average_as_long(families, key) for key in MEASURES},
        ours=OURS,
        natural=[one for one in comparisons if one.is_natural],
        seeds=seeds,
        seed_tests=seed_tests,
        averages=averages,
        of_tracks=averages_of_tracks(families),
        budgets=budgets(families),
        groups=average_groups(families),
        rules=best_rules(families),
        measures=MEASURES,
        paper=PAPER,
        levels=levels(results),
        level_goals=goals(results),
        goals={key: (averages[key], goal) for key, goal in GOALS.items()},
        curves=[family for family in families if len(family.papers) > 1],
        mismatches=[
            (family, child, papers)
            for family in families
            for child in family.children
            if child.is_natural
            for papers in family.papers
            if child.is_as_small_as(papers)
        ],
        alpha=ALPHA,
        resamples=RESAMPLES,
    )


def averages_of_tracks(families: Sequence[Family]) -> dict[str, dict[str, object]]:
    """The same averages over the families of each track: digits are no CIFAR-10."""
    found: dict[str, dict[str, object]] = {}
    for track in sorted({family.parent.track for family in families}):
        members = [family for family in families if family.parent.track == track]
        counted = {family.series for family in members if ten_times(family)}
        if counted:
            kept = {key: average(members, key) for key in MEASURES}
            found[track] = {"number": len(counted), "averages": kept}
    return found


def budgets(families: Sequence[Family]) -> list[tuple[str, dict[str, list[str]]]]:
    """Family -> epochs of all steps -> methods, fewest first; those that tell it, first seeds only.

    A family counts where its dense parent and a child tell theirs.
    """
    found = []
    for family in first_seeds(list(families)):
        told: dict[float, list[str]] = defaultdict(list)
        entries = [("dense", family.parent), *((one.method, one.result) for one in family.children)]
        for method, result in entries:
            epochs = result.submission.training.epochs
            if epochs is not None and method not in told[epochs]:
                told[epochs].append(method)
        rows = {f"{epochs:g}": told[epochs] for epochs in sorted(told) if told[epochs]}
        if (
            sum(map(len, rows.values())) > 1
            and family.parent.submission.training.epochs is not None
        ):
            found.append((family.name, rows))
    return found


def compare(families: list[Family]) -> list[Comparison]:
    """Exact McNemar tests of the paper's method against rivals of its size, Holm-corrected.

    Of a family with several seeds of the training the first one is tested. Others repeat it: as
    tests of their own they would make every correction stricter, and as one sample with it they
    would count each image several times. Likewise two entries are compared once, on the largest
    subset that both have: the smaller ones are parts of it.
    """
    found: dict[tuple[str, str, str, str], Comparison] = {}
    for family in sorted(first_seeds(families), key=lambda one: -one.parent.n):
        for papers in family.papers:
            for rival in family.rivals(papers):
                for measure in ("autoattack", "vra"):
                    ours, theirs = papers.flags[measure], rival.flags[measure]
                    if not (ours.any() or theirs.any()):
                        continue
                    p_value = mcnemar_exact(
                        int((ours & ~theirs).sum()), int((~ours & theirs).sum())
                    )
                    pair = (family.name, papers.result.entry, rival.result.entry, measure)
                    found.setdefault(
                        pair,
                        Comparison(
                            family.name,
                            rival.method,
                            MEASURES[measure],
                            int(ours.sum()),
                            int(theirs.sum()),
                            len(ours),
                            p_value,
                            rival.is_natural,
                            live=(papers.num_live, rival.num_live),
                            epochs=(papers.epochs, rival.epochs),
                            entries=(papers.result.entry, rival.result.entry),
                        ),
                    )
    order = {family.name: index for index, family in reversed(list(enumerate(families)))}
    tests = sorted(found.values(), key=lambda one: order[one.family])
    corrected = holm([one.p_value for one in tests])
    return [replace(one, p_holm=p_holm) for one, p_holm in zip(tests, corrected, strict=True)]


def hollow(families: Sequence[Family]) -> list[tuple[str, str, int | None, int | None]]:
    """Entries that no test compares, as far fewer of their weights are live, or far more.

    Returns:
        Family, method, live weights of the paper's method and its own; first seeds, each once.
    """
    found = [
        (family.name, child.method, papers.num_live, child.num_live)
        for family in first_seeds(list(families))
        for papers in family.papers
        for child in family.hollow(papers)
    ]
    return list(dict.fromkeys(found))


def first_seeds(families: list[Family]) -> list[Family]:
    """Families without those that differ from an earlier one in the seed alone, lowest seed first.

    The order of the others stays.
    """
    first: dict[tuple[object, ...], Family] = {}
    for family in sorted(families, key=_seed):
        first.setdefault((*family.series, family.parent.n), family)
    kept = {id(family) for family in first.values()}
    return [family for family in families if id(family) in kept]


def _seed(family: Family) -> int:
    seed = family.parent.submission.training.seed
    return -1 if seed is None else seed


@dataclass(frozen=True)
class Tally:
    """One rival over all families: tests by their verdict.

    Attributes:
        epochs: of the paper's method and of the rival in each family that tells, once each.
        over_seeds: tests over seeds and images together, of which a difference is shown, of all.
    """

    rival: str
    ours: int
    theirs: int
    neither: int
    epochs: tuple[tuple[float, float], ...] = ()
    over_seeds: tuple[int, int] = (0, 0)


def tally(
    comparisons: Sequence[Comparison], seed_tests: Sequence[SeedComparison] = ()
) -> list[Tally]:
    """Verdicts per rival, the one that is better most often first."""
    tests: dict[str, list[Comparison]] = defaultdict(list)
    for one in comparisons:
        tests[one.rival].append(one)
    counts = []
    for rival, found in tests.items():
        verdicts = [one.verdict for one in found]
        pairs = {
            (ours, theirs)
            for ours, theirs in (one.epochs for one in found)
            if ours is not None and theirs is not None
        }
        repeated = [one.is_shown for one in seed_tests if one.rival == rival]
        over_seeds = (sum(repeated), len(repeated))
        counts.append(
            Tally(
                rival=rival,
                ours=verdicts.count(OURS),
                theirs=verdicts.count(THEIRS),
                neither=verdicts.count(NEITHER),
                epochs=tuple(sorted(pairs)),
                over_seeds=over_seeds,
            )
        )
    return sorted(counts, key=lambda one: (one.ours - one.theirs, one.rival))


def compare_seeds(families: list[Family]) -> list[SeedRow]:
    """Every method that has results from more than one seed of the training."""
    rows = []
    for members in by_series(families):
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


def _knows_vra(result: Result, epsilon: str) -> bool:
    """Whether the proven share of a network is known, as boards say it."""
    return is_lower_end_known(result.epsilons[epsilon])


def _plain(text: str) -> str:
    """Text from a submission as text: neither HTML nor Markdown.

    >>> _plain("<b>a|b</b>")
    '&lt;b&gt;a\\\\|b&lt;/b&gt;'
    """
    escaped = html.escape(text, quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(escaped.split()))
