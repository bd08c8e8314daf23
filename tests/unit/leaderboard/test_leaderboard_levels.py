"""The level beside the literature: which rows stand there, and when a goal is held."""

from __future__ import annotations

from typing import Any

import pytest
from leaderboard_factory import make_compactness, make_result, make_score

from corobench.benchmark.records.result import Result
from corobench.leaderboard.levels import LITERATURE, Goal, goals, levels, shares


def row(entry: str, certified: int, *, parent: str | None = None, **more: Any) -> Result:
    """A result on CIFAR-10 with so many images proven at both radii."""
    n, clean = more.pop("n", 1000), more.pop("clean", 600)
    attacked = more.pop("attacked", clean - certified)
    score = make_score(n, clean, certified=certified, attacked=attacked)
    weights = more.pop("weights", 21_000)
    return make_result(
        entry,
        "cifar10",
        n=n,
        clean=clean,
        epsilons={"2/255": more.pop("score", score), "8/255": score},
        compactness=make_compactness(10 * weights),
        submission={"parent": parent},
        **more,
    )


def test_dense_rows_come_first_then_compact_ones_each_best_first() -> None:
    results = [
        row("pruned-a", 430, parent="dense-b"),
        row("dense-a", 440),
        row("pruned-b", 450, parent="dense-b"),
        row("dense-b", 460),
    ]
    found = levels(results)
    assert [(level.track, level.epsilon) for level in found] == list(LITERATURE)
    assert [one.entry for one in found[0].dense] == ["dense-b", "dense-a"]
    assert [one.entry for one in found[0].compact] == ["pruned-b", "pruned-a"]


def test_rows_under_attack_are_sorted_by_what_is_unbroken() -> None:
    weakly_proven = row("adv", 10, attacked=200)
    proven = row("ibp", 300, attacked=300)
    assert [one.entry for one in levels([proven, weakly_proven])[0].dense] == ["ibp", "adv"]
    assert [one.entry for one in levels([proven, weakly_proven])[1].dense] == ["adv", "ibp"]


def test_of_several_subsets_the_largest_one_counts() -> None:
    small = row("a", 480)
    large = row("a", 4500, n=10_000, clean=6000)
    (level, _) = levels([large, small])
    assert level.dense == (large,)


def test_the_newest_round_of_an_entry_counts() -> None:
    old = row("a", 4700, clean=6000, n=10_000, protocol="1.0")
    new = row("a", 450, clean=600, protocol="1.1")
    (level, _) = levels([new, old])
    assert level.dense == (new,)


def test_a_track_without_published_rows_has_no_level() -> None:
    assert levels([make_result(track="digits")]) == ()
    assert goals([make_result(track="digits")]) == ()


@pytest.mark.parametrize(
    ("certified", "clean", "weights", "held"),
    [(460, 580, 22_000, True), (459, 580, 22_000, False), (460, 579, 22_000, False)],
)
def test_a_goal_is_held_exactly_from_its_figures_on(
    certified: int, clean: int, weights: int, held: bool
) -> None:
    result = row("a", certified, clean=clean, weights=weights)
    goal, best = next(one for one in goals([result]) if one[0].max_weights == 22_000)
    assert best is result
    assert goal.is_met_by(result) == held


def test_a_larger_network_cannot_hold_a_goal_of_size() -> None:
    large = row("large", 600, clean=700, weights=22_001)
    small = row("small", 400)
    found = {goal.max_weights: best for goal, best in goals([large, small]) if goal.proven}
    assert found[22_000] is small
    assert found[500_000] is large


def test_where_several_rows_hold_a_goal_the_best_one_is_named() -> None:
    """A row that is proven more often, but is not right often enough, does not hide another one."""
    inaccurate = row("inaccurate", 480, clean=500)
    meets = row("meets", 470, clean=590)
    _, best = next(one for one in goals([inaccurate, meets]) if one[0].clean is not None)
    assert best is meets


def test_a_row_on_more_images_that_holds_a_goal_comes_first() -> None:
    few = row("few", 480, clean=600)
    many = row("many", 4610, clean=6000, n=10_000)
    misses = row("misses", 4590, clean=6000, n=10_000)
    _, best = next(one for one in goals([few, misses, many]) if one[0].clean is not None)
    assert best is many


def test_proven_is_not_known_where_no_certifier_could_be_asked() -> None:
    score = make_score(1000, 600, certified=0, attacked=200)
    score["certified_by"] = dict.fromkeys(score["certified_by"])
    score["decided_by"].pop("IBP", None)
    result = row("big", 0, score=score, not_asked=dict.fromkeys(score["certified_by"], "too-large"))
    assert shares(result, "2/255") == (0.6, None, 0.4)
    assert not Goal("cifar10", "2/255", 22_000, proven=0.0).is_met_by(result)
