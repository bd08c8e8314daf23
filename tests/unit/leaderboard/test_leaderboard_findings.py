"""The findings say what the results say: sentence, chart, tiles."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.seeds import SeedTest
from corobench.leaderboard.boards import group_results
from corobench.leaderboard.build import build_site
from corobench.leaderboard.evidence import read_all
from corobench.leaderboard.findings import Findings, findings
from corobench.leaderboard.loading import load_results
from corobench.leaderboard.method_chart import Axis, MethodChart, Panel, method_charts
from corobench.leaderboard.reproduction import PAPER, compare, report
from corobench.leaderboard.seed_tests import SeedComparison
from corobench.leaderboard.tiles import SIZE_CLASSES, tiles

RESULTS = Path(__file__).parents[3] / "leaderboard" / "results" / "1.0"


@pytest.fixture(scope="module")
def found() -> Findings:
    loaded = load_results([RESULTS / "digits"])
    groups = group_results(loaded.results, read_all(loaded.results, loaded.paths))
    made = findings(groups)
    assert made is not None
    return made


def raw(entry: str) -> dict[str, dict[str, dict[str, int]]]:
    content: dict[str, dict[str, dict[str, int]]] = json.loads(
        (RESULTS / "digits" / f"{entry}.json").read_text()
    )["epsilons"]
    return content


def test_the_sentence_has_the_figures_of_the_report(found: Findings) -> None:
    text = report([RESULTS / "digits"])
    for key in ("clean", "era", "vra"):
        kept = found.headline.kept[key]
        assert kept is not None
        assert f"{100 * kept.rate:.1f} % here" in text
    assert found.headline.num_networks == 2
    assert f"worse in {found.headline.num_worse} of {found.headline.num_natural}" in text


def test_the_chart_has_the_counts_of_the_result_files(found: Findings) -> None:
    (scene,) = found.scenes
    proven, attacked = scene.chart.panels
    assert (proven.measure, attacked.measure) == ("vra", "autoattack")
    at = raw("digits-ibp-dense")["2/16"]
    assert proven.dense.count == at["certified_by"]["cascade"]
    assert proven.claim == pytest.approx(0.85 * proven.dense.count / 500)
    assert attacked.claim == pytest.approx(0.925 * attacked.dense.count / 500)
    for panel in (proven, attacked):
        for mark in panel.marks.values():
            at = raw(mark.child.result.entry)["2/16"]
            counted = at["certified_by"]["cascade"] if panel is proven else at["autoattack"]
            assert mark.share.count == counted
            if not mark.is_outside:
                assert mark.low_x < mark.x < mark.high_x
                assert mark.x == pytest.approx(panel.axis(mark.share.rate))


def test_the_verdicts_are_those_of_the_corrected_tests(found: Findings) -> None:
    (scene,) = found.scenes
    comparisons = compare([panel.family for panel in scene.chart.panels])
    words = {
        "the paper's method is better": "worse",
        "the rival is better": "better",
        "no difference shown": "no difference",
    }
    names = {"vra": "VRA", "autoattack": "AutoAttack"}
    for panel in scene.chart.panels:
        said = {
            one.rival: words[one.verdict]
            for one in comparisons
            if (one.family, one.measure) == (panel.family.name, names[panel.measure])
        }
        said[panel.papers.method] = "reference"
        assert {method: mark.verdict for method, mark in panel.marks.items()} == said


def test_several_trainings_have_the_word_over_one(found: Findings) -> None:
    """What one training shows and others do not is no difference."""
    (scene,) = found.scenes
    panel = scene.chart.panels[0]
    family = panel.family
    comparisons = compare([family])
    measure = {"vra": "VRA", "autoattack": "AutoAttack"}[panel.measure]
    loser = next(name for name, mark in panel.marks.items() if mark.verdict == "worse")
    assert panel.marks[loser].num_seeds == 1

    def with_test(difference: float, p_value: float) -> Panel:
        test = SeedTest(difference, -1.0, 1.0, p_value, 0.1, (3, 3), True)
        tests = [SeedComparison(family.name, loser, measure, test, family.parent.n, p_value)]
        (chart,) = method_charts([family], comparisons, tests)
        return chart.panels[0]

    unclear = with_test(0.1, 0.2)
    assert unclear.marks[loser].verdict == "no difference" and unclear.better == ()
    better = with_test(-0.1, 0.01)
    assert better.marks[loser].num_seeds == 3
    assert better.better_in_words == loser
    alone = replace(better.marks[loser], num_seeds=1)
    told = replace(better, marks={**better.marks, loser: alone})
    assert told.better_in_words == f"{loser} (one training)"


def test_a_tile_has_the_best_proven_row_that_is_small_enough(found: Findings) -> None:
    (scene,) = found.scenes
    rows = scene.board.rows
    for tile, limit in zip(scene.tiles, SIZE_CLASSES, strict=True):
        small = [row for row in rows if row.result.compactness.bytes_packed < limit]
        best = max(row.score.certified_by["cascade"] or 0 for row in small)
        assert tile.row is not None and tile.row.score.certified_by["cascade"] == best
        group = tile.row.standing.group if tile.row.standing else None
        alike = [row for row in small if row.standing and row.standing.group == group]
        assert tile.num_tied == len(alike) - 1
    assert tiles(()) == tuple(type(tile)(tile.limit_bytes, None) for tile in scene.tiles)


def test_an_axis_keeps_its_ends_inside_the_strip() -> None:
    axis = Axis(0.5, 0.9)
    assert axis(0.5) > 0 and axis(0.9) < 100
    assert [text for _, text in axis.ticks] == ["50", "60", "70", "80", "90"]
    assert axis(0.0) == 0.0


def test_without_outcome_tables_there_are_no_findings(tmp_path: Path) -> None:
    loaded = load_results([RESULTS / "digits"])
    assert findings(group_results(loaded.results)) is None


def test_the_page_says_what_the_report_says(tmp_path: Path, found: Findings) -> None:
    site = build_site([RESULTS / "digits"], tmp_path / "site").index.parent
    page = (site / "findings.html").read_text("utf-8")
    words = re.sub(r"<[^>]+>", " ", page)
    for figure in re.findall(r"\d+\.\d \(\d+\.\d–\d+\.\d\)", report([RESULTS / "digits"])):
        assert figure in words
    targets = set(re.findall(r'href="#([^"]+)"', page)) - {"main"}
    assert targets <= set(re.findall(r'id="([^"]+)"', page))
    front = (site / "index.html").read_text("utf-8")
    assert 'href="findings.html"' in front
    (scene,) = found.scenes
    for tile in scene.tiles:
        assert tile.row is not None and f'href="{tile.row.page}"' in front


def test_text_of_a_submission_stays_text(tmp_path: Path) -> None:
    """A method's name is on the findings page as text, in the chart and in the report."""
    from leaderboard_factory import write_pair

    folder = tmp_path / "results" / "1.0" / "digits"
    folder.mkdir(parents=True)
    for entry in ("digits-adv-dense", "digits-adv-lwm-10x", "digits-adv-random-10x"):
        path = RESULTS / "digits" / f"{entry}.json"
        content = json.loads(path.read_text())
        if "random" in entry:
            content["submission"]["method"]["name"] = "<script>x</script> [a](javascript:b)"
        write_pair(folder / path.name, content, path)
        Result.model_validate_json((folder / path.name).read_text(), strict=True)
    site = build_site([tmp_path / "results"], tmp_path / "site").index.parent
    for name in ("index.html", "findings.html"):
        page = (site / name).read_text("utf-8")
        assert "<script>x" not in page and 'href="javascript' not in page
        assert "&lt;script&gt;x" in page


def test_a_method_of_one_panel_stands_by_its_distance_to_that_dense_parent(
    found: Findings,
) -> None:
    """Proven shares are higher than those after an attack; a mean of both would mix them up."""

    def above(method: str, chart: MethodChart) -> float:
        panels = [panel for panel in chart.panels if method in panel.marks]
        return float(
            np.mean([one.marks[method].share.rate - one.dense.rate for one in panels]),
        )

    for chart in (scene.chart for scene in found.scenes):
        order = [above(method, chart) for method in chart.methods]
        assert order == sorted(order, reverse=True)
        for panel in chart.panels:
            most = max(mark.share.count for mark in panel.marks.values())
            assert panel.leaders
            assert all(panel.marks[name].share.count == most for name in panel.leaders)
            assert set(panel.better) == {
                name for name, mark in panel.marks.items() if mark.verdict == "better"
            }
            kept = panel.marks[chart.papers].share.rate / panel.dense.rate
            share = PAPER["vra" if panel.measure == "vra" else "era"]
            assert panel.is_claim_reached == (kept >= share)
