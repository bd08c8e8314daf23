"""What may stand in one table, in which order, and who is whose parent."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from leaderboard_factory import (
    MIRROR,
    make_compactness,
    make_manifest,
    make_result,
    make_score,
    write_evidence,
    write_result,
)

from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.statistics import Standing
from corobench.leaderboard.boards import Group, Row, group_results
from corobench.leaderboard.build import build_site
from corobench.leaderboard.columns import columns
from corobench.leaderboard.curves import curves
from corobench.leaderboard.evidence import read_evidence
from corobench.leaderboard.loading import identity
from corobench.leaderboard.plot import (
    BOTTOM,
    MAX_LINKS,
    SIZES,
    STEP,
    TOP,
    log_axis,
    plot,
    y_of,
)
from corobench.leaderboard.taxonomy import facets, size_class, tier, times_smaller

MIRRORED = {"kind": "mirror", "fingerprint": MIRROR}


def describe(group: Group) -> tuple[str, str, int, bool]:
    return group.track.name, group.kind, group.n, group.ranked


def test_mirror_quick_and_other_n_never_share_a_table() -> None:
    results = [
        make_result("a", "fashion-mnist", n=1000),
        make_result("b", "fashion-mnist", n=10000),
        make_result("c", "fashion-mnist", n=100),
        make_result("d", "fashion-mnist", n=1000, data=MIRRORED),
        make_result("e", "digits"),
        make_result("f", "fashion-mnist", n=1000, quick=True),
        make_result("g", "fashion-mnist", n=1000, protocol="1.1"),
    ]
    groups = group_results(results)
    assert [(*describe(group), group.protocol) for group in groups] == [
        ("digits", "canonical", 500, True, "1.0"),
        ("fashion-mnist", "canonical", 1000, True, "1.1"),
        ("fashion-mnist", "canonical", 10000, True, "1.0"),
        ("fashion-mnist", "canonical", 1000, True, "1.0"),
        ("fashion-mnist", "canonical", 1000, False, "1.0"),
        ("fashion-mnist", "canonical", 100, False, "1.0"),
        ("fashion-mnist", "mirror", 1000, False, "1.0"),
    ]
    assert [group.quick for group in groups] == [False] * 4 + [True, True, False]
    assert all(len(board.rows) == 1 for group in groups for board in group.boards)


def test_the_files_own_word_does_not_make_it_ranked() -> None:
    small = make_result("a", n=100, quick=False)
    one_radius = make_result("b", epsilons={"1/16": make_score()})
    assert [group.ranked for group in group_results([small, one_radius])] == [False, False]


def test_rows_are_sorted_by_the_stated_rule_whatever_the_input_order() -> None:
    def entry(name: str, certified: int, attacked: int) -> object:
        scores = {eps: make_score(500, 480, certified, attacked) for eps in ("1/16", "2/16")}
        return make_result(name, epsilons=scores)

    results = [entry("c", 200, 50), entry("b", 200, 60), entry("a", 200, 60), entry("d", 300, 100)]
    for seed in range(5):
        random.Random(seed).shuffle(results)
        rows = group_results(results)[0].boards[0].rows  # type: ignore[arg-type]
        assert [row.result.entry for row in rows] == ["d", "c", "a", "b"]


def test_the_parent_is_the_one_on_the_same_images() -> None:
    child = make_result("lwm", submission={"parent": "dense"})
    elsewhere = make_result("dense", data=MIRRORED)
    other_n = make_result("dense", n=100)
    groups = group_results([child, elsewhere, other_n])
    assert groups[0].boards[0].rows[0].parent is None
    groups = group_results([child, elsewhere, other_n, make_result("dense")])
    row = next(row for row in groups[0].boards[0].rows if row.result.entry == "lwm")
    assert row.parent is not None
    assert row.parent_page == "entries/1.0/digits/dense.n500.html"


def test_two_seeds_of_one_entry_have_a_page_and_a_name_each() -> None:
    group = group_results([make_result("lwm"), make_result("lwm", seed=1)])[0]
    rows = group.boards[0].rows
    assert len({row.page for row in rows}) == len({row.name for row in rows}) == 2
    assert sorted(row.variant.split(",")[0] for row in rows) == ["seed 0", "seed 1"]


def test_a_certifier_of_a_later_release_gets_its_column() -> None:
    score = make_score() | {"certified_by": {"IBP": 1, "PRIMA": 300, "cascade": 300}}
    group = group_results([make_result("a", epsilons={"1/16": score})])[0]
    assert group.boards[0].certifiers == (
        "IBP",
        "CROWN-IBP",
        "CROWN",
        "alpha-CROWN",
        "BaB",
        "PRIMA",
    )
    assert group.boards[0].rows[0].certifier("CROWN") is None


def test_the_plot_spans_each_bracket_and_keeps_labels_apart() -> None:
    results = [make_result(f"entry-{index}", clean=400 + index) for index in range(8)]
    board = group_results(results)[0].boards[0]
    ranges = plot(board.rows).ranges
    assert len(ranges) == 8
    for item in ranges:
        assert item.low_y == y_of(item.row.bracket.low_rate)
        assert item.high_y == y_of(item.row.bracket.not_attacked.rate)
        assert TOP <= item.high_y <= item.low_y <= BOTTOM
    labels = sorted(item.label_y for item in ranges)
    assert min(b - a for a, b in itertools.pairwise(labels)) >= STEP - 1e-9


@pytest.mark.parametrize("num_entries", [3, 12, 30, MAX_LINKS + 1])
@pytest.mark.parametrize("size", list(SIZES))
def test_each_mark_stands_at_its_size(num_entries: int, size: str) -> None:
    """Many entries of one size, and a chain of sizes each close to the next: nothing is moved."""
    results = [make_result(f"entry-{index}", clean=400 + index) for index in range(num_entries)]
    board = group_results(results)[0].boards[0]
    assert len({item.x for item in plot(board.rows, size).ranges}) == 1
    chain = [
        replace(row, result=_of_size(row.result, round(1000 * 1.1 ** (index // 2))))
        for index, row in enumerate(board.rows)
    ]
    measure = SIZES[size][1]
    axis = log_axis([measure(row.result.compactness) for row in chain])
    for item in plot(chain, size).ranges:
        there = axis(measure(item.row.result.compactness))
        assert item.x == there
        assert float(item.path[1:].split(" ")[0]) == pytest.approx(there, abs=0.005)


def test_of_one_size_the_shortest_range_is_drawn_last() -> None:
    results = [
        make_result(f"e{index}", epsilons={"1/16": make_score(500, 480, certified, 100)})
        for index, certified in enumerate((300, 100, 200))
    ]
    ranges = plot(group_results(results)[0].boards[0].rows).ranges
    assert [item.row.result.entry for item in ranges] == ["e1", "e2", "e0"]


def _of_size(result: Result, num_nonzero: int) -> Result:
    sizes = ("num_nonzero", "bytes_packed", "macs_nonzero")
    size = result.compactness.model_copy(update=dict.fromkeys(sizes, num_nonzero))
    return result.model_copy(update={"compactness": size})


def _family(arms: dict[str, tuple[int, float, dict[str, str]]]) -> list[Result]:
    """A dense parent of 40,000 parameters and arms: name -> (parameters, kept share, method)."""
    dense = {"name": "dense", "pipeline": "none", "criterion": "none"}
    results = []
    for name, (parameters, keep, change) in {"dense": (40_000, 1.0, dense), **arms}.items():
        manifest = make_manifest(name, "digits")
        manifest["method"] |= change
        manifest["parent"] = None if name == "dense" else "dense"
        size = make_compactness(parameters, keep)
        results.append(make_result(name, submission=manifest, compactness=size))
    return results


def test_a_smaller_network_is_as_many_times_smaller_as_its_parent_has_weights() -> None:
    small = {"name": "small dense", "pipeline": "none", "criterion": "none"}
    results = _family({"pruned": (40_000, 0.1, {}), "small": (4_200, 1.0, small)})
    board = group_results(results)[0].boards[0]
    rows = {row.result.entry: row for row in board.rows}
    assert times_smaller(rows["dense"]) == 1.0 and tier(rows["dense"]) == "dense"
    assert times_smaller(rows["pruned"]) == pytest.approx(10.0)
    assert times_smaller(rows["small"]) == pytest.approx(40_000 / 4_200)
    assert tier(rows["pruned"]) == tier(rows["small"]) == "10x"


def test_a_board_can_be_filtered_by_the_size_classes_of_the_front_page() -> None:
    limits = {24_999: "below 25 kB", 25_000: "25 kB to 100 kB", 10**6: "1 MB or more"}
    results = [
        make_result(f"e{size}", compactness=make_compactness(40_000, 1.0) | {"bytes_packed": size})
        for size in limits
    ]
    rows = group_results(results)[0].boards[0].rows
    assert {int(row.result.entry[1:]): size_class(row) for row in rows} == limits
    (packed,) = [facet for facet in facets(rows) if facet.key == "packed"]
    assert packed.values == tuple(limits.values())


def test_curves_are_of_methods_with_several_compressions() -> None:
    """One step from the dense parent is no curve where another method has one."""
    hydra = {"name": "HYDRA 10x", "criterion": "trained-scores"}
    only = _family({"hydra": (40_000, 0.1, hydra)})
    drawn = curves(group_results(only)[0].boards[0].rows)
    assert drawn is not None and [curve.label for curve in drawn.curves] == ["dense: HYDRA"]
    both = _family(
        {
            "hydra": (40_000, 0.1, hydra),
            "lwm-10x": (40_000, 0.1, {}),
            "lwm-2x": (40_000, 0.5, {"name": "LWM 2x"}),
        }
    )
    drawn = curves(group_results(both)[0].boards[0].rows)
    assert drawn is not None and [curve.label for curve in drawn.curves] == ["dense: LWM"]
    assert (drawn.num_single, drawn.num_left_out) == (1, 0)
    assert [row.result.entry for row in drawn.curves[0].rows] == ["dense", "lwm-2x", "lwm-10x"]
    assert curves(group_results(only[:1])[0].boards[0].rows) is None
    # An int8 version is no point of the method's curve.
    size = make_compactness(40_000, 0.09) | {"format": "onnx-qdq"}
    manifest = both[2].submission.model_dump(mode="json", by_alias=True)
    manifest |= {"id": "lwm-10x-int8", "parent": "dense"}
    both.append(make_result("lwm-10x-int8", submission=manifest, compactness=size))
    drawn = curves(group_results(both)[0].boards[0].rows)
    assert drawn is not None
    assert [row.result.entry for row in drawn.curves[0].rows] == ["dense", "lwm-2x", "lwm-10x"]


def test_without_a_table_of_layers_the_sparsity_tells_the_size() -> None:
    results = _family({"pruned": (40_000, 0.1, {})})
    bare = [
        result.model_copy(
            update={"compactness": result.compactness.model_copy(update={"layers": ()})}
        )
        for result in results
    ]
    rows = group_results(bare)[0].boards[0].rows
    assert [tier(row) for row in rows] == ["10x", "dense"]
    assert [times_smaller(row) for row in rows] == [pytest.approx(10.0), 1.0]


def test_what_no_certifier_was_asked_about_stands_apart() -> None:
    """It has no place in the order and no rank group; an entry that proves nothing has both."""
    nothing = make_score(500, 480, 0, 100)
    unknown = {**nothing, "certified_by": dict.fromkeys(nothing["certified_by"])}
    why = dict.fromkeys(("IBP", "CROWN"), "no-checker: the checker does not know the layer X")
    results = [
        make_result("unknown", epsilons={"1/16": unknown, "2/16": unknown}, not_asked=why),
        make_result("nothing", epsilons={"1/16": nothing, "2/16": nothing}),
    ]
    (group,) = group_results(results)
    for board in group.boards:
        assert [row.result.entry for row in board.rows] == ["nothing", "unknown"]
        (row,) = board.apart
        assert row.result.entry == "unknown"
        assert row.standing is None
        assert row.why_not_certifiable.startswith("IBP, CROWN not asked: no-checker")


def test_nothing_stands_apart_where_no_entry_was_certifiable() -> None:
    score = make_score(500, 480, 0, 100)
    score["certified_by"] = dict.fromkeys(score["certified_by"])
    (group,) = group_results([make_result("a", epsilons={"1/16": score, "2/16": score})])
    assert all(len(board.rows) == 1 and not board.apart for board in group.boards)


def test_where_the_parent_cannot_be_proven_a_curve_has_no_area() -> None:
    """Proven shares that rise from 0 say what certifiers can do, not what pruning does."""
    results = _family({"lwm-10x": (40_000, 0.1, {}), "lwm-2x": (40_000, 0.5, {"name": "LWM 2x"})})
    drawn = curves(group_results(results)[0].boards[0].rows)
    assert drawn is not None
    (curve,) = drawn.curves
    assert not curve.is_open and curve.area and curve.low
    hard = {epsilon: make_score(500, 480, certified=20) for epsilon in ("1/16", "2/16")}
    results[0] = make_result(
        "dense",
        submission=results[0].submission.model_dump(mode="json", by_alias=True),
        compactness=results[0].compactness.model_dump(mode="json"),
        epsilons=hard,
    )
    drawn = curves(group_results(results)[0].boards[0].rows)
    assert drawn is not None
    (curve,) = drawn.curves
    assert curve.is_open and not curve.area and not curve.low
    assert len(curve.points) == 3 and curve.high.count(",") == 3


def test_a_curve_has_no_point_at_0_where_the_proven_share_is_not_known(tmp_path: Path) -> None:
    """A circle at 0 would say that nothing could be proven; nobody asked."""
    for entry, keep, parent in (("dense", 1.0, None), ("a", 0.1, "dense"), ("b", 0.05, "dense")):
        write_result(
            tmp_path / "results",
            make_result(
                entry,
                **_scores(0, 100, asked=False),
                not_asked=dict.fromkeys(("CROWN", "alpha-CROWN", "BaB"), "too large"),
                compactness=make_compactness(keep_ratio=keep),
                submission={"parent": parent},
            ),
        )
    build_site([tmp_path / "results"], tmp_path / "site")
    page = (tmp_path / "site/boards/digits-1.0-n500-eps2-16.html").read_text()
    points = re.findall(r'class="bracket unproven" d="M[\d.]+ ([\d.]+)V([\d.]+)"/>', page)
    circles = re.findall(r'<circle class="point open" cx="[\d.]+" cy="([\d.]+)"', page)
    assert [high for _, high in points] == circles
    assert {float(low) for low, _ in points} == {BOTTOM} and len(circles) == 3


def test_no_page_says_0_percent_proven_where_nobody_could_be_asked(tmp_path: Path) -> None:
    """Neither the boards, nor the entry's own tables, nor the feed."""
    path = write_result(
        tmp_path / "results",
        make_result(
            "large",
            **_scores(0, 100, asked=False),
            not_asked=dict.fromkeys(("CROWN", "alpha-CROWN", "BaB"), "too large"),
            date="2026-11-01",
        ),
    )
    write_evidence(path)
    build_site([tmp_path / "results"], tmp_path / "site")
    feed = (tmp_path / "site/feed.xml").read_text()
    assert "proven share not known, 76.0 % unbroken" in feed
    entry = (tmp_path / "site/entries/1.0/digits/large.n500.html").read_text()
    classes = entry[entry.index('id="classes"') :].split("</table>")[0]
    assert classes.count("not known") == 2 * 10
    assert 'aria-label="0.0 to' not in classes and 'aria-label="? to' in classes


