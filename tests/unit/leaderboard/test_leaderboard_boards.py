"""What may stand in one table, in which order, and who is whose parent."""

from __future__ import annotations

import itertools
import random

from leaderboard_factory import MIRROR, make_result, make_score

from leaderboard.boards import Group, group_results
from leaderboard.plot import BOTTOM, STEP, TOP, plot, y_of

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


def test_the_plot_spans_each_bracket_and_keeps_marks_and_labels_apart() -> None:
    results = [make_result(f"entry-{index}", clean=400 + index) for index in range(8)]
    board = group_results(results)[0].boards[0]
    ranges = plot(board.rows).ranges
    assert len(ranges) == 8
    for item in ranges:
        assert item.low_y == y_of(item.row.bracket.low_rate)
        assert item.high_y == y_of(item.row.bracket.not_attacked.rate)
        assert TOP <= item.high_y <= item.low_y <= BOTTOM
    for values in (sorted(item.x for item in ranges), sorted(item.label_y for item in ranges)):
        gaps = [b - a for a, b in itertools.pairwise(values)]
        assert min(gaps) >= STEP - 1e-9
