"""The chart of the front page: every method at ten times, beside the paper's and the dense parent.

One chart has the networks of one architecture on one set of images: those trained to be proven
show what is proven, those trained against attacks show what AutoAttack leaves. A template draws it
as a table with one strip per cell, so that text stays text at every width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from corobench.benchmark.tracks import get_track
from corobench.leaderboard.averages import ten_times
from corobench.leaderboard.families import MEASURES, Child, Family
from corobench.leaderboard.measures import Share
from corobench.leaderboard.reproduction import OURS, PAPER, THEIRS, Comparison
from corobench.leaderboard.seed_tests import SeedComparison

#: Measure of a panel -> the paper's measure whose kept share is its claim there.
CLAIMS = {"vra": "vra", "autoattack": "era"}
#: Below this share of the dense parent's a method stands at the edge, with an arrow.
EDGE = 0.5
#: The strip's scale ends this far from its edges, in percent of its width.
ROOM = 4.0
#: Tracks that stand last: they are there to try the benchmark out.
LAST = ("digits",)

_VERDICTS = {OURS: "worse", THEIRS: "better"}


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`, both in [0, 1], over a strip."""

    low: float
    high: float

    def __call__(self, rate: float) -> float:
        """Place of a rate in percent of the strip's width, never outside it."""
        inside = (rate - self.low) / (self.high - self.low)
        return min(100.0, max(0.0, ROOM + (100 - 2 * ROOM) * inside))

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Places of round percentages, at most six, with their texts."""
        step = 10 if self.high - self.low > 0.3 else 5
        first, last = math.ceil(100 * self.low / step - 1e-9), math.floor(100 * self.high / step)
        marks = [step * place for place in range(first, last + 1)]
        skip = -(-len(marks) // 6)
        return tuple((self(mark / 100), str(mark)) for mark in marks[::skip])


@dataclass(frozen=True)
class Mark:
    """One method in one panel.

    Attributes:
        child: its entry.
        share: right images, proven or after AutoAttack.
        x: place of the share in percent of the strip.
        low_x: of the lower end of the share's interval.
        high_x: of the upper end.
        is_outside: the scale does not reach down to it.
        verdict: "reference", "better", "worse" or "no difference" by the corrected test, over
            seeds and images where both have several seeds; empty where there was none.
        num_seeds: trainings behind the verdict.
    """

    child: Child
    share: Share
    x: float
    low_x: float
    high_x: float
    is_outside: bool
    verdict: str
    num_seeds: int = 1


@dataclass(frozen=True)
class Panel:
    """One family.

    Attributes:
        family: with the dense parent.
        papers: the paper's method at ten times.
        measure: "vra" or "autoattack".
        dense: the parent's share.
        axis: of its strips.
        marks: method -> what is drawn.
    """

    family: Family
    papers: Child
    measure: str
    dense: Share
    axis: Axis
    marks: dict[str, Mark]

    @property
    def title(self) -> str:
        return "Proven right" if self.measure == "vra" else "Right after AutoAttack"

    @property
    def claim(self) -> float:
        """What would be right if the paper's figure held: its kept share of the parent's."""
        return PAPER[CLAIMS[self.measure]] * self.dense.rate

    @property
    def is_claim_reached(self) -> bool:
        """Whether the paper's method keeps here what the paper says."""
        return self.marks[self.papers.method].share.rate >= self.claim

    @property
    def leaders(self) -> tuple[str, ...]:
        """Methods with most right images; several where they have equally many."""
        most = max(mark.share.count for mark in self.marks.values())
        return tuple(name for name, mark in self.marks.items() if mark.share.count == most)

    @property
    def better_in_words(self) -> str:
        """The same as text that tells what rests on one training alone."""
        return "; ".join(
            name if self.marks[name].num_seeds > 1 else f"{name} (one training)"
            for name in self.better
        )

    @property
    def better(self) -> tuple[str, ...]:
        """Methods that a corrected test shows to be better than the paper's, best first."""
        found = [name for name, mark in self.marks.items() if mark.verdict == "better"]
        return tuple(sorted(found, key=lambda name: (-self.marks[name].share.count, name)))


@dataclass(frozen=True)
class MethodChart:
    """All methods of one architecture on one set of images.

    Attributes:
        track: its name.
        network: architecture.
        n: images.
        is_mirror: the images are not the canonical bytes.
        panels: trained to be proven first.
        methods: best first, by the mean distance to the dense parent over the panels that have
            them; the names in every panel's `marks`.
        papers: name of the paper's method.
    """

    track: str
    network: str
    n: int
    is_mirror: bool
    panels: tuple[Panel, ...]
    methods: tuple[str, ...]
    papers: str

    @property
    def title(self) -> str:
        """For the choice of charts.

        The architecture, because one set of images may have several.
        """
        return f"{get_track(self.track).title} · {self.network}"


