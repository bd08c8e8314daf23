"""What the results say of the paper's claim: for the front page and for a page of its own.

All figures are those of the reproduction report (`leaderboard.reproduction`), computed from the
rows of the boards when the site is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corobench.benchmark.scoring.statistics import Kept
from corobench.leaderboard.averages import average, average_groups, ten_times
from corobench.leaderboard.boards import Board, Group, Row
from corobench.leaderboard.families import MEASURES, Family, families_of
from corobench.leaderboard.loading import identity
from corobench.leaderboard.method_chart import MethodChart, method_charts
from corobench.leaderboard.reproduction import (
    OURS,
    PAPER,
    Comparison,
    compare,
    first_seeds,
    markdown,
)
from corobench.leaderboard.seed_tests import seed_comparisons
from corobench.leaderboard.tiles import Tile, tiles

#: Charts of the front page.
MAX_CHARTS = 6


@dataclass(frozen=True)
class Headline:
    """The sentence of the front page.

    Attributes:
        kept: measure -> mean kept share of the paper's method at ten times, or None.
        num_networks: dense parents, each seed of one counted with the others.
        natural: mean share that is left after AutoAttack with natural fine-tuning, or None.
        num_natural_networks: dense parents that this is an average of.
        num_worse: corrected tests in which natural fine-tuning is worse.
        num_natural: tests of natural fine-tuning.
    """

    kept: dict[str, Kept | None]
    num_networks: int
    natural: Kept | None
    num_natural_networks: int
    num_worse: int
    num_natural: int

    @property
    def num_held(self) -> int:
        """Figures of the paper that are reached here, of those that could be measured."""
        return sum(
            kept.rate >= share
            for key, share in PAPER.items()
            if (kept := self.kept[key]) is not None
        )

    @property
    def num_measured(self) -> int:
        return sum(self.kept[key] is not None for key in PAPER)

    @property
    def needs_robust_objective(self) -> bool:
        """Whether every test of natural fine-tuning shows that it is worse."""
        return 0 < self.num_natural == self.num_worse


@dataclass(frozen=True)
class Scene:
    """One choice of the front page.

    Attributes:
        chart: methods beside the paper's.
        group: of the results.
        board: at the radius of the chart's first panel.
        tiles: its best entries by size.
    """

    chart: MethodChart
    group: Group
    board: Board
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Findings:
    """Everything that the results say of the paper's claim.

    Attributes:
        headline: the sentence.
        scenes: of the front page, colour images first, digits last.
        text: the report as Markdown.
        pages: identity of a result -> path of its page inside the site.
    """

    headline: Headline
    scenes: tuple[Scene, ...]
    text: str
    pages: dict[tuple[str, ...], str]


def findings(groups: Sequence[Group]) -> Findings | None:
    """The findings of a site, or None where no pruned entry stands beside its parent.

    Args:
        groups: of the site; quick results are left out, and so are results without an outcome
            table.
    """
    rows: dict[tuple[str, ...], Row] = {}
    places: dict[tuple[str, ...], Group] = {}
    for group in groups:
        for board in group.boards:
            for row in board.rows:
                if not row.quick:
                    rows[identity(row.result)] = row
                    places[identity(row.result)] = group
    known = [rows[key].result for key in sorted(rows)]
    families = families_of(known, lambda result: rows[identity(result)].evidence)
    if not any(ten_times(family) for family in families):
        return None
    comparisons = compare(families)
    charts = method_charts(first_seeds(families), comparisons, seed_comparisons(families))
    scenes = [_scene(chart, places) for chart in charts][:MAX_CHARTS]
    return Findings(
        headline=_headline(families, comparisons),
        scenes=tuple(scenes),
        text=markdown(families, comparisons, known, is_page=True),
        pages={key: row.page for key, row in rows.items()},
    )


def _headline(families: Sequence[Family], comparisons: Sequence[Comparison]) -> Headline:
    methods = {child.method for one in families for child in one.children if child.is_natural}
    none: tuple[Kept | None, int] = (None, 0)
    natural = [
        (rival.kept["autoattack"], len(group.num_seeds))
        for group in average_groups(families)
        for rival in group.rivals
        if rival.method in methods
    ]
    tests = [one for one in comparisons if one.is_natural]
    left, num_networks = natural[0] if natural else none
    return Headline(
        kept={key: average(families, key) for key in MEASURES},
        num_networks=len({family.series for family in families if ten_times(family)}),
        natural=left,
        num_natural_networks=num_networks,
        num_worse=sum(one.verdict == OURS for one in tests),
        num_natural=len(tests),
    )


def _scene(chart: MethodChart, places: dict[tuple[str, ...], Group]) -> Scene:
    panel = chart.panels[0]
    group = places[identity(panel.family.parent)]
    board = next(one for one in group.boards if one.epsilon == panel.family.epsilon)
    return Scene(chart, group, board, tiles(board.rows))
