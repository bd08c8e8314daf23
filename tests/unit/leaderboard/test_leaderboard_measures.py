"""Shares, the bracket and retention, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from leaderboard_factory import make_result, make_score

from corobench.benchmark.records.result import EpsilonScore
from corobench.leaderboard.measures import Share, bracket, certifier_count, retentions


def score(**counts: int) -> EpsilonScore:
    return EpsilonScore.model_validate(make_score(**counts))


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


def test_the_bracket_runs_from_certified_to_not_attacked() -> None:
    found = bracket(score(clean=480, certified=300, attacked=100, timeout=3, error=2), 500)
    assert found.certified == Share(300, 500)
    assert found.not_attacked == Share(500 - 20 - 100, 500)
    assert found.width_rate == pytest.approx(80 / 500)


def test_without_a_certifier_there_is_no_lower_end() -> None:
    raw = make_score(certified=0) | {"certified_by": {"IBP": None, "cascade": None}}
    found = bracket(EpsilonScore.model_validate(raw), 500)
    assert found.certified is None
    assert certifier_count(EpsilonScore.model_validate(raw), "cascade") is None


def test_retention_by_hand() -> None:
    parent = make_result("dense", clean=480)  # at 1/16: 240 certified, 384 after AutoAttack
    child = make_result("lwm", clean=456)  # 228 certified, 456 - 91 = 365 after AutoAttack
    kept = retentions(child, parent, "1/16")
    assert kept["clean"].ratio == pytest.approx(456 / 480)
    assert kept["pgd50"].ratio == pytest.approx((456 - 91 // 2) / (480 - 96 // 2))
    assert kept["autoattack"].ratio == pytest.approx(365 / 384)
    assert kept["certified"].ratio == pytest.approx(228 / 240)


def test_retention_says_why_it_is_missing() -> None:
    orphan = make_result("lwm", submission={"parent": "gone"})
    assert "no result of the parent gone" in retentions(orphan, None, "1/16")["clean"].reason
    nameless = make_result("lwm")
    assert "names no dense parent" in retentions(nameless, None, "1/16")["clean"].reason
    assert retentions(nameless, None, "1/16")["clean"].ratio is None
    zero = make_result("dense")
    scores = {eps: make_score(certified=0) for eps in zero.epsilons}
    zero = make_result("dense", epsilons=scores)
    assert "no such image" in retentions(orphan, zero, "1/16")["certified"].reason


def test_a_handful_of_right_images_is_no_base_for_a_ratio() -> None:
    many = make_result("lwm")
    many = make_result("lwm", epsilons={eps: make_score(certified=113) for eps in many.epsilons})
    for count, ratio in ((9, None), (10, 11.3)):
        scores = {eps: make_score(certified=count) for eps in many.epsilons}
        few = make_result("dense", epsilons=scores)
        found = retentions(many, few, "1/16")["certified"]
        assert found.ratio == ratio
        assert found.parent_count == count
        assert ("9 such images, too few" in found.reason) == (ratio is None)