def method_charts(
    families: Sequence[Family],
    comparisons: Sequence[Comparison],
    seed_tests: Sequence[SeedComparison] = (),
) -> list[MethodChart]:
    """One chart per architecture and images, most methods first, the tracks of `LAST` at the end.

    Args:
        families: one seed of each.
        comparisons: corrected tests of the report, of one training each.
        seed_tests: those over several trainings; where there is one, it has the word.
    """
    panels: dict[tuple[str, ...], list[Panel]] = {}
    for family in families:
        found = ten_times(family)
        if found:
            parent = family.parent
            key = (parent.track, parent.data.fingerprint, parent.submission.model.network)
            panels.setdefault(key, []).append(_panel(family, found[0], comparisons, seed_tests))
    charts = [_chart(found) for found in panels.values()]
    charts = [chart for chart in charts if len(chart.methods) > 1]
    return sorted(
        charts, key=lambda one: (one.track in LAST, -len(one.methods), one.track, one.network)
    )


def _chart(panels: Sequence[Panel]) -> MethodChart:
    """The family with most methods of each kind of training, on the same images."""
    widest = max(panels, key=lambda one: (len(one.marks), one.family.parent.n))
    kinds: dict[str, Panel] = {}
    for panel in sorted(panels, key=lambda one: (-len(one.marks), one.family.name)):
        if panel.family.parent.n == widest.family.parent.n:
            kinds.setdefault(panel.measure, panel)
    chosen = tuple(kinds[key] for key in CLAIMS if key in kinds)
    parent = chosen[0].family.parent
    above: dict[str, list[float]] = {}
    for panel in chosen:
        for method, mark in panel.marks.items():
            above.setdefault(method, []).append(mark.share.rate - panel.dense.rate)
    best = sorted(above, key=lambda method: (-sum(above[method]) / len(above[method]), method))
    return MethodChart(
        track=parent.track,
        network=parent.submission.model.network,
        n=parent.n,
        is_mirror=parent.data.kind == "mirror",
        panels=chosen,
        methods=tuple(best),
        papers=chosen[0].papers.method,
    )


def _panel(
    family: Family,
    papers: Child,
    comparisons: Sequence[Comparison],
    seed_tests: Sequence[SeedComparison],
) -> Panel:
    measure = family.measure
    n = family.parent.n
    dense = Share(int(family.flags[measure].sum()), n)
    children = [papers, *family.rivals(papers)]
    shares = [Share(int(child.flags[measure].sum()), n) for child in children]
    axis = _axis(dense, shares, PAPER[CLAIMS[measure]])
    marks: dict[str, Mark] = {}
    for child, share in zip(children, shares, strict=True):
        low, high = share.interval
        verdict, num_seeds = "reference", 1
        if child is not papers:
            over_seeds = _over_seeds(family, child, seed_tests)
            verdict, num_seeds = over_seeds or (_verdict(family, papers, child, comparisons), 1)
        places = (axis(share.rate), axis(low), axis(high), False)
        if share.rate < axis.low:
            places = (0.0, 0.0, 0.0, True)
        mark = Mark(child, share, *places, verdict, num_seeds)
        marks.setdefault(child.method, mark)
    return Panel(family, papers, measure, dense, axis, marks)


def _axis(dense: Share, shares: Sequence[Share], claim: float) -> Axis:
    """Round ends around the dense parent, the paper's claim and all that is not far below."""
    near = [share.interval for share in shares if share.rate >= EDGE * dense.rate]
    low = min([claim * dense.rate, *(interval.low for interval in near)])
    high = max([dense.rate, *(interval.high for interval in near)])
    return Axis(math.floor(20 * low) / 20, min(1.0, math.ceil(20 * high) / 20))


def _over_seeds(
    family: Family, rival: Child, seed_tests: Sequence[SeedComparison]
) -> tuple[str, int] | None:
    """The verdict over several trainings and their number, or None where there was one."""
    measure = MEASURES[family.measure]
    for one in seed_tests:
        if (one.series, one.n, one.rival, one.measure) == (
            family.name,
            family.parent.n,
            rival.method,
            measure,
        ):
            shown = "worse" if one.test.difference > 0 else "better"
            return (shown if one.is_shown else "no difference"), one.test.num_seeds[0]
    return None


def _verdict(family: Family, papers: Child, rival: Child, comparisons: Sequence[Comparison]) -> str:
    measure = MEASURES[family.measure]
    entries = (papers.result.entry, rival.result.entry)
    for one in comparisons:  # once for each pair, on the largest subset that both have
        if (one.family, one.entries, one.measure) == (family.name, entries, measure):
            return _VERDICTS.get(one.verdict, "no difference")
    return ""
