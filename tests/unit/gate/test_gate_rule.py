"""The gate's rule and its early stopping: verdicts, invariants, simulated error rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from corobench.benchmark.gate.noninferiority import p_value
from corobench.benchmark.gate.rule import (
    Paired,
    Rule,
    Size,
    Verdict,
    judge,
    judge_size,
    lost_proofs,
    pair,
    worst,
)
from corobench.benchmark.gate.sequential import futures, looks, settled, share_of_alpha


def paired(lost: int, won: int, n: int = 500, metric: str = "clean") -> Paired:
    return Paired(metric, "", n, n - won, n - lost, lost, won)


@pytest.mark.parametrize(
    ("lost", "won", "verdict"),
    [
        (0, 0, Verdict.PASS),
        (0, 40, Verdict.PASS),  # better
        (5, 0, Verdict.PASS),  # 1.0 points: allowed
        (6, 0, Verdict.WARN),  # 1.2 points: no chance against none, but against the one allowed
        (30, 24, Verdict.WARN),  # 1.2 points, and perhaps chance
        (9, 0, Verdict.WARN),  # P(at least 9 of 500 at 1 %) = 0.067
        (10, 0, Verdict.FAIL),  # P(at least 10 of 500 at 1 %) = 0.031
        (20, 2, Verdict.FAIL),
    ],
)
def test_verdicts_of_one_metric(lost: int, won: int, verdict: Verdict) -> None:
    (judged,) = judge([paired(lost, won)], Rule())
    assert judged.verdict == verdict
    assert judged.p_value == judged.p_corrected == p_value(lost, won, 500, 0.01)


def test_without_an_allowed_drop_any_proven_loss_is_red() -> None:
    rule = Rule(max_drop=0.0)
    assert judge([paired(6, 0)], rule)[0].verdict == Verdict.FAIL
    assert judge([paired(2, 0)], rule)[0].verdict == Verdict.WARN


def test_many_metrics_bear_holms_correction() -> None:
    others = [paired(0, 0) for _ in range(6)]
    assert judge([paired(10, 0)], Rule())[0].verdict == Verdict.FAIL
    assert judge([paired(10, 0), *others], Rule())[0].verdict == Verdict.WARN
    assert judge([paired(20, 0), *others], Rule())[0].verdict == Verdict.FAIL


def test_a_look_that_may_spend_a_share_of_alpha_needs_a_smaller_p() -> None:
    (whole,), (look,) = (judge([paired(10, 0)], Rule(), share) for share in (1.0, 0.1))
    assert look.p_corrected == pytest.approx(10 * whole.p_corrected)
    assert (whole.verdict, look.verdict) == (Verdict.FAIL, Verdict.WARN)
    assert judge([paired(20, 15)], Rule(), 0.1)[0].p_corrected == 1.0


def test_bytes_may_not_grow() -> None:
    assert judge_size(1000, 1000, Rule()).verdict == Verdict.PASS
    assert judge_size(1000, 1001, Rule()).verdict == Verdict.FAIL
    grown = judge_size(1000, 1050, Rule(max_bytes_growth=5.0))
    assert grown == Size(1000, 1050, Verdict.PASS) and grown.growth == 5.0


def test_the_worst_verdict_counts() -> None:
    assert worst([]) == Verdict.PASS
    assert worst([Verdict.FAIL, Verdict.PASS, Verdict.WARN]) == Verdict.FAIL


def _table(outcomes: list[str], *, certified: bool = True) -> pd.DataFrame:
    asked = [outcome == "certified" for outcome in outcomes] if certified else pd.NA
    return pd.DataFrame(
        {
            "image": range(len(outcomes)),
            "epsilon": "1/16",
            "label": 0,
            "predicted": [int(outcome == "misclassified") for outcome in outcomes],
            "outcome": outcomes,
            "pgd50": [outcome in ("certified", "undecided") for outcome in outcomes],
            "autoattack": [outcome in ("certified", "undecided") for outcome in outcomes],
            "ibp": pd.array(asked if certified else [pd.NA] * len(outcomes), dtype="boolean"),
        }
    )


def test_images_are_paired_and_counted() -> None:
    baseline = _table(["certified", "certified", "attacked", "misclassified", "undecided"])
    candidate = _table(["certified", "undecided", "attacked", "certified"])  # fewer images
    found = {metric.metric: metric for metric in pair(baseline, candidate)}
    assert found["clean"] == Paired("clean", "", 4, 3, 4, 0, 1)
    assert found["autoattack"] == Paired("autoattack", "1/16", 4, 2, 3, 0, 1)
    assert found["certified"] == Paired("certified", "1/16", 4, 2, 2, 1, 1)


def test_what_one_side_was_not_asked_is_not_compared() -> None:
    asked, not_asked = _table(["certified"]), _table(["undecided"], certified=False)
    assert "certified" not in {metric.metric for metric in pair(asked, not_asked)}
    assert lost_proofs(asked, not_asked) == ["1/16"], "the proofs of the baseline are gone"
    assert lost_proofs(not_asked, asked) == lost_proofs(asked, asked) == []
    assert lost_proofs(_table(["undecided"]), not_asked) == [], "there was no proof to lose"


def test_futures_keep_what_is_seen() -> None:
    counts = futures(7, 3, 100, 500)
    assert (counts >= [7, 3]).all()
    assert (counts.sum(axis=1) <= 500).all()
    assert counts.mean(axis=0) == pytest.approx([36.5, 17], rel=0.15)


def verdicts(metrics: list[Paired], n: int, total: int) -> list[Verdict] | None:
    found = settled(metrics, n, looks(total), Rule())
    return None if found is None else [one.verdict for one in found]


def test_a_clear_loss_is_settled_early_and_equals_too() -> None:
    assert verdicts([paired(20, 0, n=50)], 50, 500) == [Verdict.FAIL]
    assert verdicts([paired(0, 0, n=125)] * 7, 125, 500) == [Verdict.PASS] * 7
    assert verdicts([paired(6, 1, n=125)], 125, 500) is None


def test_what_early_stopping_left_is_still_open() -> None:
    red, lost_a_little, equal = paired(20, 0, n=50), paired(2, 0, n=50), paired(0, 0, n=50)
    found = verdicts([red, lost_a_little, equal], 50, 500)
    assert found == [Verdict.FAIL, Verdict.OPEN, Verdict.PASS]
    assert worst(found) == Verdict.FAIL
    # the same counts on all images: nothing is open then
    assert verdicts([red, lost_a_little, equal], 50, 50) == [
        Verdict.FAIL,
        Verdict.WARN,
        Verdict.PASS,
    ]


def test_a_green_that_stopped_early_warns_of_nothing() -> None:
    """A loss on the first images is no warning where it is unlikely to last."""
    rule = Rule(max_drop=3.0)
    lost_two, equal = paired(2, 1, n=125), paired(0, 0, n=125)
    lost_more = paired(5, 0, n=125)
    found = settled([lost_more, equal], 125, looks(500), rule)
    assert found is None or Verdict.WARN not in {one.verdict for one in found}
    open_ones = [
        [one.verdict for one in found]
        for lost in range(1, 12)
        if (found := settled([paired(lost, 0, n=250), equal], 250, looks(500), rule)) is not None
    ]
    assert any(Verdict.OPEN in one for one in open_ones)
    assert all(Verdict.WARN not in one for one in open_ones)
    assert worst([Verdict.OPEN, Verdict.PASS]) == Verdict.PASS
    assert settled([lost_two, equal], 125, looks(500), rule) is not None


def test_the_last_look_always_decides() -> None:
    for lost in range(30):
        metrics = [paired(lost, 3), paired(5, 5)]
        found = settled(metrics, 500, looks(500), Rule())
        assert found == judge(metrics, Rule(), share_of_alpha(500, looks(500)))


def test_looks_end_at_the_whole_and_spend_alpha_once() -> None:
    for total in (10, 60, 100, 500, 1000, 10_000):
        sizes = looks(total)
        assert sizes[-1] == total and list(sizes) == sorted(set(sizes))
        assert sum(share_of_alpha(n, sizes) for n in sizes) == pytest.approx(1.0)
        assert all(share_of_alpha(n, sizes) > 0 for n in sizes)


def red_share(total: int, rule: Rule, lost: float, won: float, runs: int, num: int = 7) -> float:
    """Share of simulated comparisons that are red, with early stopping.

    Each metric has images of its own: the hard case.

    Args:
        total: images.
        rule: of the gate.
        lost, won: true shares of images that only the baseline, only the candidate has right.
        runs: comparisons.
        num: metrics.
    """
    random = np.random.default_rng(1)
    sizes, red = looks(total), 0
    for _ in range(runs):
        drawn = random.random((num, total))
        sides = np.stack([drawn < lost, (drawn >= lost) & (drawn < lost + won)])
        for n in sizes:
            metrics = [paired(*map(int, both), n) for both in sides[:, :, :n].sum(axis=2).T]
            found = settled(metrics, n, sizes, rule)
            if found is not None:
                break
        red += Verdict.FAIL in [one.verdict for one in found]
    return red / runs


@pytest.mark.parametrize("max_drop", [0.0, 1.0])
@pytest.mark.parametrize(
    ("total", "won", "runs"),
    [
        (100, 0.0, 1000),
        (100, 0.1, 1000),
        (500, 0.0, 1000),
        (500, 0.02, 1000),
        (1000, 0.005, 500),
        pytest.param(500, 0.1, 2000, marks=pytest.mark.slow),
        pytest.param(1000, 0.1, 1000, marks=pytest.mark.slow),
        pytest.param(10_000, 0.0, 1000, marks=pytest.mark.slow),
        pytest.param(10_000, 0.02, 1000, marks=pytest.mark.slow),
    ],
)
def test_a_loss_of_what_is_allowed_is_red_at_most_as_often_as_alpha(
    total: int, won: float, runs: int, max_drop: float
) -> None:
    """The largest loss that is allowed, in all metrics at once, with early stopping."""
    rule = Rule(max_drop=max_drop)
    noise = 3 * np.sqrt(rule.alpha * (1 - rule.alpha) / runs)
    assert red_share(total, rule, won + rule.margin, won, runs) <= rule.alpha + noise


def test_a_large_loss_is_red_nearly_always() -> None:
    """At 99 % of the runs, fewer than 96 of 100 have a chance below 0.4 %."""
    assert red_share(500, Rule(), 0.12, 0.02, 100, num=3) >= 0.96
    assert red_share(1000, Rule(), 0.05, 0.01, 100, num=3) >= 0.96
