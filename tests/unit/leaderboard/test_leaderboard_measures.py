"""Shares, the bracket and retention, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from leaderboard_factory import make_result, make_score

from corobench.baselines.objectives import OBJECTIVES
from corobench.benchmark.records.result import EpsilonScore, Result
from corobench.leaderboard.boards import group_results
from corobench.leaderboard.columns import columns
from corobench.leaderboard.measures import (
    VERIFIABLE,
    Share,
    bracket,
    certifier_count,
    is_lower_end_known,
    retentions,
)


def score(**counts: int) -> EpsilonScore:
    return EpsilonScore.model_validate(make_score(**counts))


def test_networks_trained_on_bounds_are_those_made_to_be_verified() -> None:
    assert {name for name, made in OBJECTIVES.items() if made.needs_bounds} == set(VERIFIABLE)


@pytest.mark.parametrize(("count", "n"), [(0, 500), (1, 500), (426, 500), (500, 500), (7, 100)])
def test_the_interval_is_wilsons(count: int, n: int) -> None:
    z, rate = 1.959963984540054, count / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    assert Share(count, n).interval == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_segments_add_up_and_follow_each_other() -> None:
    found = bracket(score(clean=480, certified=300, attacked=100, timeout=3, error=2), 500)
    assert [(segment.key, segment.share.count) for segment in found.segments] == [
        ("certified", 300),
        ("undecided", 75),
        ("unfinished", 5),
        ("attacked", 100),
        ("misclassified", 20),
    ]
    assert sum(segment.share.count for segment in found.segments) == 500
    assert [segment.start_rate for segment in found.segments] == [0.0, 0.6, 0.75, 0.76, 0.96]


def test_the_bracket_runs_from_proven_to_unbroken() -> None:
    found = bracket(score(clean=480, certified=300, attacked=100, timeout=3, error=2), 500)
    assert found.certified == Share(300, 500)
    assert found.not_attacked == Share(500 - 20 - 100, 500)
    assert found.width_rate == pytest.approx(80 / 500)


def test_without_a_certifier_there_is_no_lower_end() -> None:
    raw = make_score(certified=0) | {"certified_by": {"IBP": None, "cascade": None}}
    found = bracket(EpsilonScore.model_validate(raw), 500)
    assert found.certified is None
    assert certifier_count(EpsilonScore.model_validate(raw), "cascade") is None


def verifiable(entry: str = "dense", **more: Any) -> Result:
    """A dense parent that was trained to be verified."""
    method = {"name": "dense", "pipeline": "none", "pretrain_objective": "ibp"}
    return make_result(entry, submission={"method": method}, **more)


def test_retention_by_hand() -> None:
    parent = verifiable(clean=480)  # at 1/16: 240 proven, 384 after AutoAttack
    child = make_result("lwm", clean=456)  # 228 proven, 456 - 91 = 365 after AutoAttack
    kept = retentions(child, parent, "1/16")
    assert kept["clean"].ratio == pytest.approx(456 / 480)
    assert kept["pgd50"].ratio == pytest.approx((456 - 91 // 2) / (480 - 96 // 2))
    assert kept["autoattack"].ratio == pytest.approx(365 / 384)
    assert kept["certified"].ratio == pytest.approx(228 / 240)


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        (make_result("dense"), "the parent was not trained to be verified"),
        (
            verifiable(epsilons={eps: make_score(certified=93) for eps in make_result().epsilons}),
            "less than half of the parent's unbroken images are proven",
        ),
    ],
)
def test_a_share_of_next_to_nothing_is_two_counts(parent: Result, reason: str) -> None:
    """The rule of the reproduction report: 201 after 93 proven images is no 216 %."""
    scores = {eps: make_score(certified=201) for eps in parent.epsilons}
    kept = retentions(make_result("lwm", epsilons=scores), parent, "1/16")
    found = kept["certified"]
    assert found.ratio is None and found.is_counted
    assert (found.parent_count, found.count) == (parent.epsilons["1/16"].counts["certified"], 201)
    assert reason in found.reason
    assert kept["autoattack"].ratio is not None


def test_two_counts_are_shown_with_an_arrow() -> None:
    parent = make_result("dense")
    child = make_result("lwm", clean=456, submission={"parent": "dense"})
    board = group_results([parent, child])[0].boards[0]
    listed = {column.key: column for column in columns(board)}
    row = next(row for row in board.rows if row.result.entry == "lwm")
    cell = listed["kept_certified"].cell(row)
    assert (cell.text, cell.value) == ("240 → 228", None)
    assert listed["kept_autoattack"].shown and not listed["kept_certified"].shown


@pytest.mark.parametrize(
    ("certified", "attacked", "asked", "known"),
    [
        (1, 100, False, True),  # something is proven
        (0, 480, False, True),  # nothing is left
        (0, 100, True, True),  # everybody was asked
        (0, 100, False, False),
    ],
)
def test_when_the_lower_end_is_known(
    certified: int, attacked: int, asked: bool, known: bool
) -> None:
    raw = make_score(500, 480, certified, attacked)
    if not asked:
        raw["certified_by"]["BaB"] = None
    assert is_lower_end_known(EpsilonScore.model_validate(raw)) is known


def test_retention_says_why_it_is_missing() -> None:
    orphan = make_result("lwm", submission={"parent": "gone"})
    assert "no result of the parent gone" in retentions(orphan, None, "1/16")["clean"].reason
    nameless = make_result("lwm")
    assert "names no dense parent" in retentions(nameless, None, "1/16")["clean"].reason
    assert retentions(nameless, None, "1/16")["clean"].ratio is None
    zero = make_result("dense")
    scores = {eps: make_score(attacked=480, certified=0) for eps in zero.epsilons}
    zero = make_result("dense", epsilons=scores)
    assert "no such image" in retentions(orphan, zero, "1/16")["autoattack"].reason


def test_a_handful_of_right_images_is_no_base_for_a_ratio() -> None:
    many = make_result("lwm")
    many = make_result("lwm", epsilons={eps: make_score(certified=113) for eps in many.epsilons})
    for count, ratio in ((9, None), (10, 11.3)):
        scores = {eps: make_score(certified=count, attacked=480 - count) for eps in many.epsilons}
        found = retentions(many, verifiable(epsilons=scores), "1/16")["certified"]
        assert found.ratio == ratio
        assert found.parent_count == count
        assert ("9 such images, too few" in found.reason) == (ratio is None)