NOT_ASKED = {"IBP": 0, "CROWN-IBP": 0, "CROWN": None, "alpha-CROWN": None, "BaB": None}


def _scores(certified: int, attacked: int, asked: bool = True) -> dict[str, object]:
    score = make_score(500, 480, certified, attacked)
    if not asked:
        score["certified_by"] = NOT_ASKED | {"cascade": 0}
    return {"epsilons": dict.fromkeys(("1/16", "2/16"), score)}


def _ranked(root: Path, results: list[Result]) -> Group:
    """The group of these results with their outcomes image by image."""
    evidence = {}
    for result in results:
        path = write_result(root, result)
        write_evidence(path)
        evidence[identity(result)] = read_evidence(result, path)
    (group,) = group_results(results, evidence)
    return group


def test_not_known_is_not_broken(tmp_path: Path) -> None:
    """Nothing proven and everything broken is 0; nothing proven and nobody asked is not known."""
    reasons = {
        name: f"too-large: 39643 hidden units, and protocol 1.0 asks {name} up to 20000"
        for name, count in NOT_ASKED.items()
        if count is None
    }
    results = [
        make_result("proven", **_scores(300, 100)),
        make_result("open", not_asked=reasons, **_scores(0, 10, asked=False)),
        make_result("broken", not_asked=reasons, **_scores(0, 480, asked=False)),
        make_result("undecided", **_scores(0, 200)),
    ]
    board = _ranked(tmp_path, results).boards[0]
    assert [row.result.entry for row in board.rows] == ["proven", "undecided", "broken", "open"]
    assert [row.result.entry for row in board.apart] == ["open"]
    groups = {row.result.entry: row.standing and row.standing.group for row in board.rows}
    assert groups == {"proven": 1, "undecided": 2, "broken": 2, "open": None}
    cell = {column.key: column.cell(board.rows[-1]) for column in columns(board)}
    assert (cell["group"].text, cell["certified"].text, cell["certified"].value) == (
        "—",
        "not known",
        0,
    )
    assert cell["certified"].reason == (
        "IBP, CROWN-IBP proved nothing; CROWN, alpha-CROWN, BaB not asked: "
        "39,643 hidden units (limit 20,000)"
    )


def test_groups_by_what_is_unbroken(tmp_path: Path) -> None:
    """The same paired tests on the other count, in the other order, for every entry."""
    reasons = {name: "too-large" for name, count in NOT_ASKED.items() if count is None}
    results = [
        make_result("proven", **_scores(300, 100)),
        make_result("open", not_asked=reasons, **_scores(0, 10, asked=False)),
        make_result("undecided", **_scores(100, 105)),
    ]
    board = _ranked(tmp_path, results).boards[0]
    found = {row.result.entry: row.unbroken_standing for row in board.rows}
    assert all(found.values())
    assert {name: one and one.group for name, one in found.items()} == {
        "open": 1,
        "proven": 2,
        "undecided": 2,
    }
    assert found["open"] == Standing(best=1, worst=1, group=1)
    ordered = sorted(board.rows, key=Row.unbroken_key)
    assert [row.result.entry for row in ordered] == ["open", "proven", "undecided"]


def test_without_a_table_there_are_no_groups_by_either_count() -> None:
    board = group_results([make_result("a"), make_result("b")])[0].boards[0]
    assert all(row.standing is row.unbroken_standing is None for row in board.rows)
    assert not {"group", "group_unbroken"} & {column.key for column in columns(board)}
